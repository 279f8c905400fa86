"""Has imported what trainings import, and forks one for each line that it is told: a tenth of the time of a fresh start.

In: {"number", "script", "arguments", "cwd", "environment", "log"}, a line each. Out: {"number", "pid"}, and {"number", "exit"}
when it has ended, negative for a signal, as subprocess has it.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import sys
from pathlib import Path
from typing import Any

LOOK = 0.02  # seconds between two looks at who has ended


def serve() -> dict[str, Any] | None:
    """Returns in a child, with what it is to do; in the parent None, when nobody asks any more."""
    live: dict[int, int] = {}
    while True:
        if select.select([0], [], [], LOOK)[0]:
            line = sys.stdin.readline()
            if not line:
                return None
            order: dict[str, Any] = json.loads(line)
            pid = os.fork()
            if pid == 0:
                return order
            live[pid] = order["number"]
            tell(number=order["number"], pid=pid)
        for pid in list(live):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                tell(number=live.pop(pid), exit=os.waitstatus_to_exitcode(status))


def tell(**what: int) -> None:
    print(json.dumps(what), flush=True)


def become(order: dict[str, Any]) -> None:
    """What `python script` would have found."""
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [order["script"], *order["arguments"]]
    path = order["environment"].get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0:1] = [str(Path(order["script"]).parent), *filter(None, path)]


if __name__ == "__main__":
    import pytorch_lightning  # noqa: F401
    import torch.distributed  # noqa: F401

    if task := serve():
        become(task)
        runpy.run_path(task["script"], run_name="__main__")

"""What a run really ran on, in its `environment.json`: image, torch, CUDA, cuDNN, Lightning, Python, driver, GPUs, packages.

Image and environment are asked once for each content, when the job runs already; the answer is kept for all later runs on
the same.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, List, Optional, cast

from .. import error_codes, machine
from ..errors import AgentError
from ..files import read_json, write_json
from ..host import gpus
from ..paths import HostPaths, RunPaths
from ..programs import Result, last_lines
from ..state import journal

if TYPE_CHECKING:
    from ..schema.host import CachedFacts
    from ..schema.job import Job
    from ..schema.run import Environment, Inventory, Prepared, Versions

    # Runtime.inventory of one job: what was prepared -> its answer.
    Ask = Callable[[Prepared], Optional[Inventory]]


PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inventory_probe.py")
AT_THE_END = 30.0  # seconds that a supervisor stays for an answer when its run is over
TOLD = ("python", "torch", "cuda", "cudnn", "lightning")  # what inventory_probe.py tells, beside the packages
SHOWN = (*TOLD, "driver")  # what a RunRecord has of it


class Asking:
    """Asks and writes down, beside what the supervisor of a running job does."""

    def __init__(self, run: RunPaths, job: Job, ask: Ask):
        self.thread = threading.Thread(target=_note, args=(run, job, ask), daemon=True)
        self.thread.start()

    def finish(self) -> None:
        """The run is over: wait a little for an answer that is on its way."""
        self.thread.join(AT_THE_END)


def _note(run: RunPaths, job: Job, ask: Ask) -> None:
    try:
        prepared = journal.fold(run).prepared
        assert prepared is not None  # its job runs
        write_json(run.environment, record(run, job, prepared, _known(run, ask, prepared)))
    except Exception:  # noqa: BLE001 (a run without this record is better than none)
        traceback.print_exc()


def _known(run: RunPaths, ask: Ask, prepared: Prepared) -> Optional[Inventory]:
    """What image or environment have: as it was told before, or as it is told now. None where nobody tells."""
    name = key(str(prepared["image_id"] or prepared["environment"]))
    found: Optional[Inventory] = read_json(run.host.about(name))
    if found is not None:
        return found
    try:
        found = ask(prepared)
    except (AgentError, OSError, ValueError):
        traceback.print_exc()
        return None
    if found is not None:
        keep(run.host, name, found)
    return found


def keep(host: HostPaths, name: str, found: Inventory) -> None:
    path = host.about(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(path, found)


def key(image_or_environment: str) -> str:
    """Names what is asked: an image by its id, an environment by its folder, which is named by its content."""
    return os.path.basename(image_or_environment).replace(":", "-")


def record(run: RunPaths, job: Job, prepared: Prepared, found: Optional[Inventory]) -> Environment:
    """The whole environment.json."""
    kept = ("image", "digest", "image_id", "base", "content", "environment")
    told = {
        "runtime": job["host"]["runtime"],
        **{name: prepared.get(name) for name in kept},
        **{name: found.get(name) if found is not None else None for name in TOLD},
        "packages": found.get("packages", {}) if found is not None else {},
        "driver": _driver(run.host),
        "gpus": journal.fold(run).gpus,
    }
    return cast("Environment", told)


def _driver(host: HostPaths) -> Optional[str]:
    """As it was last asked since the boot; it cannot change while GPUs are in use."""
    known: Optional[CachedFacts] = read_json(host.facts)
    if known is not None and known.get("boot_id") == machine.boot_id():
        return known.get("driver")
    with suppress(AgentError):
        return gpus.driver_version()
    return None


def summary(run: RunPaths) -> Optional[Versions]:
    """What a RunRecord has of it: versions alone."""
    found: Optional[Environment] = read_json(run.environment)
    return None if found is None else cast("Versions", {name: found.get(name) for name in SHOWN})


def program() -> bytes:
    with open(PROGRAM, "rb") as file:
        return file.read()


def parse(answer: Result) -> Optional[Inventory]:
    """What the program said; None where there is no Python. Raises AgentError."""
    if answer.code == 127:
        return None
    if not answer.ok:
        said = " ".join(last_lines(answer.err, 1)) or "no answer"
        raise AgentError(error_codes.ABOUT, "the job's Python could not be asked what it has: " + said)
    found: Inventory = json.loads(answer.text)
    return found


def command() -> List[str]:
    """argv of a shell that gives the program on its stdin to the Python that a job would get."""
    return ["-c", "for python in python python3; do command -v $python >/dev/null && exec $python -I -; done; exit 127"]

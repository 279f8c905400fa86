"""What gpurun 0.1.0 left on a host and on a laptop, to be laid out where a test wants it.

`tests/data/version-0.1.0.json` holds the files as that version wrote them, by their paths, with @HOST@, @PROJECT@ and @USER@
for the host's home, the project and the user. It is never made anew: files of later versions come beside it.
"""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Any

FILES = Path(__file__).parents[1] / "data" / "version-0.1.0.json"
MACHINE_ID, BOOT_ID = ("demo" * 8), ("b" + "demo" * 8)[:32]
SUCCEEDED, FAILED, STOPPED, RUNNING = "good-um7e", "bad-s3sg", "stops-utdx", "runs-gyp2"
RUNS = {SUCCEEDED: "succeeded", FAILED: "failed", STOPPED: "stopped", RUNNING: "running"}


def lay_out(part: str, folder: Path, *, host: Path, project: Path, machine: str = MACHINE_ID) -> None:
    """Write the files of `part` (`host`: ~/.gpurun there; `laptop`: its data; `project`) into `folder`."""
    values = {"@HOST@": str(host), "@PROJECT@": str(project), "@USER@": getpass.getuser(), MACHINE_ID: machine}
    told: dict[str, Any] = json.loads(FILES.read_text())
    for path, text in told[part].items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub("|".join(values), lambda found: values[found.group()], text))

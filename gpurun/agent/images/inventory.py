"""Record what a run really used, in its `environment.json`: image, torch, CUDA, cuDNN, Lightning, Python, driver, GPUs,
packages.

Each image or environment is inspected once for each content, when the job already runs; the answer is cached for later
runs.
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
AT_THE_END = 30.0  # seconds that a supervisor waits for an answer when its run is over
REPORTED = ("python", "torch", "cuda", "cudnn", "lightning")  # what inventory_probe.py reports, besides the packages
SHOWN = (*REPORTED, "driver")  # the values in a RunRecord


class Asking:
    """Collect and write the inventory in a thread, while the supervisor watches a running job."""

    def __init__(self, run: RunPaths, job: Job, ask: Ask):
        self.thread = threading.Thread(target=_write, args=(run, job, ask), daemon=True)
        self.thread.start()

    def finish(self) -> None:
        """Wait a little for a pending answer: the run is over."""
        self.thread.join(AT_THE_END)


def _write(run: RunPaths, job: Job, ask: Ask) -> None:
    try:
        prepared = journal.fold(run).prepared
        assert prepared is not None  # its job runs
        write_json(run.environment, record(run, job, prepared, _read_or_ask(run, ask, prepared)))
    except Exception:  # noqa: BLE001 (a run without this record is better than none)
        traceback.print_exc()


def _read_or_ask(run: RunPaths, ask: Ask, prepared: Prepared) -> Optional[Inventory]:
    """Return the inventory of the image or environment, cached or asked now. None when nothing can report it."""
    name = key(str(prepared["image_id"] or prepared["environment"]))
    inventory: Optional[Inventory] = read_json(run.host.about(name))
    if inventory is not None:
        return inventory
    try:
        inventory = ask(prepared)
    except (AgentError, OSError, ValueError):
        traceback.print_exc()
        return None
    if inventory is not None:
        store(run.host, name, inventory)
    return inventory


def store(host: HostPaths, name: str, inventory: Inventory) -> None:
    path = host.about(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_json(path, inventory)


def key(image_or_environment: str) -> str:
    """Return a name for what is inspected: an image by its id, an environment by its folder, which is named by its
    content.
    """
    return os.path.basename(image_or_environment).replace(":", "-")


def record(run: RunPaths, job: Job, prepared: Prepared, inventory: Optional[Inventory]) -> Environment:
    """Return the whole environment.json."""
    kept = ("image", "digest", "image_id", "base", "content", "environment")
    document = {
        "runtime": job["host"]["runtime"],
        **{name: prepared.get(name) for name in kept},
        **{name: inventory.get(name) if inventory is not None else None for name in REPORTED},
        "packages": inventory.get("packages", {}) if inventory is not None else {},
        "driver": _driver(run.host),
        "gpus": journal.fold(run).gpus,
    }
    return cast("Environment", document)


def _driver(host: HostPaths) -> Optional[str]:
    """Return the driver as it was last read since the boot; it cannot change while GPUs are in use."""
    cached: Optional[CachedFacts] = read_json(host.facts)
    if cached is not None and cached.get("boot_id") == machine.boot_id():
        return cached.get("driver")
    with suppress(AgentError):
        return gpus.driver_version()
    return None


def summary(run: RunPaths) -> Optional[Versions]:
    """Return the values for a RunRecord: versions only."""
    document: Optional[Environment] = read_json(run.environment)
    return None if document is None else cast("Versions", {name: document.get(name) for name in SHOWN})


def program() -> bytes:
    with open(PROGRAM, "rb") as file:
        return file.read()


def parse(answer: Result) -> Optional[Inventory]:
    """Parse the program's answer. Return None where Python is missing. Raises AgentError."""
    if answer.code == 127:
        return None
    if not answer.ok:
        output = " ".join(last_lines(answer.err, 1)) or "no answer"
        raise AgentError(error_codes.ABOUT, "the job's Python could not report its packages: " + output)
    inventory: Inventory = json.loads(answer.text)
    return inventory


def command() -> List[str]:
    """Return argv of a shell that gives the program on its stdin to the Python that a job would get."""
    return ["-c", "for python in python python3; do command -v $python >/dev/null && exec $python -I -; done; exit 127"]

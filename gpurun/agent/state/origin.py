"""Which machine a run belongs to. Disks are cloned, homes are shared and copied, machines are reinstalled and thrown away.

A run is this machine's when machine id, hardware and place are those that it was prepared with. In doubt nothing is done to
it: the machine that runs it may live. A person can give it up (`gpurun stop --abandon`), which makes it this machine's.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Optional, cast

from .. import error_codes, machine
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json, write_json
from ..paths import HostPaths, RunPaths
from . import jobs, journal

if TYPE_CHECKING:
    from ..schema.job import HostOfJob, Job, MachineOfRun

ABANDON = "gpurun stop --abandon %s"


def identity(host: HostPaths) -> MachineOfRun:
    """What a run remembers of the machine that it is prepared on."""
    return {
        "machine_id": machine.machine_id(),
        "hostname": machine.hostname(),
        "boot_id": machine.boot_id(),
        "signs": machine.signs(),
        "runs": os.path.realpath(host.runs),
    }


def doubt(run: RunPaths, job: Optional[Job] = None) -> Optional[str]:
    """Why this run is another machine's, or may be, in words; None for one of this machine's."""
    known = _machine_of(run, jobs.read_or_empty(run) if job is None else job)
    name = known.get("hostname") or "another machine"
    if known.get("machine_id") != machine.machine_id():
        return "%s belongs to %s, which shares this home or had it before" % (run.id, name)
    if os.path.exists(run.exit):  # nothing of it can live: a disk may move on, and its machine change
        return None
    if known.get("runs") not in (None, os.path.realpath(run.host.runs)):
        return "%s is a copy: it was made in %s, and its job may run there" % (run.id, known["runs"])
    why = machine.another_machine(known.get("signs") or {}, machine.signs())
    if why is not None and not any(
        map(machine.is_this_boot, filter(None, (known.get("boot_id"), journal.fold(run).boot_id)))
    ):
        return "%s may run on another machine: %s, since this disk was cloned or its machine changed" % (run.id, why)
    return None


def _machine_of(run: RunPaths, job: Job) -> HostOfJob:
    """Return what the run remembers of its machine: that which took it over last."""
    adopted: Optional[MachineOfRun] = read_json(run.adopted)
    return cast("HostOfJob", {**(job.get("host") or {}), **(adopted or {})})


def is_of_this_host(run: RunPaths) -> bool:
    """False for a run that is another machine's, or may be, of a newer gpurun, and for what is no run at all."""
    job = jobs.read(run)
    if not isinstance(job, dict) or journal.schema_of(job) > words.JOB_SCHEMA:
        return False
    host = job.get("host")
    return host is not None and host.get("runtime") in words.RUNTIMES and doubt(run, job) is None


def refuse(run: RunPaths, job: Optional[Job] = None) -> None:
    """Raise AgentError `elsewhere` for a run that is another machine's, or may be."""
    why = doubt(run, job)
    if why is not None:
        raise AgentError(error_codes.ELSEWHERE, why, "ask that host; when it is gone for good: " + ABANDON % run.id)


def show_life(run: RunPaths) -> int:
    """Show those who share this home that a supervisor lives, for as long as the descriptor is open; -1 where that fails.

    A lock on a file in the run's folder: file systems that keep locks for several machines show it to all of them.
    """
    try:
        fd = os.open(run.life, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd


def lives(run: RunPaths) -> bool:
    """A supervisor shows its life, here or on another machine. False says nothing."""
    try:
        fd = os.open(run.life, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def adopt(run: RunPaths) -> None:
    """Make an ended run this machine's, on which it may go on."""
    known = _machine_of(run, jobs.read_or_empty(run))
    mine = identity(run.host)
    if any(known.get(key) != value for key, value in mine.items() if key != "boot_id"):
        write_json(run.adopted, mine)

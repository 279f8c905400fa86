"""Decide which host a run belongs to.

Disks are cloned, homes are shared and copied, hosts are reinstalled and thrown away.

A run belongs to this host when machine id, hardware and path are those with which it was prepared. In doubt gpurun
changes nothing about it: the host that runs it may be alive. A person can abandon the run (`gpurun stop --abandon`);
then it belongs to this host.
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
    """Return what is recorded of this host when a run is prepared on it."""
    return {
        "machine_id": machine.machine_id(),
        "hostname": machine.hostname(),
        "boot_id": machine.boot_id(),
        "signs": machine.signs(),
        "runs": os.path.realpath(host.runs),
    }


def doubt(run: RunPaths, job: Optional[Job] = None) -> Optional[str]:
    """Return why this run belongs, or may belong, to another host, in words; None for a run of this host."""
    origin = _machine_of(run, jobs.read_or_empty(run) if job is None else job)
    name = origin.get("hostname") or "another host"
    if origin.get("machine_id") != machine.machine_id():
        return "%s belongs to %s, which shares this home or used it before" % (run.id, name)
    if os.path.exists(run.exit):  # no process of it can be alive: a disk may move, and its machine may change
        return None
    if origin.get("runs") not in (None, os.path.realpath(run.host.runs)):
        return "%s is a copy: it was made in %s, and its job may run there" % (run.id, origin["runs"])
    why = machine.another_machine(origin.get("signs") or {}, machine.signs())
    if why is not None and not any(
        map(machine.is_this_boot, filter(None, (origin.get("boot_id"), journal.fold(run).boot_id)))
    ):
        return "%s may run on another host: %s, because this disk was cloned or its machine changed" % (run.id, why)
    return None


def _machine_of(run: RunPaths, job: Job) -> HostOfJob:
    """Return what the run remembers of its machine: that which took it over last."""
    adopted: Optional[MachineOfRun] = read_json(run.adopted)
    return cast("HostOfJob", {**(job.get("host") or {}), **(adopted or {})})


def is_of_this_host(run: RunPaths) -> bool:
    """Return False for a run that belongs, or may belong, to another host, a run of a newer gpurun, and a folder that
    is not a run.
    """
    job = jobs.read(run)
    if not isinstance(job, dict) or journal.schema_of(job) > words.JOB_SCHEMA:
        return False
    host = job.get("host")
    return host is not None and host.get("runtime") in words.RUNTIMES and doubt(run, job) is None


def refuse(run: RunPaths, job: Optional[Job] = None) -> None:
    """Raise AgentError `elsewhere` for a run that belongs, or may belong, to another host."""
    why = doubt(run, job)
    if why is not None:
        raise AgentError(error_codes.ELSEWHERE, why, "use that host; when it is gone for good: " + ABANDON % run.id)


def show_life(run: RunPaths) -> int:
    """Show other hosts that share this home that a supervisor is alive, as long as the descriptor is open.

    Return -1 on failure.

    This is a lock on a file in the run's folder: file systems that support locks across hosts show it to all of them.
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
    """Return whether a supervisor shows its life, here or on another host. False proves nothing."""
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
    """Make an ended run belong to this host, on which it may continue."""
    origin = _machine_of(run, jobs.read_or_empty(run))
    identity_here = identity(run.host)
    if any(origin.get(key) != value for key, value in identity_here.items() if key != "boot_id"):
        write_json(run.adopted, identity_here)

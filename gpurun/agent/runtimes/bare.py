"""Run jobs on hosts without an engine, such as many rented hosts: as processes of the host, in a Python environment."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
import time
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from .. import error_codes, machine, programs
from .. import vocabulary as words
from ..errors import AgentError, JobLost, RunFailed
from ..files import read_json, write_json
from ..host import locks
from ..host.gpus import Gpu
from ..images import environments, inventory
from ..paths import RunPaths
from ..setup import notebooks, plugin_files, services, sockets, wrapper
from . import Presence, Say, keeper

if TYPE_CHECKING:
    from ..schema.job import AttemptJob, JobSpec
    from ..schema.programs import KeeperOrder, KeeperRecord
    from ..schema.run import Inventory, Prepared

KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
KEEPER_MARK = "GPURUN_KEEPER"
LOOK = 0.2  # seconds between two checks whether the job has ended
KEEPER_ANSWERS_IN = 60.0  # seconds
STARTS = 3  # attempts to start a job whose keepers are killed before it has begun

# Variables of the connection that sent the agent: outdated or wrong for the job.
_OF_THE_LOGIN = ("SSH_", "XDG_", "DBUS_", "PYTHONHOME", "VIRTUAL_ENV", "OLDPWD", "PWD", "SHLVL", "MAIL", "_")


class Bare:
    name = "bare"

    def __init__(self, engine: Sequence[str]):
        self.engine = engine  # unused: this runtime has no engine

    def prepare(self, run: RunPaths, job: AttemptJob, say: Say) -> Prepared:
        link_mounts(run, job)
        environment = environments.ensure(run, job, say)
        prepared: Prepared = {
            "image": None,
            "digest": None,
            "image_id": None,
            "environment": environment.path,
            "python": environment.python,
            "path": environment.folders,
        }
        write_json(run.prepared, prepared)
        return prepared

    def create_and_start(
        self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], leases: List[int]
    ) -> None:
        for _ in range(STARTS):
            if self._start(run, job, prepared, gpus, leases):
                return
            _wait_for_killed_keepers(run)
        raise RunFailed("start", "the job could not be started: its keepers were killed %d times" % STARTS)

    def _start(self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], leases: List[int]) -> bool:
        """Start the job unless it runs or has run. Return False when its keepers were killed before they answered."""
        held = _try_lock(locks.job_lock(run.id))
        if held is None:
            return True  # it runs
        try:
            record = _record(run)
            if record is not None and "exit_code" in record:
                return True
            if record is not None or wrapper.was_started(
                run, job
            ):  # a keeper that was killed at once has left no record
                if job_processes(run, job):
                    return True
                raise JobLost("keeper", words.END_NOT_KNOWN)
            with wrapper.disk_errors_as_failure():
                wrapper.make_folders(run, job["project"]["name"])
                first, last = settings(run, job, prepared, gpus)
                places = wrapper.on_host(run, job["project"]["name"])
                wrapper.write(run, places, first, last)
                services.lay_out(run, job, places)
                notebooks.lay_out(run, job)
                plugin_files.lay_out(run, job)
            return _start_keeper(order(run, job, [*held.fds, *leases]))
        finally:
            held.release()  # keeper and job hold the lock now

    def about(self, run: RunPaths, job: AttemptJob, prepared: Prepared) -> Optional[Inventory]:
        return inventory.parse(
            programs.run([prepared["python"], "-I", "-"], timeout=180.0, stdin=inventory.program(), cwd="/")
        )

    def presence(self, run: RunPaths, job: AttemptJob) -> Presence:
        for _ in range(2):  # the keeper writes the exit, then frees the lock: check the record again after the lock
            record = _record(run)
            if record is not None and "exit_code" in record:
                return Presence(
                    "exited",
                    record["exit_code"],
                    started_at=record["started"],
                    finished_at=record["finished"],
                )
            if not locks.is_free(locks.job_lock(run.id)) or job_processes(run, job):
                return Presence("running", started_at=record["started"] if record is not None else None)
        return Presence("absent")

    def ended(self, run: RunPaths, job: AttemptJob, presence: Presence, started: Optional[float]) -> Presence:
        return presence

    def wait(self, run: RunPaths, job: AttemptJob, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while _main_process(_record(run)) or self.presence(run, job).kind == "running":
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(LOOK, left))

    def signal(self, run: RunPaths, job: AttemptJob, name: str) -> None:
        root = machine.root_mark(run.host)
        if keeper.carriers(run.id, root, KEEPER_MARK):
            with open(run.keeper_control, "ab") as file:
                file.write(name.encode() + b"\n")
            return
        # The keepers were killed. The pid of the main process may be reused by now: environment and lock identify the
        # job.
        record = _record(run)
        alive = keeper.carriers(run.id, root) | locks.holders(locks.job_lock(run.id)) | _main_process(record)
        for pid in alive if name == "KILL" else alive & {record["pid"] if record is not None else None}:
            try:
                os.kill(pid, signal.SIGKILL if name == "KILL" else signal.SIGTERM)
            except (ProcessLookupError, PermissionError):
                pass

    def remove(self, run: RunPaths, job: AttemptJob, *, unstarted: bool = False) -> None:
        lock = locks.job_lock(run.id)
        deadline = time.monotonic() + keeper.PATIENCE
        while not locks.is_free(lock) or job_processes(run, None):
            self.signal(run, job, "KILL")
            if time.monotonic() > deadline:
                raise AgentError(
                    error_codes.JOB_LIVES,
                    "processes of run %s do not end after SIGKILL" % run.id,
                    "check `ps` on the host",
                )
            time.sleep(LOOK)
        if os.path.exists(lock):
            os.unlink(lock)

    def notes(self, job: JobSpec) -> List[str]:
        resources = job["resources"]
        limits = [
            ("memory", "--memory is not enforced: without an engine a job may use all of the host's memory"),
            ("cpus", "--cpus is not enforced: without an engine a job may use all of the host's CPUs"),
            ("shm", "--shm-size is not enforced: the job shares the host's /dev/shm"),
        ]
        notes = [note for name, note in limits if resources.get(name) is not None]
        if job["user"] is not None or job["keep_caps"]:
            notes.append("user and keep_caps have no effect: without an engine the job runs as the host's own user")
        if any(mount.get("readonly") for mount in job["mounts"]):
            notes.append("read-only mounts are not enforced: without an engine the job sees the host's own paths")
        return notes

    def relay(self, run: RunPaths, job: AttemptJob, socket: str, port: int) -> Optional[List[str]]:
        return None

    def shell(self, run: RunPaths, job: AttemptJob, command: Sequence[str], tty: bool) -> List[str]:
        if not os.path.exists(run.wrapper):
            raise AgentError(
                error_codes.NOT_STARTED, "run %s has no environment yet" % run.id, "wait until it is running"
            )
        places = wrapper.on_host(run, job["project"]["name"])
        sockets.tmp(run)  # the link may have been removed at the run's end
        mark = ["/usr/bin/env", keeper.SHELL_MARK + "=1"]
        return [*mark, *wrapper.shell(places, command, services.holder(job, places.ro, command))]

    def shells(self, run: RunPaths, job: AttemptJob) -> List[str]:
        return ["kill -HUP %d" % pid for pid in keeper.shells(run.id, machine.root_mark(run.host))]


def job_processes(run: RunPaths, job: Optional[AttemptJob]) -> Set[int]:
    """Return all live processes of the job for this attempt (None: any attempt), from /proc, whatever happened to the
    lock. Slow.

    Hooks and shells beside the job do not count; its keepers do, because they must write its end.
    """
    root = machine.root_mark(run.host)
    pids = keeper.of_job(run.id, root, None if job is None else job["attempt"])
    pids |= keeper.carriers(run.id, root, KEEPER_MARK) | locks.holders(locks.job_lock(run.id))
    return pids | _main_process(_record(run))


def _record(run: RunPaths) -> Optional[KeeperRecord]:
    """Return what the keeper has written; None before that."""
    record: Optional[KeeperRecord] = read_json(run.keeper)
    return record


def _main_process(record: Optional[KeeperRecord]) -> Set[int]:
    """Return the process that the keeper started, if it lives: it may have cleared its environment and closed its
    files.
    """
    if record is None:
        return set()
    pid, ticks = record.get("pid"), record.get("ticks")
    if pid is None or ticks is None or "exit_code" in record or record.get("boot_id") != machine.boot_id():
        return set()
    return {pid} if keeper.start_ticks(pid) == ticks else set()


def order(run: RunPaths, job: AttemptJob, fds: List[int]) -> KeeperOrder:
    """Return the order for the keeper."""
    places = wrapper.on_host(run, job["project"]["name"])
    return {
        "id": run.id,
        "argv": wrapper.start(places, services.command(job, places.ro)),
        "cwd": run.workspace,
        "env": {
            **inherited(os.environ),
            # The wrapper sets them too, but /proc shows the environment with which a program started.
            keeper.RUN_MARK: run.id,
            keeper.ROOT_MARK: machine.root_mark(run.host),
            "GPURUN_ATTEMPT": str(job["attempt"]),
        },
        "boot_id": machine.boot_id(),
        "log": run.log,
        "record": run.keeper,
        "control": run.keeper_control,
        "fds": fds,
        "root": machine.root_mark(run.host),
    }


def inherited(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the host's own variables that a job keeps."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OF_THE_LOGIN) and not name.startswith("GPURUN_RUN_")
    }


def settings(
    run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: Sequence[Gpu]
) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Return what the wrapper sets before the user's own variables, and after them."""
    places = wrapper.on_host(run, job["project"]["name"])
    user = pwd.getpwuid(os.getuid())
    first = wrapper.settings(places, user.pw_name, job)
    first["TMPDIR"] = sockets.tmp(run)
    first["VIRTUAL_ENV"] = str(prepared["environment"])
    first["PATH"] = os.pathsep.join([*prepared["path"], os.environ.get("PATH", os.defpath)])
    # HOME is gpurun's now; packages of `pip install --user` must stay importable.
    first["PYTHONUSERBASE"] = os.environ.get("PYTHONUSERBASE", os.path.join(user.pw_dir, ".local"))
    last = {**wrapper.last_settings(places, job), keeper.ROOT_MARK: machine.root_mark(run.host)}
    last["CUDA_VISIBLE_DEVICES"] = ",".join(gpu.uuid for gpu in gpus)
    return first, last


def link_mounts(run: RunPaths, job: AttemptJob) -> None:
    """Make a link in the workspace for each mount, unless its target is the host's own path: nothing can be mounted
    here.

    Raises RunFailed for a target elsewhere.
    """
    for mount in job["mounts"]:
        source = os.path.expanduser(mount["source"])
        if not os.path.exists(source):
            raise RunFailed("start", "the host has no %s to mount" % source, "check --mount, or push the data first")
        if mount is wrapper.first_data(job):  # $GPURUN_DATA is its path
            continue
        target = mount["target"]
        if os.path.realpath(source) == os.path.realpath(target):
            continue
        inside = os.path.relpath(target, wrapper.IN_CONTAINER.workspace)
        if inside == "." or inside.startswith(".."):
            raise RunFailed(
                "start",
                "without an engine %s cannot be mounted at %s" % (source, target),
                "name it first, which makes it $GPURUN_DATA"
                if mount.get("name")
                else "mount it at %s itself, or below %s" % (source, wrapper.IN_CONTAINER.workspace),
            )
        link = os.path.join(run.workspace, inside)
        os.makedirs(os.path.dirname(link), exist_ok=True)
        if not os.path.lexists(link):
            os.symlink(source, link)


def _try_lock(lock: str) -> Optional[locks.Held]:
    """Return the lock, or None when a job holds it. A process that only checks it holds it for a moment too."""
    for _ in range(5):
        held = locks.acquire(lock)
        if held is not None:
            return held
        time.sleep(LOOK / 4)
    return None


def _start_keeper(order: KeeperOrder) -> bool:
    """Start the keepers, and wait until the job is started. Return False when they were killed before they answered."""
    answer = programs.run(
        [sys.executable, "-I", "-S", KEEPER],
        stdin=json.dumps(order).encode(),
        env={**inherited(os.environ), KEEPER_MARK: order["id"], keeper.ROOT_MARK: order["root"]},
        timeout=KEEPER_ANSWERS_IN,
        pass_fds=order["fds"],
        detached=True,
    )
    if answer.timed_out:
        raise RunFailed("start", "the job's keeper did not answer in %.0f s" % KEEPER_ANSWERS_IN)
    if answer.code < 0 or answer.out == keeper.DIED:
        return False
    if not answer.ok:
        raise RunFailed("start", "the job could not be started: " + answer.error_text)
    return True


def _wait_for_killed_keepers(run: RunPaths) -> None:
    """Return when nothing remains of a start that failed, or when that start has succeeded after all."""
    deadline = time.monotonic() + keeper.PATIENCE
    while time.monotonic() < deadline and not locks.is_free(locks.job_lock(run.id)) and read_json(run.keeper) is None:
        time.sleep(LOOK / 4)

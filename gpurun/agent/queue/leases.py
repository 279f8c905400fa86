"""Lease GPUs to runs: one lock file for each GPU, shared by all users of the host.

A GPU is free when nobody holds its lock, no live container is labelled with it, and no foreign process computes or
holds memory on it. nvidia-smi and the engine report what others use. They are asked before a lock is taken, and gpurun
never waits for a lock. A note beside each lock, a file `UUID.UID.RUN`, names the run that holds the lease. The note is
locked as long as the lease; the owner of the file proves which account wrote it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from .. import vocabulary as words
from ..errors import AgentError
from ..host import locks
from ..host.gpus import Gpu
from . import shared_folder
from .shared_folder import Odd

# A driver keeps a little memory for itself on an idle GPU. If more than this is in use and gpurun may see no process,
# somebody uses the GPU (nvidia-smi inside a container does not show the processes of other containers).
FOREIGN_MEMORY = 1 << 29

KEEP_EVERY = 30.0  # seconds between two checks that the leases of a running job still hold

_OWNER = re.compile(r"[\w.@+-]{1,64}")


@dataclass(frozen=True)
class Use:
    """Describe who uses a GPU, in words for people."""

    by: str
    run: Optional[str] = None
    who: str = ""  # the same without amounts, which change all the time


def lock_path(uuid: str) -> str:
    return shared_folder.path(uuid)


def note_path(uuid: str, run_id: str) -> str:
    return shared_folder.path(_note_name(uuid, run_id))


def _note_name(uuid: str, run_id: str) -> str:
    return "%s.%d.%s" % (uuid, os.getuid(), run_id)


def take(uuids: Sequence[str], run_id: str, owner: str) -> Optional[List[locks.Held]]:
    """Lock all these GPUs and return the locks.

    Return None when one GPU is held or cannot be used; no lock is kept then.

    Raises AgentError `queue`.
    """
    note = json.dumps({"owner": owner}).encode()
    taken: List[locks.Held] = []
    try:
        with shared_folder.opened() as folder:
            for uuid in uuids:
                if _is_locked(folder, uuid):  # by another process of the same run; its note stays
                    release(taken)
                    return None
                # Write the note first: a process that finds the lock held can then read which run holds it.
                name = _note_name(uuid, run_id)
                taken.append(Note(shared_folder.put(folder, name, note_path(uuid, run_id), note)))
                lock = shared_folder.try_lock(folder, uuid, lock_path(uuid))
                if lock is None:
                    release(taken)
                    return None
                taken.append(lock)
    except Odd:  # `holder` reports it
        release(taken)
        return None
    except BaseException:
        release(taken)
        raise
    for held in taken:
        # A job without an engine inherits these locks: its GPUs stay leased as long as one of its processes lives.
        os.set_inheritable(held.fd, True)
    return taken


def _is_locked(folder: int, uuid: str) -> bool:
    """Return whether a process holds the lock of this GPU. Raises Odd."""
    try:
        fd = shared_folder.open_checked(folder, uuid, lock_path(uuid))
    except FileNotFoundError:
        return False
    try:
        return shared_folder.is_held(fd)
    finally:
        os.close(fd)


@contextmanager
def kept(uuids: Sequence[str], run_id: str, owner: str, held: List[locks.Held]) -> Iterator[None]:
    """While the block runs, take the locks of these GPUs again when their files are removed.

    Append new locks to `held`.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(KEEP_EVERY):
            for uuid in uuids:
                with suppress(AgentError, OSError):
                    held.extend(take([uuid], run_id, owner) or [])

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


class Note(locks.Held):
    """Name the run that holds a lease. The note is released with the last process that holds it."""

    def __init__(self, held: locks.Held):
        super().__init__(held.path, held.fd)

    def release(self) -> None:
        super().release()
        with suppress(AgentError, OSError, Odd), shared_folder.opened() as folder:
            name = os.path.basename(self.path)
            fd = shared_folder.open_checked(folder, name, self.path, os.getuid())
            try:
                if not shared_folder.is_held(fd):
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(fd)


def release(taken: Sequence[locks.Held]) -> None:
    for held in reversed(taken):  # the lock before its note
        held.release()


def holder(uuid: str) -> Optional[Use]:
    """Return who holds the lease of this GPU, or None when nobody holds it. Raises AgentError `queue`."""
    with shared_folder.opened() as folder:
        try:
            fd = shared_folder.open_checked(folder, uuid, lock_path(uuid))
        except FileNotFoundError:
            return None
        except Odd as odd:
            return Use("its lock file cannot be used, and its owner or root must remove it: " + odd.what)
        try:
            if not shared_folder.is_held(fd):
                return None
            return _noted_use(folder, uuid) or Use(_describe_lock_holder(fd))
        finally:
            os.close(fd)


def _noted_use(folder: int, uuid: str) -> Optional[Use]:
    """Return what the note beside a lock names.

    Of several notes (another run tries to take a held lease) the oldest counts.
    """
    uses_by_age: List[Tuple[float, Use]] = []
    for name in os.listdir(folder):
        uid, _, run = name[len(uuid) + 1 :].partition(".")
        if (
            not name.startswith(uuid + ".")
            or not re.fullmatch("[0-9]{1,10}", uid)
            or not re.fullmatch(words.RUN_ID, run)
        ):
            continue
        try:
            fd = shared_folder.open_checked(folder, name, shared_folder.path(name), int(uid))
        except (FileNotFoundError, Odd):
            continue
        try:
            if shared_folder.is_held(fd):
                whose = _read_owner(shared_folder.read_small(fd)) if int(uid) == os.getuid() else None
                use = Use("run %s of %s" % (run, whose or shared_folder.account(int(uid))), run)
                uses_by_age.append((os.fstat(fd).st_ctime, use))
        finally:
            os.close(fd)
    return min(uses_by_age, key=lambda dated: dated[0])[1] if uses_by_age else None


def _read_owner(note: bytes) -> Optional[str]:
    """Return which of the people who share this account owns the run.

    Notes of other accounts are not trusted with a name.
    """
    try:
        record: Any = json.loads(note)
    except ValueError:
        return None
    owner = record.get("owner") if isinstance(record, dict) else None
    return owner if isinstance(owner, str) and _OWNER.fullmatch(owner) else None


def _describe_lock_holder(fd: int) -> str:
    """Return the process that holds the lock of an open file, as far as the kernel shows it."""
    status = os.fstat(fd)
    inode = "%02x:%02x:%d" % (os.major(status.st_dev), os.minor(status.st_dev), status.st_ino)
    with suppress(OSError), open("/proc/locks", encoding="ascii", errors="replace") as file:
        for line in file:
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == inode and fields[4].isdigit():
                pid = int(fields[4])
                owner = owners([pid]).get(pid)
                if owner is not None:
                    return "process %d of %s, which holds its lock" % (pid, owner)
    return "another run"


def uses(
    gpus: Sequence[Gpu],
    processes: Sequence[Tuple[str, int, str, int]],
    labelled: Mapping[str, str],
    owner_of_pid: Mapping[int, str],
) -> Dict[str, Use]:
    """Return GPU UUID -> who uses the GPU. Free GPUs are left out.

    `processes`: (uuid, pid, name, bytes) as nvidia-smi reports them; `labelled`: GPU UUID -> run, of live containers.
    """
    use_of_gpu: Dict[str, Use] = {}
    for gpu in gpus:
        use = holder(gpu.uuid) or _foreign_use(gpu, processes, labelled, owner_of_pid)
        if use is not None:
            use_of_gpu[gpu.uuid] = use
    return use_of_gpu


def _foreign_use(
    gpu: Gpu,
    processes: Sequence[Tuple[str, int, str, int]],
    labelled: Mapping[str, str],
    owner_of_pid: Mapping[int, str],
) -> Optional[Use]:
    """Return who uses a GPU that nobody has leased, or None when the GPU is free."""
    if gpu.uuid in labelled:
        return Use("run " + labelled[gpu.uuid], labelled[gpu.uuid])
    for uuid, pid, name, used in processes:
        if uuid == gpu.uuid:
            program = os.path.basename(name.split(" ")[0]) or "?"
            owner = owner_of_pid.get(pid, "?")
            return Use("process %d (%s of %s, %d MiB)" % (pid, program, owner, used >> 20), who="process %d" % pid)
    if gpu.used > FOREIGN_MEMORY:
        by = "%d MiB of memory in use by a process that gpurun cannot see" % (gpu.used >> 20)
        return Use(by, who="a process that gpurun cannot see")
    return None


def owners(pids: Sequence[int]) -> Dict[int, str]:
    """Return the users of these processes. Processes that are gone are left out."""
    owner_of_pid = {}
    for pid in pids:
        with suppress(OSError):
            owner_of_pid[pid] = shared_folder.account(os.stat("/proc/%d" % pid).st_uid)
    return owner_of_pid


def choose(gpus: Sequence[Gpu], wanted: int, used: Mapping[str, Use]) -> Optional[List[Gpu]]:
    """Return the GPUs to take, lowest index first, or None when too few are free."""
    free = [gpu for gpu in gpus if gpu.uuid not in used]
    return free[:wanted] if len(free) >= wanted else None


def blockers(gpus: Sequence[Gpu], used: Mapping[str, Use]) -> Tuple[Tuple[str, str], ...]:
    """Return which GPUs are taken and by whom: the facts of `why_waiting`, without amounts."""
    return tuple((gpu.uuid, used[gpu.uuid].who or used[gpu.uuid].by) for gpu in gpus if gpu.uuid in used)


def why_waiting(gpus: Sequence[Gpu], wanted: int, used: Mapping[str, Use]) -> str:
    """Return what a waiting run waits for: `2 GPUs (1 of 4 free); GPU 0,1: run train-7f3k of ada; GPU 2: process 4242
    (...)`.
    """
    taken: Dict[str, List[str]] = {}
    for gpu in gpus:
        if gpu.uuid in used:
            taken.setdefault(used[gpu.uuid].by, []).append(str(gpu.index))
    free = len(gpus) - sum(map(len, taken.values()))
    need = "%d GPU%s" % (wanted, "" if wanted == 1 else "s")
    users = ["GPU %s: %s" % (",".join(indexes), by) for by, indexes in taken.items()]
    return "; ".join(["%s (%d of %d free)" % (need, free, len(gpus)), *users])

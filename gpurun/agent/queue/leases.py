"""GPUs are leased: one lock file a GPU, shared by all users of the host.

A GPU is free when nobody holds its lock, no live container is labelled with it, and no stranger computes or holds memory
on it. What others hold is asked (nvidia-smi, the engine) before a lock is taken, and no lock is waited for. Which run holds
one stands in a note beside it, a file `UUID.UID.RUN` that is locked as long as the lease: whose note it is, its owner proves.
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

# A driver keeps a little for itself on an idle GPU; more than this, without a process that we may see, is somebody's
# (nvidia-smi inside a container shows no process of the other containers).
FOREIGN_MEMORY = 1 << 29

KEEP_EVERY = 30.0  # seconds between two looks at whether the leases of a running job still stand

_OWNER = re.compile(r"[\w.@+-]{1,64}")


@dataclass(frozen=True)
class Use:
    """Who uses a GPU, in words for people."""

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
    """The locks of all these GPUs, or None when one of them is held or cannot be used: never some of them.

    Raises AgentError `queue`.
    """
    note = json.dumps({"owner": owner}).encode()
    taken: List[locks.Held] = []
    try:
        with shared_folder.opened() as folder:
            for uuid in uuids:
                if _is_locked(folder, uuid):  # by another process of the same run, whose note stays
                    release(taken)
                    return None
                # The note comes first: whoever finds the lock held can read by whom.
                name = _note_name(uuid, run_id)
                taken.append(Note(shared_folder.put(folder, name, note_path(uuid, run_id), note)))
                lock = shared_folder.try_lock(folder, uuid, lock_path(uuid))
                if lock is None:
                    release(taken)
                    return None
                taken.append(lock)
    except Odd:  # `holder` tells of it
        release(taken)
        return None
    except BaseException:
        release(taken)
        raise
    for held in taken:
        # A job without an engine inherits these: its GPUs stay leased as long as a process of it lives.
        os.set_inheritable(held.fd, True)
    return taken


def _is_locked(folder: int, uuid: str) -> bool:
    """Raises Odd."""
    try:
        fd = shared_folder.look(folder, uuid, lock_path(uuid))
    except FileNotFoundError:
        return False
    try:
        return shared_folder.is_held(fd)
    finally:
        os.close(fd)


@contextmanager
def kept(uuids: Sequence[str], run_id: str, owner: str, held: List[locks.Held]) -> Iterator[None]:
    """Take the locks of these GPUs again when their files are swept away, for as long as the block lasts.

    What is taken comes into `held`.
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
    """Which run holds a lease. It goes with the last process that holds it."""

    def __init__(self, held: locks.Held):
        super().__init__(held.path, held.fd)

    def release(self) -> None:
        super().release()
        with suppress(AgentError, OSError, Odd), shared_folder.opened() as folder:
            name = os.path.basename(self.path)
            fd = shared_folder.look(folder, name, self.path, os.getuid())
            try:
                if not shared_folder.is_held(fd):
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(fd)


def release(taken: Sequence[locks.Held]) -> None:
    for held in reversed(taken):  # the lock before its note
        held.release()


def holder(uuid: str) -> Optional[Use]:
    """Who holds the lease of this GPU; None when nobody does. Raises AgentError `queue`."""
    with shared_folder.opened() as folder:
        try:
            fd = shared_folder.look(folder, uuid, lock_path(uuid))
        except FileNotFoundError:
            return None
        except Odd as odd:
            return Use("its lock file cannot be used, and its owner or root has to remove it: " + odd.what)
        try:
            if not shared_folder.is_held(fd):
                return None
            return _noted(folder, uuid) or Use(_who_locks(fd))
        finally:
            os.close(fd)


def _noted(folder: int, uuid: str) -> Optional[Use]:
    """What the note beside a lock says: of several (somebody tries to take what is held) the oldest."""
    found: List[Tuple[float, Use]] = []
    for name in os.listdir(folder):
        uid, _, run = name[len(uuid) + 1 :].partition(".")
        if (
            not name.startswith(uuid + ".")
            or not re.fullmatch("[0-9]{1,10}", uid)
            or not re.fullmatch(words.RUN_ID, run)
        ):
            continue
        try:
            fd = shared_folder.look(folder, name, shared_folder.path(name), int(uid))
        except (FileNotFoundError, Odd):
            continue
        try:
            if shared_folder.is_held(fd):
                whose = _owner(shared_folder.read_small(fd)) if int(uid) == os.getuid() else None
                use = Use("run %s of %s" % (run, whose or shared_folder.account(int(uid))), run)
                found.append((os.fstat(fd).st_ctime, use))
        finally:
            os.close(fd)
    return min(found, key=lambda one: one[0])[1] if found else None


def _owner(note: bytes) -> Optional[str]:
    """Who of those that share this account owns the run; other accounts' word for it does not count."""
    try:
        told: Any = json.loads(note)
    except ValueError:
        return None
    owner = told.get("owner") if isinstance(told, dict) else None
    return owner if isinstance(owner, str) and _OWNER.fullmatch(owner) else None


def _who_locks(fd: int) -> str:
    """The process that holds the lock of an open file, as far as the kernel tells."""
    found = os.fstat(fd)
    inode = "%02x:%02x:%d" % (os.major(found.st_dev), os.minor(found.st_dev), found.st_ino)
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
    """GPU UUID -> who uses it; GPUs that are free are left out.

    `processes`: (uuid, pid, name, bytes) as nvidia-smi tells; `labelled`: GPU UUID -> run, of live containers.
    """
    found: Dict[str, Use] = {}
    for gpu in gpus:
        use = holder(gpu.uuid) or _foreign(gpu, processes, labelled, owner_of_pid)
        if use is not None:
            found[gpu.uuid] = use
    return found


def _foreign(
    gpu: Gpu,
    processes: Sequence[Tuple[str, int, str, int]],
    labelled: Mapping[str, str],
    owner_of_pid: Mapping[int, str],
) -> Optional[Use]:
    if gpu.uuid in labelled:
        return Use("run " + labelled[gpu.uuid], labelled[gpu.uuid])
    for uuid, pid, name, used in processes:
        if uuid == gpu.uuid:
            program = os.path.basename(name.split(" ")[0]) or "?"
            owner = owner_of_pid.get(pid, "?")
            return Use("process %d (%s of %s, %d MiB)" % (pid, program, owner, used >> 20), who="process %d" % pid)
    if gpu.used > FOREIGN_MEMORY:
        by = "%d MiB of memory in use by somebody gpurun cannot see" % (gpu.used >> 20)
        return Use(by, who="somebody gpurun cannot see")
    return None


def owners(pids: Sequence[int]) -> Dict[int, str]:
    """The users of these processes; those that are gone are left out."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            found[pid] = shared_folder.account(os.stat("/proc/%d" % pid).st_uid)
    return found


def choose(gpus: Sequence[Gpu], wanted: int, used: Mapping[str, Use]) -> Optional[List[Gpu]]:
    """The GPUs to take, lowest index first; None when too few are free."""
    free = [gpu for gpu in gpus if gpu.uuid not in used]
    return free[:wanted] if len(free) >= wanted else None


def blockers(gpus: Sequence[Gpu], used: Mapping[str, Use]) -> Tuple[Tuple[str, str], ...]:
    """Which GPUs are taken, by whom: what `why_waiting` says, without amounts."""
    return tuple((gpu.uuid, used[gpu.uuid].who or used[gpu.uuid].by) for gpu in gpus if gpu.uuid in used)


def why_waiting(gpus: Sequence[Gpu], wanted: int, used: Mapping[str, Use]) -> str:
    """What a waiting run waits for: `2 GPUs (1 of 4 free); GPU 0,1: run train-7f3k of ada; GPU 2: process 4242 (...)`."""
    taken: Dict[str, List[str]] = {}
    for gpu in gpus:
        if gpu.uuid in used:
            taken.setdefault(used[gpu.uuid].by, []).append(str(gpu.index))
    free = len(gpus) - sum(map(len, taken.values()))
    need = "%d GPU%s" % (wanted, "" if wanted == 1 else "s")
    users = ["GPU %s: %s" % (",".join(indexes), by) for by, indexes in taken.items()]
    return "; ".join(["%s (%d of %d free)" % (need, free, len(gpus)), *users])

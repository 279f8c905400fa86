"""GPUs are leased: one lock file a GPU, shared by all users of the host.

A GPU is free when nobody holds its lock, no live container is labelled with it, and no stranger computes or holds memory
on it. What others hold is asked (nvidia-smi, the engine) before the line's lock is taken: only locking happens under it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from . import locks, tickets
from .gpus import Gpu

# A driver keeps a little for itself on an idle GPU; more than this, without a process that we may see, is somebody's
# (nvidia-smi inside a container shows no process of the other containers).
FOREIGN_MEMORY = 1 << 29


@dataclass(frozen=True)
class Use:
    """Who uses a GPU, in words for people."""

    by: str
    run: Optional[str] = None


def lock_path(uuid: str) -> str:
    return os.path.join(tickets.shared_folder(), uuid)


def take(uuids: Sequence[str], run_id: str, owner: str) -> Optional[List[locks.Held]]:
    """The locks of all these GPUs, or None when one of them is held: never some of them."""
    taken: List[locks.Held] = []
    for uuid in uuids:
        held = locks.acquire(lock_path(uuid), mode=0o666)
        if held is None:
            release(taken)
            return None
        taken.append(held)
    note = json.dumps({"run": run_id, "owner": owner}).encode()
    for held in taken:
        os.pwrite(held.fd, note, 0)
        os.ftruncate(held.fd, len(note))
        # A job without an engine inherits these: its GPUs stay leased as long as a process of it lives.
        os.set_inheritable(held.fd, True)
    return taken


def release(taken: Sequence[locks.Held]) -> None:
    for held in taken:
        held.release()


def holder(uuid: str) -> Optional[Use]:
    """Who holds the lease of this GPU; None when nobody does."""
    path = lock_path(uuid)
    if locks.is_free(path):
        return None
    try:
        with open(path, "rb") as file:
            note = json.loads(file.read())
        return Use("run %s of %s" % (note["run"], note["owner"]), note["run"])
    except (OSError, ValueError, KeyError):
        return Use("another run")


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
            return Use("process %d (%s of %s, %d MiB)" % (pid, program, owner_of_pid.get(pid, "?"), used >> 20))
    if gpu.used > FOREIGN_MEMORY:
        return Use("%d MiB of memory in use by somebody gpurun cannot see" % (gpu.used >> 20))
    return None


def owners(pids: Sequence[int]) -> Dict[int, str]:
    """The users of these processes; those that are gone are left out."""
    import pwd

    found = {}
    for pid in pids:
        try:
            uid = os.stat("/proc/%d" % pid).st_uid
            found[pid] = pwd.getpwuid(uid).pw_name
        except (OSError, KeyError):
            continue
    return found


def choose(gpus: Sequence[Gpu], wanted: int, used: Mapping[str, Use]) -> Optional[List[Gpu]]:
    """The GPUs to take, lowest index first; None when too few are free."""
    free = [gpu for gpu in gpus if gpu.uuid not in used]
    return free[:wanted] if len(free) >= wanted else None


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

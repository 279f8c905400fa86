"""The parent of a job that has no engine: starts it, waits for it, writes how it ended.

Run as a program of its own (`python -I -S keeper.py`, the order as JSON on stdin), so that it imports nothing of ours. It
outlives the supervisor. Being the parent, it may signal by pid: the pid is not used again before the parent has reaped it.
Keeper and job inherit the run's job lock; it is free only when both are gone.

Only a parent learns how a process ended, so there are two keepers, one the parent of the other: the upper one inherits the
job when the lower one is killed, and goes on where it stopped. When the upper one is killed, the lower one goes on as it was.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Set, Tuple

if TYPE_CHECKING:
    from ..schema.programs import KeeperOrder, KeeperRecord, WitnessOrder

TICK = 0.2  # seconds between two looks at the control file
PATIENCE = 10.0  # seconds for killed processes to go; one that is stuck in the kernel is left behind
PR_SET_CHILD_SUBREAPER = 36
RECORD = 512  # bytes
DIED = b"the keeper died"  # the answer where the lower keeper was killed before it started the job
# In the environment of what names the run and is no process of the job: a user's hook, a shell beside the job.
HOOK_MARK = "GPURUN_HOOK"
SHELL_MARK = "GPURUN_SHELL"
RUN_MARK = "GPURUN_RUN_ID"
ROOT_MARK = "GPURUN_RUN_ROOT"  # of which root the run is; what an earlier gpurun started has none


def main() -> int:
    """Start a detached keeper; exit 0 once the job is started, else 1 and the reason on stdout."""
    order = json.loads(sys.stdin.buffer.read())
    told, tell = os.pipe()
    if os.fork() == 0:
        os.close(told)
        keep(order, tell)
        os._exit(0)
    os.close(tell)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    if said != b"started":
        sys.stdout.buffer.write(said or DIED)
    return 0 if said == b"started" else 1


def keep(order: KeeperOrder, tell: int) -> None:
    """The upper keeper's whole life."""
    os.chdir("/")
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    become_subreaper()
    # One open file for both keepers: what the lower one has obeyed, the upper one does not read again.
    control = os.open(order["control"], os.O_RDONLY | os.O_CREAT, 0o600)
    begun, begins = os.pipe()
    lower = os.fork()
    if lower == 0:
        code = 1
        try:
            os.close(begun)
            keep_below(order, control, tell, begins)
            code = 0
        finally:
            os._exit(code)
    os.close(begins)
    become_witness({"order": order, "lower": lower, "control": control, "tell": tell, "begun": begun})


# A program of another name, so that whoever ends processes by their name does not end both.
_WITNESS = "import sys; sys.path.insert(0, sys.argv[1]); import keeper; keeper.witness()"


def become_witness(told: WitnessOrder) -> None:
    """Go on as `witness` in a new program, which keeps its child, what it inherited, and that orphans come to it."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        memory = os.memfd_create("order", 0)
        os.write(memory, json.dumps(told).encode())
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, 0)
        for fd in (told["control"], told["tell"], told["begun"]):
            os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", "-c", _WITNESS, here])
    except OSError:  # an old kernel, or an update that took this Python away: as it is, then
        watch_over(told)


def witness() -> None:
    """The new program; what it is told is on its stdin."""
    with open(0, "rb", closefd=False) as file:
        told = json.loads(file.read())
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    watch_over(told)


def watch_over(told: WitnessOrder) -> None:
    """Wait for the lower keeper, and go on for it when it was killed."""
    order, lower, control, tell = told["order"], told["lower"], told["control"], told["tell"]
    with os.fdopen(told["begun"], "rb") as pipe:
        record = json.loads(pipe.read() or b"null")
    if record is None:  # the lower one has told why, or was killed: then nothing of the job stays
        if os.waitpid(lower, 0)[1] != 0:
            kill_all(None, order)
        return
    os.close(tell)
    failed = os.waitpid(lower, 0)[1] != 0
    if failed and os.path.exists(end_of(order)) and is_child(record["pid"]):  # else the end is written
        see_to_the_end(order, control, record)


def end_of(order: KeeperOrder) -> str:
    """Where the end is written; the file goes from there to its place."""
    return str(order["record"]) + ".end"


def keep_below(order: KeeperOrder, control: int, tell: int, begins: int) -> None:
    """The lower keeper's whole life."""
    become_subreaper()
    job = None
    try:
        # Before the job starts: it may fill the disk, and its end must be written all the same.
        begin = reserve(order["record"] + ".start")
        reserve(end_of(order))
        job = start(order)
        record: KeeperRecord = {
            "pid": job.pid,
            "ticks": start_ticks(job.pid),
            "boot_id": order["boot_id"],
            "keeper": os.getpid(),
            "started": time.time(),
        }
        write_record(begin, order["record"], record)
    except OSError as error:
        if job is not None:
            kill_all(job.pid, order)
        os.write(tell, str(error).encode("utf-8", "surrogateescape"))
        return
    os.write(begins, json.dumps(record).encode())
    os.close(begins)
    os.write(tell, b"started")
    os.close(tell)
    see_to_the_end(order, control, record)


def see_to_the_end(order: KeeperOrder, control: int, record: KeeperRecord) -> None:
    """Obey what is asked until the job ends, and write how it did. The caller is its parent."""
    job = record["pid"]
    woken = wake_on_child()
    while not has_exited(job):
        obey(os.read(control, 4096), job, order)
        reap_orphans(job)
        select.select([woken], [], [], TICK)
        drain(woken)
    # As in a container: when the main process has gone, nothing of the job stays.
    kill_all(job, order)
    # Written before it is reaped: until then, a keeper that is killed leaves the other one all there is to know.
    end: KeeperRecord = {**record, "exit_code": exit_code(job), "finished": time.time()}
    write_record(end_of(order), order["record"], end)
    os.waitpid(job, 0)


def is_child(pid: int) -> bool:
    """The job came to us: not where there is no ctypes, or where the lower keeper reaped it before it was killed."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return True
    except ChildProcessError:
        return False


def exit_code(pid: int) -> int:
    """As a shell has it, of a child that has ended and is not reaped."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def start(order: KeeperOrder) -> subprocess.Popen[bytes]:
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        return subprocess.Popen(
            order["argv"],
            cwd=order["cwd"],
            env=order["env"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=order["fds"],
        )
    finally:
        os.close(log)


def become_subreaper() -> None:
    """Orphans of the job become our children, so that they are found however they hide. Linux, where there is ctypes."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    reads, writes = os.pipe()
    os.set_blocking(reads, False)
    os.set_blocking(writes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    return reads


def drain(fd: int) -> None:
    try:
        os.read(fd, 4096)
    except BlockingIOError:
        pass


def has_exited(pid: int) -> bool:
    """Without reaping it: its pid and its process group stay ours until we do."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def reap_orphans(job: Optional[int]) -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == job:
            return
        os.waitpid(ended.si_pid, 0)


def obey(requests: bytes, job: int, order: KeeperOrder) -> None:
    for request in requests.split():
        if request == b"TERM":
            os.kill(job, signal.SIGTERM)
        elif request == b"KILL":
            kill_all(job, order)


def kill_all(job: Optional[int], order: KeeperOrder) -> None:
    """KILL every process of the job, until none is left: its group, our descendants, and all that carry its id."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if job is not None:
            try:
                os.killpg(job, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        left = (descendants(os.getpid()) | carriers(order["id"], order["root"])) - {job, os.getpid()}
        for pid in left:
            kill(pid)
        reap_orphans(job)
        if not left and (job is None or has_exited(job)):
            return
        time.sleep(0.02)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def descendants(pid: int) -> Set[int]:
    """All live processes below `pid`."""
    children: Dict[int, List[int]] = {}
    for process in processes():
        parent = parent_of(process)
        if parent is not None:
            children.setdefault(parent, []).append(process)
    found: Set[int] = set()
    to_see = [pid]
    while to_see:
        for child in children.get(to_see.pop(), []):
            if child not in found:
                found.add(child)
                to_see.append(child)
    return found


def parent_of(pid: int) -> Optional[int]:
    """None for a process that is gone, or dead and not yet reaped."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(parent)


def carriers(run_id: str, root: str, variable: str = RUN_MARK) -> Set[int]:
    """All processes whose environment names this run, shells beside the job included; hooks are not the job's."""
    of_run = environments(run_id, root, variable)
    return {pid for pid, environment in of_run if HOOK_MARK.encode() + b"=1" not in environment}


def environments(run_id: str, root: str, variable: str = RUN_MARK) -> "List[Tuple[int, List[bytes]]]":
    """(pid, environment) of all processes whose environment names this run, and no other root than the one marked `root`."""
    mark = ("%s=%s" % (variable, run_id)).encode()
    roots = (ROOT_MARK + "=").encode()
    found = []
    for pid in processes():
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue
        told = [one[len(roots) :] for one in environment if one.startswith(roots)]
        if mark in environment and (not root or told in ([], [b""], [root.encode()])):
            found.append((pid, environment))
    return found


def of_job(run_id: str, root: str, attempt: Optional[int]) -> Set[int]:
    """All processes that the job started as this attempt (None: any), by their environment. Neither hooks nor shells are of it."""
    mark = None if attempt is None else ("GPURUN_ATTEMPT=%d" % attempt).encode()
    beside = {(name + "=1").encode() for name in (HOOK_MARK, SHELL_MARK)}
    return {
        pid
        for pid, environment in environments(run_id, root)
        if not beside.intersection(environment) and mark in (None, *environment)
    }


def shells(run_id: str, root: str) -> List[int]:
    """The shells that people have open in this run's workspace, and what lives on of those that are gone."""
    mark = (SHELL_MARK + "=1").encode()
    found = {pid for pid, environment in environments(run_id, root) if mark in environment}
    return sorted(pid for pid in found if parent_of(pid) not in found)


def start_ticks(pid: int) -> Optional[int]:
    """When a process was started, in ticks since the boot; with the pid, it names one process of this boot. None: gone."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def reserve(path: str) -> str:
    """A file that has its room on the disk already."""
    with open(path, "wb") as file:
        file.write(b" " * RECORD)
        file.flush()
        os.fsync(file.fileno())
    return path


def write_record(reserved: str, path: str, record: KeeperRecord) -> None:
    """In the room that was reserved; seen whole or not at all, and lasting. Blanks behind the JSON are no harm."""
    with open(reserved, "r+b") as file:
        file.write(json.dumps(record).encode().ljust(RECORD))
        file.flush()
        os.fsync(file.fileno())
    os.rename(reserved, path)


if __name__ == "__main__":
    sys.exit(main())

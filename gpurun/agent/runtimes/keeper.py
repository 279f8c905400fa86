"""Start a job without an engine, wait for it as its parent, and write how it ended.

This is a program (`python -I -S keeper.py`, the order as JSON on stdin) that imports no other module of gpurun. It
outlives the supervisor. As the parent, it may signal by pid: the pid is not reused before the parent has reaped it.
Keeper and job inherit the run's job lock; the lock is free only when both are gone.

Only a parent learns how a process ended, so there are two keepers, one the parent of the other: the upper keeper
inherits the job when the lower one is killed, and continues its work. When the upper keeper is killed, the lower one is
not affected.
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

TICK = 0.2  # seconds between two reads of the control file
PATIENCE = 10.0  # seconds for killed processes to end; gpurun stops waiting for one that is stuck in the kernel
PR_SET_CHILD_SUBREAPER = 36
RECORD = 512  # bytes
DIED = b"the keeper died"  # the answer when the lower keeper was killed before it started the job
# In the environment of processes that name the run and are not part of the job: a user's hook, a shell beside the job.
HOOK_MARK = "GPURUN_HOOK"
SHELL_MARK = "GPURUN_SHELL"
RUN_MARK = "GPURUN_RUN_ID"
ROOT_MARK = "GPURUN_RUN_ROOT"  # the root of the run; a job of an earlier gpurun has none


def main() -> int:
    """Start a detached keeper; exit 0 once the job is started, else 1 and the reason on stdout."""
    order = json.loads(sys.stdin.buffer.read())
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        run_upper(order, writer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    if text != b"started":
        sys.stdout.buffer.write(text or DIED)
    return 0 if text == b"started" else 1


def run_upper(order: KeeperOrder, answer_pipe: int) -> None:
    """Run the upper keeper for its whole life."""
    os.chdir("/")
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    become_subreaper()
    # Both keepers share one open file: the upper one does not read again what the lower one has obeyed.
    control = os.open(order["control"], os.O_RDONLY | os.O_CREAT, 0o600)
    begun, begins = os.pipe()
    lower = os.fork()
    if lower == 0:
        code = 1
        try:
            os.close(begun)
            run_lower(order, control, answer_pipe, begins)
            code = 0
        finally:
            os._exit(code)
    os.close(begins)
    become_watcher({"order": order, "lower": lower, "control": control, "answer": answer_pipe, "begun": begun})


# The upper keeper runs under another program name, so that a kill by name does not end both.
_WATCHER = "import sys; sys.path.insert(0, sys.argv[1]); import keeper; keeper.main_of_watcher()"


def become_watcher(state: WitnessOrder) -> None:
    """Continue as `main_of_watcher` in a new program, which keeps its child, the inherited descriptors, and the role of
    subreaper.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        memory = os.memfd_create("order", 0)
        os.write(memory, json.dumps(state).encode())
        os.lseek(memory, 0, os.SEEK_SET)
        os.dup2(memory, 0)
        for fd in (state["control"], state["answer"], state["begun"]):
            os.set_inheritable(fd, True)
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-B", "-c", _WATCHER, here])
    except OSError:  # an old kernel, or an update that removed this Python: continue in this program
        watch_lower(state)


def main_of_watcher() -> None:
    """Run the upper keeper in the new program. Its state is on its stdin."""
    with open(0, "rb", closefd=False) as file:
        state = json.loads(file.read())
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    watch_lower(state)


def watch_lower(state: WitnessOrder) -> None:
    """Wait for the lower keeper, and continue its work when it was killed."""
    order, lower, control, answer_pipe = state["order"], state["lower"], state["control"], state["answer"]
    with os.fdopen(state["begun"], "rb") as pipe:
        record = json.loads(pipe.read() or b"null")
    if record is None:  # the lower keeper has reported why, or was killed: then no process of the job may stay
        if os.waitpid(lower, 0)[1] != 0:
            kill_all(None, order)
        return
    os.close(answer_pipe)
    failed = os.waitpid(lower, 0)[1] != 0
    if failed and os.path.exists(end_of(order)) and is_child(record["pid"]):  # else the end is already written
        wait_for_job(order, control, record)


def end_of(order: KeeperOrder) -> str:
    """Return where the end is written before the file is renamed to its place."""
    return str(order["record"]) + ".end"


def run_lower(order: KeeperOrder, control: int, answer_pipe: int, begins: int) -> None:
    """Run the lower keeper for its whole life."""
    become_subreaper()
    job = None
    try:
        # Before the job starts: the job may fill the disk, and its end must be written all the same.
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
        os.write(answer_pipe, str(error).encode("utf-8", "surrogateescape"))
        return
    os.write(begins, json.dumps(record).encode())
    os.close(begins)
    os.write(answer_pipe, b"started")
    os.close(answer_pipe)
    wait_for_job(order, control, record)


def wait_for_job(order: KeeperOrder, control: int, record: KeeperRecord) -> None:
    """Obey requests until the job ends, and write how it ended. The caller is the job's parent."""
    job = record["pid"]
    woken = wake_on_child()
    while not has_exited(job):
        obey(os.read(control, 4096), job, order)
        reap_orphans(job)
        select.select([woken], [], [], TICK)
        drain(woken)
    # As in a container: when the main process has ended, all other processes of the job are killed.
    kill_all(job, order)
    # Write the end before the job is reaped: until then, if this keeper is killed, the other one can still read the
    # exit code.
    end: KeeperRecord = {**record, "exit_code": exit_code(job), "finished": time.time()}
    write_record(end_of(order), order["record"], end)
    os.waitpid(job, 0)


def is_child(pid: int) -> bool:
    """Return whether the job became a child of this process.

    False without ctypes, or when the lower keeper reaped the job before it was killed.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return True
    except ChildProcessError:
        return False


def exit_code(pid: int) -> int:
    """Return the exit code, as a shell counts it, of a child that has ended and is not reaped."""
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
    """Adopt the job's orphaned processes, so that this process can always find them.

    Only on Linux with ctypes.
    """
    try:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass


def wake_on_child() -> int:
    """Return a descriptor that becomes readable when a child ends."""
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
    """Return whether the child has exited, without reaping it: its pid and process group are not reused before that."""
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
    """Kill every process of the job, until none is left: its group, all descendants, and all that have its id in their
    environment.
    """
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
    """Return all live processes below `pid`."""
    children: Dict[int, List[int]] = {}
    for process in processes():
        parent = parent_of(process)
        if parent is not None:
            children.setdefault(parent, []).append(process)
    pids: Set[int] = set()
    pending = [pid]
    while pending:
        for child in children.get(pending.pop(), []):
            if child not in pids:
                pids.add(child)
                pending.append(child)
    return pids


def parent_of(pid: int) -> Optional[int]:
    """Return the parent's pid; None for a process that is gone, or dead and not yet reaped."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in (b"Z", b"X") else int(parent)


def carriers(run_id: str, root: str, variable: str = RUN_MARK) -> Set[int]:
    """Return all processes whose environment names this run, including shells beside the job, but no hooks."""
    of_run = environments(run_id, root, variable)
    return {pid for pid, environment in of_run if HOOK_MARK.encode() + b"=1" not in environment}


def environments(run_id: str, root: str, variable: str = RUN_MARK) -> "List[Tuple[int, List[bytes]]]":
    """Return (pid, environment) of all processes whose environment names this run, and no other root than the one
    marked `root`.
    """
    mark = ("%s=%s" % (variable, run_id)).encode()
    roots = (ROOT_MARK + "=").encode()
    matches = []
    for pid in processes():
        try:
            with open("/proc/%d/environ" % pid, "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue
        marks = [entry[len(roots) :] for entry in environment if entry.startswith(roots)]
        if mark in environment and (not root or marks in ([], [b""], [root.encode()])):
            matches.append((pid, environment))
    return matches


def of_job(run_id: str, root: str, attempt: Optional[int]) -> Set[int]:
    """Return all processes that the job started in this attempt (None: in any), from their environment.

    Hooks and shells do not count.
    """
    mark = None if attempt is None else ("GPURUN_ATTEMPT=%d" % attempt).encode()
    beside = {(name + "=1").encode() for name in (HOOK_MARK, SHELL_MARK)}
    return {
        pid
        for pid, environment in environments(run_id, root)
        if not beside.intersection(environment) and mark in (None, *environment)
    }


def shells(run_id: str, root: str) -> List[int]:
    """Return the shells that people have open in this run's workspace, and what remains of those that are gone."""
    mark = (SHELL_MARK + "=1").encode()
    pids = {pid for pid, environment in environments(run_id, root) if mark in environment}
    return sorted(pid for pid in pids if parent_of(pid) not in pids)


def start_ticks(pid: int) -> Optional[int]:
    """Return when a process was started, in ticks since the boot, or None when it is gone.

    With the pid, this identifies one process of this boot.
    """
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def processes() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def reserve(path: str) -> str:
    """Make a file that already has its space on the disk."""
    with open(path, "wb") as file:
        file.write(b" " * RECORD)
        file.flush()
        os.fsync(file.fileno())
    return path


def write_record(reserved: str, path: str, record: KeeperRecord) -> None:
    """Write into the reserved space and rename the file: readers see the whole record or nothing.

    Blanks after the JSON are harmless.
    """
    with open(reserved, "r+b") as file:
        file.write(json.dumps(record).encode().ljust(RECORD))
        file.flush()
        os.fsync(file.fileno())
    os.rename(reserved, path)


if __name__ == "__main__":
    sys.exit(main())

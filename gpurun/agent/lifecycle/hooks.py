"""Run a user's own commands at a checkpoint and at a run's end, on the host, in the run's workspace.

A process of its own runs each hook and outlives its starter: a hook delays no end and no next attempt. A hook that
fails, or takes too long, is recorded as a note and changes no run. Its output goes to the run's hooks.log.

`on_end` is owed from before the end is recorded (on_end.owed) until it has run to its end: after a kill, the next verb
that reconciles the run starts it. A checkpoint is identified by its place in the ledger, not by its time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Dict, Optional

from .. import ledger, programs
from ..files import read_json, remove, write_json
from ..host import locks
from ..paths import RunPaths
from ..runtimes import keeper
from ..state import checkpoints, journal

if TYPE_CHECKING:
    from ..schema.checkpoint import FoundEntry
    from ..schema.job import Job
    from ..schema.programs import HookOrder

LIMIT = 300.0  # seconds; `GPURUN_HOOK_SECONDS` names another, for tests
ON_CHECKPOINT = "on_checkpoint"
ON_END = "on_end"

Facts = Dict[str, str]

_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from gpurun.agent.lifecycle.hooks import main; main()"
# The user's variables come on stdin, so that none is in a file once the run has ended.
_SHELL = '. /dev/stdin; exec </dev/null; exec /bin/sh -c "$0"'


class AtCheckpoints:
    """Detect new checkpoints while the job runs. hooks.json records the last one, for the next supervisor."""

    def __init__(self, run: RunPaths, job: Job):
        self.run, self.job = run, job
        self.size_read = 0
        self.places = ledger.Places()

    def step(self) -> None:
        if not self.job.get("on_checkpoint"):
            return
        size = _size(self.run.ledger)
        if size == self.size_read:
            return
        self.size_read = size
        self.places.read_on(self.run.ledger)
        places = self.places.of
        newest = max(checkpoints.ledger(self.run), key=lambda entry: places.get(entry["path"], 0), default=None)
        line = places.get(newest["path"], 0) if newest is not None else 0
        if newest is not None and line > _last_line(self.run):
            with suppress(OSError):  # a full disk must not end the supervision of the job
                start(self.run, self.job, ON_CHECKPOINT, newest, line)
                write_json(self.run.hooks, {"line": line})


def at_end(run: RunPaths, job: Job) -> None:
    """Start `on_end` if it is owed and no process runs it: after the run's end, and before the user's variables are
    removed.
    """
    if not job.get("on_end") or not os.path.exists(run.owed) or not locks.is_free(locks.end_hook_lock(run.id)):
        return
    if job.get("env") and not _variables(run):
        _note_once(run, "on_end runs without the run's variables: they were removed before an earlier on_end ended")
    start(run, job, ON_END, checkpoints.last(checkpoints.ledger(run)))


def start(run: RunPaths, job: Job, name: str, checkpoint: Optional[FoundEntry], line: int = 0) -> None:
    """Start a process that runs the hook, and return."""
    command = job["on_end"] if name == ON_END else job["on_checkpoint"]
    order: HookOrder = {
        "run": run.root,
        "name": name,
        "command": str(command),
        "facts": facts(run, job, checkpoint),
        "variables": _variables(run),
        "line": line,
    }
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, _CODE]
    answer = programs.run(argv, stdin=json.dumps(order).encode(), timeout=30.0, detached=True)
    if not answer.ok:
        _note_once(run, "%s was not run: %s" % (name, answer.error_text or "no answer"))


def running(run: RunPaths) -> bool:
    """Return whether a hook of this run works or waits for its turn: until it is done, the run's files are not final."""
    path = locks.hooks_running(run.id)
    if not os.path.exists(path):  # the file may have been removed while a hook runs: a shared lock has no second proof
        return os.path.exists(run.hooks_log) and bool(locks.holders(path))
    for _ in range(3):  # another process may check at the same moment
        held = locks.acquire(path)
        if held is not None:
            held.release()
            return False
        time.sleep(0.05)
    return True


def facts(run: RunPaths, job: Job, checkpoint: Optional[FoundEntry]) -> Facts:
    """Return the variables in a hook's environment; an unknown value is an empty text. Paths are the host's."""
    state = journal.fold(run)
    best = checkpoints.best(checkpoints.ledger(run))
    values = {
        "RUN_ID": run.id,
        "RUN_NAME": job["name"],
        "PROJECT": job["project"]["name"],
        "ATTEMPT": state.attempt,
        "STATE": state.state,
        "REASON": state.reason,
        "EXIT_CODE": state.exit_code,
        "MESSAGE": state.message,
        "CHECKPOINT": checkpoint.get("file") if checkpoint else None,
        "BEST_CHECKPOINT": best["file"] if best else None,
        "EPOCH": checkpoint.get("epoch") if checkpoint else None,
        "STEP": checkpoint.get("step") if checkpoint else None,
        "MONITOR": checkpoint.get("monitor") if checkpoint else None,
        "METRIC": checkpoint.get("value") if checkpoint else None,
    }
    return {"GPURUN_" + name: "" if value is None else str(value) for name, value in values.items()}


def main() -> None:
    """Run one hook, whose order is on stdin. The process detaches once it has read the order."""
    order: HookOrder = json.loads(sys.stdin.buffer.read())
    run = RunPaths(order["run"])
    locks.work_for(run.host)
    # Before the starter continues: from here on a hook counts as running.
    running = locks.acquire(locks.hooks_running(run.id), wait=True, share=True)
    assert running is not None
    if order["name"] == ON_END:  # held from before the starter continues: `on_end` runs only once at a time
        alone = locks.acquire(locks.end_hook_lock(run.id))
        if alone is None or not os.path.exists(run.owed):
            return
    if os.fork():
        os._exit(0)
    log = os.open(run.hooks_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    held = locks.acquire(locks.hook_lock(run.id), wait=True)  # hooks run one after the other
    assert held is not None
    if order["name"] == ON_END or order["line"] >= _last_line(
        run
    ):  # else a newer checkpoint came, and has a hook of its own
        owed = read_json(run.owed)
        failure = _run(run, order, log)
        if (
            order["name"] == ON_END and read_json(run.owed) == owed
        ):  # else a later attempt has ended, and owes a hook of its own
            remove(run.owed)
        if failure is not None:
            journal.record(run, "note", message="%s %s" % (order["name"], failure))


def _run(run: RunPaths, order: HookOrder, log: int) -> Optional[str]:
    """Run the command to its end or its time limit. Return what went wrong."""
    where = run.workspace if os.path.isdir(run.workspace) else run.root
    from ..runtimes.bare import inherited

    os.write(log, ("--- %s %s\n" % (order["name"], order["command"])).encode())
    began = os.fstat(log).st_size
    child = subprocess.Popen(
        ["/bin/sh", "-c", _SHELL, order["command"]],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        cwd=where,
        # By the mark, the keeper of a job without an engine sees that this process is not part of the job.
        env={**inherited(os.environ), **order["facts"], keeper.HOOK_MARK: "1"},
        start_new_session=True,
    )
    limit = float(os.environ.get("GPURUN_HOOK_SECONDS", LIMIT))
    try:
        child.communicate(order["variables"].encode("utf-8", "surrogateescape"), timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return "was killed: it took longer than %g s" % limit
    if child.returncode == 0:
        return None
    with open(run.hooks_log, "rb") as file:
        file.seek(began)
        output = programs.last_lines(file.read(), 1)
    return "failed with exit code %d%s" % (child.returncode, ": " + output[0] if output else "")


def _variables(run: RunPaths) -> str:
    for path in (run.env, run.old_env):
        try:
            with open(path, "rb") as file:
                return file.read().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            continue
    return ""


def _note_once(run: RunPaths, message: str) -> None:
    """Record a message once, although it recurs at each try."""
    if message not in journal.fold(run).notes:
        journal.record(run, "note", message=message)


def _last_line(run: RunPaths) -> int:
    return int((read_json(run.hooks) or {}).get("line", 0))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0

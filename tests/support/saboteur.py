"""Kills a supervisor at a chosen step, once: the agent's code on the test's host is changed to end itself there."""

from __future__ import annotations

from pathlib import Path

# Where a supervisor may die: before and after each of its steps. (module, attribute)
STEPS = (
    ("gpurun.agent.lifecycle.preparation", "make_workspace"),
    ("gpurun.agent.lifecycle.preparation", "prepare"),
    ("gpurun.agent.queue.allocation", "wait_for_gpus"),
    ("RUNTIME", "create_and_start"),
    ("gpurun.agent.lifecycle.supervisor", "_note_running"),
    ("gpurun.agent.lifecycle.finish", "end_by_presence"),
    ("gpurun.agent.state.journal", "record_end"),
    ("gpurun.agent.lifecycle.finish", "disk_use"),
)
POINTS = tuple(f"{when} {attribute}" for _, attribute in STEPS for when in ("before", "after"))

_TRAP = """

def _arm(flag, place, attribute, when):
    import functools, importlib, os, signal
    module, _, kind = place.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, kind) if kind else owner
    step = getattr(owner, attribute)

    def die():
        try:
            os.unlink(flag)
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(step)
    def trapped(*arguments, **options):
        if when == "before":
            die()
        result = step(*arguments, **options)
        die()
        return result

    setattr(owner, attribute, trapped)


_arm({flag!r}, {place!r}, {attribute!r}, {when!r})
"""

RUNTIMES = {"bare": "gpurun.agent.runtimes.bare:Bare", "docker": "gpurun.agent.runtimes.docker:Docker"}


def arm(agent: Path, point: str, *, runtime: str, flag: Path, flag_on_host: str) -> None:
    """Make the next supervisor of the unpacked `agent` die at `point`. `flag` is the trap's trigger, gone once it fired."""
    when, _, attribute = point.partition(" ")
    place = next(module for module, name in STEPS if name == attribute).replace("RUNTIME", RUNTIMES[runtime])
    flag.write_text("")
    flag.chmod(0o666)
    source = agent / "gpurun/agent/lifecycle/supervisor.py"
    source.write_text(source.read_text() + _TRAP.format(flag=flag_on_host, place=place, attribute=attribute, when=when))

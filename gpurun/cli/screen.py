"""A run that is followed on a terminal: its log on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output
from gpurun.cli.bars import Unwrapped
from gpurun.cli.building import Building
from gpurun.cli.progress import Say
from gpurun.cli.terminal import can_redraw

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord


class Screen:
    """What `gpurun.commands.follow` tells us, shown. `say` changes the status line (see output.activity)."""

    def __init__(self, host: str, say: Say, *, log_to_stderr: bool = False) -> None:
        self._host = host
        self._say = say
        self._to_stderr = log_to_stderr
        self._unwrapped = Unwrapped()
        self._in_line = False  # the log's last byte was no newline: a line of ours would be glued to it
        self._state = ""
        self._lost = False
        self._waited = False
        self._told = ""
        self._attempt: int | None = None
        self._building: Building | None = None
        self.printed = False  # anything of the log or of preparing

    def log(self, data: bytes) -> None:
        self._say("")
        if self._to_stderr:
            self._say_bytes(data)
        else:
            output.out_bytes(self._unwrapped(data) if can_redraw(sys.stdout) else data)
        self._note_end(data)

    def prepare(self, data: bytes) -> None:
        """One line of progress; all of the text is for `gpurun logs --build`."""
        self.printed = True
        self._building = self._building or Building(self._say)
        self._building.feed(data)

    def _say_bytes(self, data: bytes) -> None:
        output.say_bytes(self._unwrapped(data) if can_redraw(sys.stderr) else data)

    def _note_end(self, data: bytes) -> None:
        self.printed = True
        self._in_line = not data.endswith(b"\n")

    def state(self, record: RunRecord) -> None:
        """Tell of what must be waited for; a run that just runs needs no words."""
        name, run = record["state"], record["id"]
        self._note_attempt(record)
        if name == words.QUEUED and describe.waiting(record):
            self._waited = True
            self._tell(f"{run} waits {describe.waiting(record)}")
        elif name == words.PREPARING and not (self._building and self._building.doing):
            doing = describe.doing(record)
            self._tell(f"preparing {run}" + (f": {doing}" if doing else ""))
        elif name == words.RUNNING:
            self._say("")
            if self._waited:
                self._waited = False
                on = f" on {describe.gpu_names(record)}" if record.get("gpus") else ""
                output.note(f"{run} runs now{on}")
        if record.get("stop_requested") and self._state == words.RUNNING and not words.is_over(record):
            self.fresh_line()
            output.note(f"{run} is asked to stop")
            name = "stopping"
        if words.is_over(record):
            self._tell_build(record)
        self._state = name

    def _tell_build(self, record: RunRecord) -> None:
        """The end of what the host printed while it prepared a run that then failed to start."""
        if self._building is None or record.get("started") or record["state"] != words.FAILED:
            return
        self._say("")
        self._building.tail.show()
        self._building = None
        output.next_step(f"gpurun logs --build {record['id']}", "all of it")

    def _note_attempt(self, record: RunRecord) -> None:
        """A new attempt that began while we looked on."""
        before, self._attempt = self._attempt, record.get("attempt", 1)
        if before is not None and self._attempt != before:
            self.fresh_line()
            self._say("")
            self._building = None
            ended = "".join(f"{describe.attempt_ended(told)}; " for told in record["attempts"][-1:])
            output.note(f"{ended}attempt {self._attempt} begins {describe.begins_from(record)}")

    def _tell(self, text: str) -> None:
        """A status line on a terminal; elsewhere a line, once."""
        if can_redraw(sys.stderr):
            self._say(text)
        elif text != self._told:
            self._told = text
            output.note(text)

    def lost(self, what: str) -> None:
        if not self._lost:
            self._lost = True
            self.fresh_line()
            output.warn(f"lost contact with {self._host} ({what}); the run goes on, and so will this log")
        self._say(f"trying to reach {self._host} again")

    def back(self) -> None:
        self._lost = False
        self._say("")

    def asks(self) -> None:
        self._say("")
        output.say(f"{self._host} wants you to log in again:")

    def fresh_line(self) -> None:
        """Leave a half line of the log, where both go to one terminal."""
        if self._in_line and (self._to_stderr or sys.stdout.isatty()) and sys.stderr.isatty():
            print(file=sys.stderr)
        self._in_line = False


def say_end(record: RunRecord, *, fetches: bool = False) -> None:
    """How it ended, why, and what may be done next."""
    run = record["id"]
    colour = describe.COLOURS.get(record["state"], output.DIM)
    output.say(f"{run} {output.styled(describe.outcome(record), colour)}")
    if why := describe.reason(record):
        output.say(f"  {why}")
    steps = [(str(record["next"]), "")] if record.get("next") else []
    if record["state"] != words.SUCCEEDED:
        steps.append((f"gpurun status {run}", "why, and what may help"))
    if record.get("started") and not fetches:
        steps.append((f"gpurun fetch {run}", "bring back what it wrote"))
    steps += describe.go_on(record)
    output.next_steps(*steps)


def say_detached(run: str, host: str) -> None:
    """After Ctrl-C: the job goes on; how to come back, and how to stop it."""
    output.say(f"detached: {run} goes on by itself on {host}")
    output.next_steps((f"gpurun logs -f {run}", "come back to its log"), (f"gpurun stop {run}", "stop it"))

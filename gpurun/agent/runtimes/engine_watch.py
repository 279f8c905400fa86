"""Record what this process saw of the engine while it waited for a job, and decide whether the engine's exit code is valid.

An engine that remembers the end of a job reports it in its events. An engine that was restarted since does not, or it reports
exit code 255 for an end that it missed. Observed with dockerd 20.10:

- Killed after it saw the end and before it stored the end: it reports 255, or 0, dated when it is back.
- Killed before the end: when it is back, it gets the job's own exit code from containerd.
- Shut down: it stops answering, ends its containers, and reports the end to waiting clients.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Callable, Optional

from . import Presence

MADE_UP = 255  # the exit code of a container whose end an engine missed


@dataclass
class EngineWatch:
    """Times are unix seconds."""

    went: Optional[float] = None  # when the engine stopped answering; None once it answers again and the job runs
    was_away: bool = False  # at any time
    job_lived: bool = True  # when it went, as /proc shows
    reported_the_end: bool = False
    reported_code: Optional[int] = None  # the exit code, reported by an engine that had not been restarted
    went_after_report: bool = False

    def note_that_the_job_runs(self) -> None:
        """Record that the engine answers and that the job runs."""
        self.went, self.reported_the_end = None, False

    def note_that_it_went(self, job_lives: Callable[[], bool]) -> None:
        """Record that the engine does not answer."""
        self.was_away = True
        if self.went is None:
            self.went = time.time()
            self.job_lived = job_lives()

    def note_report(self, output: bytes, *, saw_the_job_run: bool) -> None:
        """Record the output of a `docker wait` that succeeded."""
        self.reported_the_end = True
        if self.reported_code is None and self.went is None and saw_the_job_run and output.strip().isdigit():
            code = int(output)
            self.reported_code = None if code == MADE_UP else code

    def note_silence(self) -> None:
        """Record that the engine did not answer when it was asked for the job's state."""
        self.went_after_report = self.went_after_report or self.reported_the_end

    def is_unbroken(self, saw_the_job_run: bool) -> bool:
        """Return whether the engine always answered between a time when the job ran and its end."""
        return saw_the_job_run and not self.was_away

    def judge(self, presence: Presence, *, started_again: bool, saw_the_job_run: bool) -> Presence:
        """Return the presence of a job that has exited, when the engine does not remember its end."""
        if self.reported_code is not None:
            presence = replace(presence, exit_code=self.reported_code)
        elif started_again:
            return replace(presence, exit_code=None, restarted=True)
        killed = self.went is not None and presence.finished_at is not None and presence.finished_at > self.went
        if presence.exit_code == 0 and self.went_after_report and not killed:
            return replace(presence, signalled=True)  # by an engine that was shut down, which ends its containers
        if self.reported_code is None and self._is_made_up(presence, saw_the_job_run):
            return replace(presence, exit_code=None, made_up=True)
        # An engine that was shut down in the meantime, or had many events, has forgotten whether it sent a signal.
        return replace(presence, unseen=presence.exit_code == 0 and not saw_the_job_run)

    def _is_made_up(self, presence: Presence, saw_the_job_run: bool) -> bool:
        """Return whether the engine invented the exit code. 255 is valid only if the end is older than the absence."""
        before = self.went is not None and presence.finished_at is not None and presence.finished_at <= self.went
        if presence.exit_code == MADE_UP:
            return not before and not self.is_unbroken(saw_the_job_run)
        return self.went is not None and not before and not self.job_lived

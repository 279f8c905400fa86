"""Define the errors of the host. A message says what happened and where, and gives the next step.

    AgentError              a request is refused; travels to the laptop, with a code of error_codes
      EngineError           host/engine: the engine refused, or does not answer; `kind` says which
    RunFailed               a run ends as failed, for a reason of vocabulary.REASONS
      ImageGone             another try may succeed
      JobLost               the run ends as lost: its job had started

These are not errors of a request: supervisor.Stopped (a stop was requested before the job ran) and shared_folder.Odd (a
file in the queue's folder is not a ticket or a lease).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import vocabulary as words

if TYPE_CHECKING:
    from .schema.host import ErrorDocument


class AgentError(Exception):
    """Refuse a request. The error travels to the laptop as JSON and is shown there unchanged.

    `code` is one of error_codes.
    """

    def __init__(
        self, code: str, what: str, next_step: str = "", *, where: str = "", exit_code: int = words.EXIT_FAILED
    ):
        super().__init__(what)
        self.code = code
        self.what = what
        self.next_step = next_step
        self.where = where
        self.exit_code = exit_code

    def as_json(self) -> ErrorDocument:
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "next": self.next_step,
            "exit": self.exit_code,
        }


class RunFailed(Exception):
    """End a run as `failed`, with this reason (a key of `vocabulary.REASONS`)."""

    def __init__(self, reason: str, what: str, next_step: str = ""):
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.next_step = next_step


class ImageGone(RunFailed):
    """Report that the prepared image is gone: another program or a person pruned it."""


class JobLost(RunFailed):
    """Report that the job started, and that nobody knows how it ended: the run becomes `lost`, with this reason."""

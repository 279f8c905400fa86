"""What can go wrong on the host: what happened, where, and the next step to take.

    AgentError              a question is refused; travels to the laptop, with a code of error_codes
      EngineError           host/engine: the engine refused, or is away; `kind` says which
    RunFailed               a run ends as failed, for a reason of vocabulary.REASONS
      ImageGone             another try may mend it

Not errors of a question: supervisor.Stopped (a stop was asked for before the job ran) and shared_folder.Odd (what lies in
the queue's folder is not a ticket or a lease).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import vocabulary as words

if TYPE_CHECKING:
    from .schema.host import ErrorDocument


class AgentError(Exception):
    """A refusal. It travels to the laptop as JSON and is shown there as it stands. `code` is one of error_codes."""

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
    """A run cannot go on: it ends as `failed` with this reason (a key of `vocabulary.REASONS`)."""

    def __init__(self, reason: str, what: str, next_step: str = ""):
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.next_step = next_step


class ImageGone(RunFailed):
    """The image that was made ready is not there any more: somebody has pruned it."""

"""What can go wrong on the host: what happened, where, and the next step to take."""

from typing import Any, Dict

from . import vocabulary as words


class AgentError(Exception):
    """An answer that says no. It travels to the laptop as JSON and is shown there as it stands."""

    def __init__(
        self, code: str, what: str, next_step: str = "", *, where: str = "", exit_code: int = words.EXIT_FAILED
    ):
        super().__init__(what)
        self.code = code
        self.what = what
        self.next_step = next_step
        self.where = where
        self.exit_code = exit_code

    def as_json(self) -> Dict[str, Any]:
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

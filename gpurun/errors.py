"""What a user is told when something fails: what happened, where, and the next step. One place catches these: cli/app.py."""

from __future__ import annotations

from gpurun.agent import vocabulary as words

NO_NAME = "no_name"  # the code of an error: no machine is known by this name


class GpurunError(Exception):
    """A failure that gpurun understands; shown without a traceback.

    `what` happened, `where` (a host, a file and line, may be empty), the `next_step` to take (may be several lines).
    """

    exit_code = words.EXIT_FAILED

    def __init__(
        self, what: str, next_step: str = "", *, where: str = "", exit_code: int | None = None, code: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step
        self.code = code
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(GpurunError):
    """Wrong use or configuration: the user mends it on the laptop."""

    exit_code = words.EXIT_USAGE


class HostUnreachable(GpurunError):
    """The host did not answer or did not let us in. Nothing is known about its runs."""

    exit_code = words.EXIT_UNREACHABLE


class ContactLost(HostUnreachable):
    """The connection broke off in the middle; asking again is safe for what is idempotent."""


class HostError(GpurunError):
    """The agent answered no; `code` is its word for it."""

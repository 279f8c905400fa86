"""What a user is told when something fails: what happened, where, and the next step. One place catches these: cli/app.py."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from gpurun.agent import vocabulary as words

MALFORMED = "malformed"  # the code of an error: an answer of a host is not what it should be
NO_NAME = "no_name"  # the code of an error: no machine is known by this name
# Of an OSError that no other file of the same disk would be spared.
OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class GpurunError(Exception):
    """A failure that gpurun understands; shown without a traceback.

    `what` happened, `where` (a host, a file and line, may be empty), the `next_step` to take (may be several lines). A file of
    this laptop is a Path: the name of a relative one would be taken for a host's.
    """

    exit_code = words.EXIT_FAILED

    def __init__(
        self, what: str, next_step: str = "", *, where: str | Path = "", exit_code: int | None = None, code: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where.absolute()) if isinstance(where, Path) else where
        self.next_step = next_step
        self.code = code
        if exit_code is not None:
            self.exit_code = exit_code

    @property
    def host(self) -> str:
        """The host's name, when it is one that `where` begins with."""
        first = self.where.partition("\n")[0]
        return "" if set(first) & set(" /") else first

    @property
    def place(self) -> str:
        """`where` as it is shown: a name alone tells nobody that it is a host's, and one that was said is not said again."""
        if not self.host:
            return self.where
        said = re.search(rf"(?<![\w.-]){re.escape(self.host)}(?![\w.-])", self.what)
        rest = self.where[len(self.host) + 1 :]
        return rest if said else f"host: {self.host}" + (f", {rest}" if rest else "")


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

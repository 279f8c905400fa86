"""What a user is told when something fails: what happened, where, and the next step. One place catches these: cli/app.py.

    GpurunError             exit code 125, or the one that it is made with
      UsageError            2: wrong use or configuration
      HostUnreachable       255: the host did not answer or did not let us in
        ContactLost         the connection broke off in the middle
      HostError             the host refused, or its answer is not one
      RsyncError            sync/rsync_errors: a transfer failed for good
      NoGpu                 hosts/verify, 3: the host has no GPU
      Declined              cli/output: the user said no

What is handled in a way of its own has a `code`: one of agent/error_codes where a host refused, else one of those below. There is
no class for each: most codes come from a host, as data.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from gpurun.agent import vocabulary as words

# About an answer.
MALFORMED = "malformed"  # it is not what it should be
NO_ANSWER = "no_answer"  # the agent's command ended without one
NO_PYTHON = "no_python"  # the host has no Python of that name

# About the way to a host.
SLOW = "slow"  # the host is there and takes too long
UNSTEADY = "unsteady"  # the host lets us in when it is tried again
SILENT = "silent"  # it accepts connections and sends nothing
NO_NAME = "no_name"  # no machine is known by this name
NO_ROUTE = "no_route"
TIMEOUT = "timeout"
REFUSED = "refused"  # nothing listens there
NO_SSH = "no_ssh"  # what listens there is no SSH server
HANDSHAKE = "handshake"
KEY_UNKNOWN = "key_unknown"
KEY_CHANGED = "key_changed"
KEY_REVOKED = "key_revoked"
NOT_LET_IN = "not_let_in"
JUMP = "jump"  # the jump host fails, for a reason without a code
BEHIND_JUMP = "behind_jump"  # the jump host does not reach the host

# About this laptop.
UNKNOWN_RUN = "unknown_run"  # no run here has this id or name
NOT_AS_TOLD = "not_as_told"  # a checkpoint differs from its entry in the ledger

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

"""The person at the terminal, as `gpurun host` talks to them."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from gpurun.cli import output
from gpurun.cli.terminal import harmless
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.hosts.findings import Finding

INDENT = 24  # columns before what was found
MARKS = {"ok": ("ok  ", output.GREEN), "warn": ("warn", output.YELLOW), "fail": ("FAIL", output.RED)}


def show(finding: Finding) -> None:
    """A line of the doctor's, and how to mend it below."""
    text, colour = MARKS[finding.status]
    found = output.folded(finding.found, INDENT, sys.stderr)
    output.say_as_it_is(f"{output.styled(text, colour)}  {finding.topic:<17} {found}")
    if finding.mend:
        mend = output.folded(finding.mend, INDENT, sys.stderr)
        output.say_as_it_is(" " * INDENT + output.styled(mend, output.CYAN))


class Terminal:
    """Asks the person at the terminal."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes

    def can_ask(self) -> bool:
        return output.interactive()

    def say(self, text: str) -> None:
        output.say(text)

    def confirm(self, question: str) -> bool:
        try:
            output.confirm(question, yes=self._yes, otherwise="")
        except (output.Declined, UsageError):
            return False
        return True

    def confirm_key(self, question: str) -> bool:
        """`-y` is no yes to a key that nobody has looked at."""
        try:
            output.confirm(question, yes=False, otherwise="")
        except (output.Declined, UsageError):
            return False
        return True

    def password(self, prompt: str) -> str:
        return getpass.getpass(harmless(prompt))  # a server may have worded it

    def finding(self, finding: Finding) -> None:
        show(finding)


class Silent(Terminal):
    """For `--json`: nothing is said; what must be asked is asked all the same."""

    def say(self, text: str) -> None:
        if self.can_ask():
            output.say(text)

    def finding(self, finding: Finding) -> None:
        return

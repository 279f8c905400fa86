"""The person at the terminal, as `gpurun host` talks to them."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from gpurun.cli import output
from gpurun.cli.terminal import harmless
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.hosts.findings import Finding

INDENT = 24  # columns before what was found
MARKS = {"ok": ("ok  ", output.GREEN), "warn": ("warn", output.YELLOW), "fail": ("FAIL", output.RED)}


def show(finding: Finding) -> None:
    """Say a finding while something else goes on: a line, and how to mend it below."""
    output.say_as_it_is(_lines(finding, sys.stderr))


def report(finding: Finding) -> None:
    """Print a finding as a part of the result."""
    output.out(_lines(finding, sys.stdout))


def report_sum(findings: Sequence[Finding]) -> None:
    """Print the last line of a report: how many findings are ok, and how many are not."""
    of = {status: sum(finding.status == status for finding in findings) for status in MARKS}
    parts = [f"{of['ok']} ok"]
    parts += [output.plural(of["warn"], "warning")] if of["warn"] else []
    parts += [f"{of['fail']} to fix"] if of["fail"] else []
    output.out(", ".join(parts))


def _lines(finding: Finding, stream: TextIO) -> str:
    text, colour = MARKS[finding.status]
    found = output.folded(finding.found, INDENT, stream)
    line = f"{output.styled(text, colour, stream=stream)}  {finding.topic:<17} {found}"
    if not finding.mend:
        return line
    mend = output.folded(finding.mend, INDENT, stream)
    return f"{line}\n{' ' * INDENT}{output.styled(mend, output.CYAN, stream=stream)}"


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

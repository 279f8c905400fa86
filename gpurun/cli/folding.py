"""Long lines on a terminal: folded between words, never inside a command or a path, which somebody may want to copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TextIO

from gpurun.cli.terminal import visible, width, without_styles

NARROWEST = 20  # columns that a text is folded into, however narrow the terminal
# What may have a space in it and is one thing all the same: `gpurun ps`, 'my file', "ssh -p 34567 root@box".
_WORD = re.compile(r"""[^\s`'"]*(?:`[^`]+`|(?<!\w)'[^']+'(?!\w)|"[^"]+")\S*|\S+""")
_SENTENCE = re.compile(r"[,;:.)](?:\s|$)|\s\(")
_COMMANDS = ("gpurun", "sudo", "ssh")


def folded(text: str, indent: int, stream: TextIO) -> str:
    """`text`, whose lines begin in column `indent`. On a terminal those that are too long are folded; elsewhere one line
    stays one, for grep.

    A command or a path that is longer than the terminal is wide is left to the terminal, which can join it again.
    """
    if not stream.isatty():
        return text.replace("\n", f"\n{' ' * indent}")
    room = max(width() - indent, NARROWEST)
    return f"\n{' ' * indent}".join(part for line in text.split("\n") for part in fold(line, room))


def fold(line: str, room: int) -> Iterator[str]:
    """The lines of at most `room` columns that `line` becomes; they are indented as it is."""
    lead = line[: len(line) - len(line.lstrip(" "))]
    if visible(line) <= room:
        yield line
        return
    now = ""
    for piece in pieces(line):
        if not now:
            now = lead + piece
        elif visible(now) + 1 + visible(piece) <= room:
            now += f" {piece}"
        else:
            yield now
            now = lead + piece
    yield now


def pieces(line: str) -> list[str]:
    """The words of `line`, those of a command in one piece."""
    if line.lstrip().partition(" ")[0] in _COMMANDS and not _SENTENCE.search(line):
        return [line.strip()]
    found: list[str] = []
    command: list[str] = []  # the words of the one that the last piece is
    for word in _WORD.findall(line):
        if command and _goes_on(command, word):
            command.append(word)
            found[-1] += f" {word}"
        else:
            command = [word] if without_styles(word).lstrip("(") in _COMMANDS else []
            found.append(word)
    return found


def _goes_on(command: list[str], word: str) -> bool:
    """Return whether `word` belongs to the command, or to the sentence around it."""
    before = without_styles(command[-1])
    if "--" in command[1:]:
        return True
    if before.endswith((",", ";", ":", ")")):
        return False
    if before.startswith("-") or len(command) == 1 or (command[1] == "host" and len(command) <= 3):
        return True
    return re.fullmatch(r"[a-z]+[,;:.)]*|\(.*", word) is None

"""What a host sends, and what of it a terminal gets: the title, the clipboard and the screen are nobody else's."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gpurun.cli import output, watched
from gpurun.cli.logs import _Pages
from gpurun.cli.screen import Screen
from gpurun.cli.terminal import harmless, harmless_line, harmless_output
from tests.support.part import part

TITLE = "\x1b]0;owned\x07"
CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x1b\\"
HOSTILE = f"a{TITLE}b{CLIPBOARD}c\x1b[2Jd\x9b2Je\x1b[8mf\r\x1b[5mg\u202eh"
# What gpurun's own lines are made of: styles, and the erasing and moving of a status line and of Rich's bars.
OWN = re.compile(r"\x1b\[(?:[0-9;]*m|2?K|\d*[ABCDG]|\?(?:25|7)[hl])")


def say_state(text: str) -> None:
    with output.activity() as say:
        screen = Screen("box", say)
        screen.state(part({"id": "train-7f3k", "state": "queued", "waiting": text, "attempt": 1}))


def prepare_and_fail(text: str) -> None:
    with output.activity() as say:
        screen = Screen("box", say)
        screen.prepare(f"{text}\nbuilding {text}\nStep 1/2 : {text}\nCollecting {text}\n".encode())
        screen.state(part({"id": "train-7f3k", "state": "failed", "attempt": 1}))


def print_build(text: str) -> None:
    with output.activity() as say:
        _Pages("box", say).prepare(f"{text}\n".encode())


def show_activity(text: str) -> None:
    with output.activity(text):
        pass


def show_status(text: str) -> None:
    with watched.Board("box", lambda answer: [answer["path"]]) as board:
        board._answer = part({"path": text})
        board._draw()


def bars(text: str) -> None:
    with output.steps(text) as bar:
        bar(0.5, text, text)
    with output.transfer(text) as carried:
        carried._show(0.5, "1 kB")


WRITERS: dict[str, Callable[[str], Any]] = {
    "out": output.out,
    "json": lambda text: output.json({"name": text}),
    "say": output.say,
    "note": output.note,
    "warn": output.warn,
    "error": lambda text: output.print_error(text, text, text),
    "next": lambda text: output.next_step(text, text),
    "table": lambda text: output.table(["NAME"], [[text]]),
    "question": lambda text: output.confirm(text, yes=False, otherwise=""),
    "activity": show_activity,
    "state": say_state,
    "prepare": prepare_and_fail,
    "logs --build": print_build,
    "status": show_status,
    "bars": bars,
}


Shown = Callable[[Callable[[str], Any], str], str]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Lets a writer write a text; what came to the terminal that both streams are."""

    def write(writer: Callable[[str], Any], text: str) -> str:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        writer(text)
        return "".join(capsys.readouterr())

    return write


@pytest.mark.parametrize("name", WRITERS)
def test_writer_passes_no_control_sequence_of_a_host_on(name: str, shown: Shown) -> None:
    said = shown(WRITERS[name], HOSTILE)
    assert "a" in said
    left = OWN.sub("", said)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", left), repr(left)
    assert "\x1b[8m" not in said or name in ("prepare", "logs --build", "bars"), "a text is hidden"


def test_status_line_is_one_line(shown: Shown) -> None:
    assert "first second third" in shown(WRITERS["activity"], "first\nsecond\r\n\tthird")


def test_name_that_looks_like_markup_breaks_no_bar(shown: Shown) -> None:
    assert "job [/bold] [red" in shown(bars, "job [/bold] [red")


def test_own_styles_and_line_ends_stay() -> None:
    assert harmless("a\tb\n\x1b[31;1mc\x1b[0m") == "a\tb\n\x1b[31;1mc\x1b[0m"
    assert harmless_line("a\tb\n\x1b[31;1mc\x1b[0m") == "a b c"


def test_output_of_a_build_keeps_colours_and_carriage_returns_even_in_pieces() -> None:
    assert harmless_output(b"50%\r\x1b[38;5;4m100%\x1b[m\n") == b"50%\r\x1b[38;5;4m100%\x1b[m\n"
    for at in range(len(HOSTILE.encode())):
        whole = HOSTILE.encode()
        shown = (harmless_output(whole[:at]) + harmless_output(whole[at:])).decode("utf-8", "replace")
        assert not re.search(r"\x1b(?!\[[0-9;]*m)|[\x07\x80-\x9f]", shown), at

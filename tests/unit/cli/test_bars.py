"""Bars of a job that are wider than the terminal."""

from __future__ import annotations

import pytest

from gpurun.cli.bars import NO_WRAP, WRAP, Unwrapped

LONG = b"Epoch 0: " + b"x" * 200


@pytest.mark.parametrize(
    "said", [b"", b"a line\n" + LONG + b"\n", b"half a line", b"as Windows ends them\r\nand more\r\n"]
)
def test_what_has_no_bar_is_as_it_was(said: bytes) -> None:
    assert Unwrapped()(said) == said


def test_a_bar_is_not_wrapped_and_what_follows_is() -> None:
    shown = Unwrapped()(b"before\n\r" + LONG + b"\r" + LONG + b"\nafter\n")
    assert shown == b"before\n" + NO_WRAP + b"\r" + LONG + b"\r" + LONG + b"\n" + WRAP + b"after\n"


def test_a_bar_that_comes_in_parts() -> None:
    show = Unwrapped()
    parts = [b"\rEpoch ", b"0: 10%", b"\rEpoch 0: 20%", b"\n", b"plain\n"]
    expected = [NO_WRAP + part + WRAP for part in parts[:4]] + [b"plain\n"]
    assert [show(part) for part in parts] == expected


def test_no_character_is_torn() -> None:
    show = Unwrapped()
    block = "█".encode()
    shown = show(b"\r" + block[:1]) + show(block[1:2]) + show(block[2:]) + show(b" 10%")
    assert block + WRAP in shown
    assert shown.count(NO_WRAP) == shown.count(WRAP) == 2

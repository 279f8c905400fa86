"""What numbers, tables and errors look like."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gpurun.cli import output
from gpurun.cli.terminal import harmless
from gpurun.errors import UsageError


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (11_700, "11.7 kB"), (99_960, "100 kB"), (1_400_000_000, "1.4 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (310, "5m 10s"), (7500, "2h 05m"), (280_000, "3d 5h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_ago_takes_the_largest_unit() -> None:
    assert [output.ago(1000, 1000 + s) for s in (5, 300, 7200, 200_000)] == ["5s", "5m", "2h", "2d"]
    assert output.ago(1000, 900) == "0s", "the host's clock may be ahead"


def test_a_table_in_a_pipe_is_aligned_and_uncut(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["RUN", "STATE"], [["a" * 100, "ok"], ["b", "failed"]], shrink=[0])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "a" * 100 + "  ok"
    assert lines[2].split() == ["b", "failed"]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("text", "room", "whole", "end"),
    [("abcdefgh", 5, "ab…gh", "abcd…"), ("損失関数", 5, "損…数", "損失…"), ("🦊🦊🦊", 4, "🦊…", "🦊…"), ("e\u0301a", 2, "e\u0301a", "e\u0301a"),
     ("\x1b[31mabc\x1b[0m", 2, "a…", "a…"), ("abc", 1, "…", "…")],
)  # fmt: skip
def test_text_is_cut_to_columns_and_not_to_characters(text: str, room: int, whole: str, end: str) -> None:
    assert (output.cut(text, room), output.cut_end(text, room)) == (whole, end)
    assert max(map(output.visible, (whole, end))) <= room


def test_a_table_is_aligned_behind_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["NAME", "STATE"], [["損失🦊", "ok"], ["b", "failed"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME    STATE", "損失🦊  ok", "b       failed"]


def test_on_a_terminal_the_columns_that_may_be_are_cut_in_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "50")
    output.table(
        ["RUN", "STATE", "HOST"], [["resnet50-imagenet-7f3k", "failed (import)", "a-host-with-a-name"]], shrink=[2, 1]
    )
    assert capsys.readouterr().out.splitlines()[1] == "resnet50-imagenet-7f3k  failed (import)  a-ho…name"
    monkeypatch.setenv("COLUMNS", "40")
    output.table(
        ["RUN", "STATE", "HOST"], [["resnet50-imagenet-7f3k", "failed (import)", "a-host-with-a-name"]], shrink=[2, 1]
    )
    row = capsys.readouterr().out.splitlines()[1]
    assert row.startswith("resnet50-imagenet-7f3k  fai")
    assert len(row) == 42, "no column is narrower than 8"


def test_cutting_keeps_both_ends() -> None:
    assert output.cut("train-with-a-long-name-7f3k", 12) == "train-…-7f3k"
    assert output.cut("short", 12) == "short"


def test_nobody_to_ask_is_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "interactive", lambda: False)
    with pytest.raises(UsageError) as caught:
        output.confirm("Remove it?", yes=False, otherwise="add -y")
    assert caught.value.next_step == "add -y"
    output.confirm("Remove it?", yes=True, otherwise="add -y")


def test_an_error_says_what_where_and_next(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_error("it broke", "here", "do this\nand that")
    assert capsys.readouterr().err == "error: it broke\n  here\nnext: do this\n      and that\n"


def test_a_long_message_is_folded_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    what, command = f"{'word ' * 15}/a/path/{'x' * 80} and more", f"gpurun submit {'--flag value ' * 8}end"
    output.print_error(what, "", f"one thing\n{command}")
    assert what in capsys.readouterr().err.splitlines()[0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    output.print_error(what, "", f"one thing\n{command}")
    assert capsys.readouterr().err.splitlines() == [
        f"error: {'word ' * 13}word",
        "       word",
        f"       /a/path/{'x' * 80}",
        "       and more",
        "next: one thing",
        f"      {command}",
    ]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


def test_what_is_said_is_folded_and_keeps_its_indent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "  " + "word " * 20 + "end"
    output.say(said)
    assert capsys.readouterr().err == said + "\n"
    on_a_terminal(monkeypatch)
    output.say(said)
    assert capsys.readouterr().err.splitlines() == ["  " + " ".join(["word"] * 15), "  " + "word " * 5 + "end"]


def test_reasons_that_are_too_long_stand_below_their_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    output.next_steps(("gpurun ps", "all"), ("gpurun fetch", "it"))
    output.next_steps((f"gpurun fetch {'x' * 50}", "bring back all that it wrote"), ("gpurun ps", ""))
    assert capsys.readouterr().err.splitlines() == [
        "  gpurun ps     all",
        "  gpurun fetch  it",
        f"  gpurun fetch {'x' * 50}",
        "      bring back all that it wrote",
        "  gpurun ps",
    ]


def test_json_knows_paths_and_tuples(capsys: pytest.CaptureFixture[str]) -> None:
    output.json({"path": Path("/x"), "pair": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {"path": "/x", "pair": [1, 2]}


def test_an_activity_in_a_pipe_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with output.activity("asking box") as say:
        say("sending")
    assert capsys.readouterr().err == ""


def test_control_characters_of_others_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of a stranger's process, say, could else rewrite the screen or the window's title."""
    output.out("GPU 0: process 7 (\x1b]0;owned\x07\x1b[2Jevil\r of bob)")
    assert capsys.readouterr().out == "GPU 0: process 7 (]0;owned[2Jevil of bob)\n"
    output.out("\x1b[31mred\x1b[0m\tand\nplain")
    assert capsys.readouterr().out == "\x1b[31mred\x1b[0m\tand\nplain\n"


def test_name_that_is_no_text_can_be_shown() -> None:
    assert harmless("epoch=\udcff \ud800.ckpt") == "epoch=\\udcff \\ud800.ckpt"

"""Making an image or a layer of dependencies, as one line."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from gpurun.cli import output, progress
from gpurun.cli.building import TAIL, Building
from gpurun.cli.screen import Screen
from tests.support.part import part

BUILD = b"building gpurun/project:0123 on Dockerfile\n" + b"".join(
    b"Step %d/9 : RUN make\n" % step + b"".join(b" ---> line %d\n" % line for line in range(50))
    for step in range(1, 10)
)
FAILED: Any = {"id": "train-7f3k", "state": "failed", "reason": "image", "attempt": 1, "started": None}


class Said:
    """A status line that remembers what stood in it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.timed = True

    def __call__(self, text: str, *, since: float | None = None) -> None:
        self.lines.append(text)
        self.timed = self.timed and since is not None


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


def test_build_on_a_terminal_is_one_line_with_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    said = Said()
    building = Building(said)
    for line in BUILD.splitlines(keepends=True):
        building.feed(line)
    assert said.timed
    assert list(dict.fromkeys(said.lines)) == [
        "building the image", *(f"building the image, step {step} of 9" for step in range(1, 10)),
    ]  # fmt: skip
    assert capsys.readouterr() == ("", "")


def test_activity_with_a_time_shows_it_and_goes_on_by_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_terminal(monkeypatch)
    now = [100.0]
    monkeypatch.setattr("gpurun.cli.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("gpurun.cli.progress.threading.Thread", lambda **_: type("Clock", (), {"start": print})())
    with output.activity() as say:
        assert isinstance(say, progress._Activity)
        say("building the image, step 4 of 9", since=28.0)
        assert "· building the image, step 4 of 9, 1m 12s" in capsys.readouterr().err
        now[0] += 3
        say._draw()
        assert "step 4 of 9, 1m 15s" in capsys.readouterr().err


def test_build_in_a_pipe_is_at_most_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen("box", Said())
    for line in BUILD.splitlines(keepends=True):
        screen.prepare(line)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "building the image", *(f"building the image, step {step} of 9" for step in range(1, 10)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        (b"installing the requirements of uv.lock\n", "installing the dependencies"),
        (b"Python 3.11.2 of /usr, torch 2.8.0\n", "installing the dependencies"),
        (b"eb76878b20ec: Pulling fs layer\n", "pulling the image"),
    ],
)
def test_layers_and_packages_are_no_steps(first: bytes, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen("box", Said())
    screen.prepare(first)
    for number in range(200):
        screen.prepare(b"Collecting p%d==1.0\n" % number if b"Pull" not in first else b"%012x: Waiting\n" % number)
    assert capsys.readouterr().err.splitlines() == [shown]


def test_environment_that_is_there_already_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Screen("box", Said()).prepare(b"Python 3.11.2 of /usr, torch 2.8.0\n")
    assert capsys.readouterr().err == ""


def test_build_that_failed_shows_its_end_and_where_all_of_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen("box", Said())
    screen.prepare(BUILD)
    screen.prepare(b"no such \x1b]0;owned\x07luck")
    capsys.readouterr()
    screen.state(FAILED)
    head, *tail, last = capsys.readouterr().err.splitlines()
    assert head == f"the last {TAIL} lines of what the host printed:"
    assert len(tail) == TAIL
    assert tail[-1] == "no such ]0;ownedluck"
    assert last.split()[:4] == ["gpurun", "logs", "--build", "train-7f3k"]
    screen.state(FAILED)
    assert capsys.readouterr().err == ""


def test_run_that_started_and_failed_shows_no_build(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen("box", Said())
    screen.prepare(BUILD)
    capsys.readouterr()
    screen.state(part({**FAILED, "reason": "exit", "started": 5.0}))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_bar_keeps_its_place_and_width_whatever_stands_behind_it(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", str(columns))
    texts = ["  12 kB", " 999 MB of 12.0 GB  117 MB/s  12m 30s left", "x" * 200]
    ends = set()
    for text in texts:
        bar = progress._rich_bar("sending to box")
        bar.add_task("sending to box", total=1.0, completed=0.5, text=text)
        console = Console(width=columns, force_terminal=False)
        (line,) = [
            "".join(segment.text for segment in line) for line in console.render_lines(bar.get_renderable(), pad=False)
        ]
        assert len(line.rstrip()) <= columns
        ends.add(line.index("50%"))
    assert len(ends) == 1


def test_steps_in_a_pipe_print_a_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    with output.steps("preparing box") as bar:
        for step in ["building the image, step 1 of 2"] * 5 + ["building the image, step 2 of 2"] * 5:
            bar(0.5, "Collecting x", step)
    assert capsys.readouterr().err.splitlines() == [
        "preparing box: building the image, step 1 of 2",
        "preparing box: building the image, step 2 of 2",
    ]


def test_tail_of_a_bar_that_drew_over_itself_is_its_last_state(capsys: pytest.CaptureFixture[str]) -> None:
    building = Building(Said())
    building.feed(b"  1%\r 50%\r100%\nlast\r\n")
    building.tail.show()
    assert capsys.readouterr().err.splitlines()[1:] == ["100%", "last"]

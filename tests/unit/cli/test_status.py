"""What `status` shows of one run, and on how many lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gpurun.cli import app, describe
from gpurun.commands import runs
from gpurun.errors import HostUnreachable
from gpurun.store import run_store
from tests.support.agent_answers import sound
from tests.support.part import part

RUN = "train-7f3k"
TRACEBACK = (
    "Traceback (most recent call last):\n"
    + "".join(f'  File "train.py", line {n}, in step\n    loss.backward({n})\n' for n in range(30))
    + "ValueError: lr must be positive"
)
Show = Callable[..., tuple[str, str]]


@pytest.fixture
def show(home: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Shows an answer of a host on a terminal of 80x24; `to` holds what it changes. What came on stdout, and stderr."""

    def shown(*options: str, tty: bool = True, **changes: Any) -> tuple[str, str]:
        answer = sound(RUN)["status"]
        answer["run"].update({"exit_code": 1, "message": None, "next": None, "started": 2.0, **changes.pop("run", {})})
        answer["job"].update(changes.pop("job", {}))
        answer.update({"traceback": TRACEBACK, **changes})
        run_store.update([answer["run"]], "box")
        monkeypatch.setattr(runs, "status", lambda entry: answer)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("LINES", "24")
        monkeypatch.setenv("NO_COLOR", "1")
        for stream in (sys.stdout, sys.stderr):
            monkeypatch.setattr(stream, "isatty", lambda: tty, raising=False)
        assert app.main(["status", RUN, *options]) == 0
        said = capsys.readouterr()
        return said.out, said.err

    return shown


LIMITS: Any = {
    "max_duration": 43200.0, "retries": 2, "grace": 300.0,
    "resources": {"gpus": 2, "memory": 32 * 10**9, "cpus": 8.0, "shm": None},
}  # fmt: skip


def test_status_of_a_failure_begins_with_the_cause(show: Show) -> None:
    out, _ = show()
    lines = out.splitlines()
    assert lines[0].startswith(f"{RUN} failed with exit code 1")
    assert lines[1] == "  because   ValueError: lr must be positive"
    before = lines[: next(n for n, line in enumerate(lines) if line.startswith("  command"))]
    assert "ValueError: lr must be positive" in before
    assert lines[3].startswith('  File "train.py"'), "half a frame says nothing"
    assert any(line.startswith("hint: the script raised this") for line in before)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"job": {**LIMITS, "command": ["python", "train.py", *["--lr=0.1"] * 80]}},
        {"run": {"message": "image: " + "no such thing, " * 200, "notes": ["a note of some length"] * 30}},
        {"traceback": None, "log_tail": "x" * 5000 + "\n" + "line\n" * 100},
    ],
)
def test_status_of_a_failure_fits_a_terminal_of_24_lines(show: Show, changes: Any) -> None:
    out, err = show(**changes)
    lines = (out + err.rpartition("\r")[2]).splitlines()  # before that a line that is gone again
    assert sum(max(1, -(-len(line) // 80)) for line in lines) < 24, out + err
    assert f"gpurun fetch {RUN}" in err


def test_status_of_a_failure_names_files_as_the_project_has_them_and_drops_marks_below_what_was_cut(show: Show) -> None:
    code = "    loss = " + "x" * 100
    frame = f'  File "/home/ada/.gpurun/runs/{RUN}/workspace/models/cnn.py", line 5, in fit\n{code}\n{" " * 104}^^^\n'
    text = f"Traceback (most recent call last):\n{frame}ValueError: no"
    lines = show(traceback=text)[0].splitlines()
    at = lines.index('  File "models/cnn.py", line 5, in fit')
    assert lines[at + 1 : at + 3] == [f"{code[:79]}…", "ValueError: no"]
    assert text in show("-v", traceback=text)[0]


def test_status_in_a_pipe_and_with_v_tells_all(show: Show) -> None:
    assert "image" not in show()[0]
    for options, tty in (("-v",), True), ((), False):
        out, _ = show(*options, tty=tty)
        assert TRACEBACK in out
        for text in ("  image     pytorch:1", "  software  torch 2.8.0", "  submitted", "  note      a note"):
            assert text in out


def test_status_shows_what_the_job_spec_limits_in_one_line(show: Show) -> None:
    out, _ = show(job=LIMITS)
    assert "limits    12h at most, 32.0 GB memory, 8 CPUs, 2 GPUs, 2 retries, 5m to stop" in " ".join(
        line.strip() for line in out.split("\n")
    ).replace("  limits", "limits")
    assert json.loads(show("--json", job=LIMITS)[0])["limits"] == {
        "max_duration": 43200.0, "memory": 32 * 10**9, "cpus": 8.0, "gpus": 2, "retries": 2, "grace": 300.0,
    }  # fmt: skip


def test_status_of_a_job_without_limits_has_no_such_line(show: Show) -> None:
    out, _ = show(job={"retries": 0, "grace": 60.0})
    assert "limits" not in out
    assert describe.limits(part({"resources": {"gpus": "all"}})) == "all GPUs"


@pytest.mark.parametrize(
    ("there", "answers", "said"),
    [
        ("running", True, "attempt 1 is running on spare; gpurun stop train-7f3k ends all of them"),
        ("running", False, "attempt 1 may still be running on spare, which does not answer; gpurun stop train-7f3k"),
        ("stopped", True, "attempt 1 was stopped on spare"),
    ],
)
def test_status_is_true_of_an_attempt_that_was_left_behind(
    show: Show, monkeypatch: pytest.MonkeyPatch, there: str, answers: bool, said: str
) -> None:
    told = sound(RUN)["status"]["run"]
    left = {**told, "attempt": 1, "attempts": [], "host_id": "other", "state": "running", "live": True, "ended": None}
    run_store.update([part(left)], "spare")
    run_store.note_begun(told, "box", fetched=None)

    class Spare:
        host = "spare"

        def ask(self, *_: object, **__: object) -> Any:
            if not answers:
                raise HostUnreachable("gone")
            return {"runs": [{**left, "state": there, "live": there == "running"}], "ledgers": {}}

    monkeypatch.setattr(runs, "wire_to", lambda *_, **__: Spare())
    out, _ = show(tty=False)
    assert f"elsewhere {said}" in out
    assert "attempt 1 failed" not in out, "that was told before it was known"


@pytest.mark.parametrize("tty", [True, False])
def test_colours_of_what_a_job_printed_last_end_with_it(show: Show, tty: bool) -> None:
    out, _ = show(tty=tty, traceback="\x1b[1m\x1b[38;5;9mTraceback\n\x1b[31mValueError: lr " + "x" * 200)
    assert "\nTraceback\nValueError: lr xx" in out
    assert "\x1b" not in out
    assert "[38;5;9m" not in out

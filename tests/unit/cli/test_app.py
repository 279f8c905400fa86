"""One line in, a message and an exit code out."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpurun.cli import output, rm
from gpurun.cli.app import VERBS, main
from gpurun.cli.help import TOPICS
from gpurun.errors import NO_NAME, GpurunError, HostUnreachable, UsageError
from gpurun.store import run_store
from tests.support.part import part


def test_help_names_every_command_and_fits_a_terminal_of_24_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb in VERBS.values():
        assert f"  {verb.name:<7} {verb.help}" in shown, verb.name
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 23, "the prompt that follows is the 24th"
    assert "gpurun help COMMAND" in shown


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("logs --tail -1", "--tail: must be greater than or equal to 0"),
        ("logs --tail x", "--tail: wants a whole number"),
        ("logs --attempt 0", "--attempt: must be greater than or equal to 1"),
        ("logs --since 5", '--since: 5 what? Write "5h", "5m" or "5s"'),
        ("wait --timeout soon", '--timeout: wants a time span such as "12h", "90m" or "1h30m"'),
        ("prune --older-than 14", '--older-than: 14 what? Write "14d", "14h" or "14m"'),
    ],
)
def test_option_that_is_no_number_or_span_is_named(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"error: {said}"


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_within_80_columns(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: gpurun {verb}")
    assert max(map(len, shown.splitlines())) <= 80


def pages() -> list[list[str]]:
    """Every help page."""
    nested = {verb: getattr(importlib.import_module(f"gpurun.cli.{verb}"), "app", None) for verb in VERBS}
    inner = [[verb, each.name] for verb, app in nested.items() if app for each in app.registered_commands]
    return [*([verb] for verb in VERBS), *inner]


@pytest.mark.parametrize("page", pages(), ids=" ".join)
def test_help_page_reads_plainly_and_is_not_cut(page: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*page, "--help"]) == 0
    shown = capsys.readouterr().out
    usage, *rest = shown.splitlines()
    assert not re.search(r"\[\[|\]\.\.\.\]|\.\.\.\.|[{}]", usage), usage
    for text in ("[x>", "[x<", "[required]", "[default: ", "Show this message"):
        assert text not in shown
    assert not [line for line in rest if line.endswith("...")]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("page", [["submit"], ["host", "add"], ["data", "ls"]], ids=" ".join)
def test_help_command_is_the_same_as_help_option(page: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", *page]) == 0
    asked = capsys.readouterr().out
    assert main([*page, "--help"]) == 0
    assert capsys.readouterr().out == asked


def test_help_exit_codes_has_the_codes_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "exit-codes"]) == 0
    shown = capsys.readouterr().out
    table = (Path(__file__).parents[3] / "README.md").read_text().partition("## Exit codes")[2].partition("##")[0]
    codes = re.findall(r"^\| (\d+) ", table, re.M)
    assert sorted(re.findall(r"^  (\d+) ", shown, re.M), key=int) == sorted(codes, key=int)
    assert "gpurun help exit-codes" in table


@pytest.mark.parametrize("topic", TOPICS)
def test_help_topic_fits_a_terminal(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", topic]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= 23
    assert max(map(len, shown)) <= 80
    main(["--help"])
    assert topic in capsys.readouterr().out


def test_help_on_what_there_is_not_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "exit-code"]) == 2
    assert capsys.readouterr().err.endswith("next: gpurun help exit-codes\n")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (["sumbit", "train.py"], "gpurun submit train.py"),
        (["train.py", "-g", "2"], "gpurun submit train.py -g 2"),
        (["jobs/digits.toml"], "gpurun submit jobs/digits.toml"),
        (["my train.py", "-n", "*"], "gpurun submit 'my train.py' -n '*'"),
        (["fecth", "--only", "*.ckpt"], "gpurun fetch --only '*.ckpt'"),
        (["list"], "gpurun --help"),
    ],
)
def test_a_mistyped_verb_is_answered_with_the_nearest(
    line: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.endswith(f"next: {answer}\n")


@pytest.mark.parametrize("line", [["ps", "--nope"], ["path"], ["logs", "-n", "many"], ["submit"]])
def test_wrong_use_ends_with_2_and_one_error(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    assert capsys.readouterr().err.count("error: ") == 1


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UsageError("no", "next"), 2),
        (HostUnreachable("no", "next"), 255),
        (GpurunError("no", "next"), 125),
        (GpurunError("no", "next", exit_code=7), 7),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("x"), 125),
    ],
)
def test_each_failure_has_its_exit_code(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("gpurun.commands.runs.resolve", fail)
    assert main(["status"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown


def test_an_address_where_a_name_is_wanted_is_told_how_to_become_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HostUnreachable("no machine is known", "check it", where="root@10.0.0.7:2298", code=NO_NAME)

    monkeypatch.setattr("gpurun.commands.runs.resolve", fail)
    assert main(["status"]) == 255
    assert "gpurun host add NAME root@10.0.0.7:2298" in capsys.readouterr().err.replace("\n", " ")


def test_a_bug_leaves_a_log_that_keeps_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = output.write_bug_log(["submit", "-e", "TOKEN=abc"], ValueError("why"))
    assert log is not None
    text = log.read_text()
    log.unlink()
    assert "ValueError: why" in text
    assert "TOKEN=***" in text
    assert "abc" not in text


def test_a_bug_when_no_disk_has_room_is_told_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setattr("gpurun.commands.runs.resolve", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert main(["status"]) == 125
    shown = capsys.readouterr().err
    assert shown.startswith("error: gpurun has a bug: ZeroDivisionError: x\n")
    assert "No disk has room" in shown
    assert shown.count("Traceback (most recent call last)") == 1


@pytest.mark.parametrize(
    ("number", "at", "what", "step"),
    [
        (errno.ENOSPC, "/x/y", "a disk of this machine is full", "free space there"),
        (errno.EDQUOT, "/x/y", "your quota on a disk of this machine is used up", "free space there"),
        (errno.EROFS, "/x/y", "a disk of this machine is read-only", "XDG_DATA_HOME"),
        (errno.EACCES, "STORE/runs", "gpurun may not use its own files", "sudo chown"),
        (errno.EACCES, "/x/y", "gpurun has a bug", "report it"),
    ],
)
def test_a_disk_of_this_machine_is_no_bug(
    number: int, at: str, what: str, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    at = at.replace("STORE", str(tmp_path / "gpurun"))

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), at)

    monkeypatch.setattr("gpurun.commands.runs.resolve", fail)
    assert main(["status"]) == 125
    shown = capsys.readouterr().err
    assert f"error: {what}" in shown
    assert at in shown
    assert step in shown
    assert "Traceback" not in shown


def test_a_store_that_cannot_be_written_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "gpurun").write_text("no folder")
    record = {"id": "train-aaaa", "name": "train", "project": "p", "state": "running", "created": 1.0}

    def update_twice(*_: object, **__: object) -> None:
        for _again in range(2):
            run_store.update([part(record)], "box")
        raise GpurunError("that was all")

    monkeypatch.setattr("gpurun.commands.runs.resolve", update_twice)
    assert main(["status"]) == 125
    shown = capsys.readouterr().err
    assert shown.count("warning: what gpurun knows on this machine is not kept up to date") == 1
    assert str(tmp_path / "gpurun") in shown
    assert main(["--version"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_debug_may_stand_anywhere_and_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UsageError("no such thing", "try another")

    monkeypatch.setattr("gpurun.commands.runs.resolve", fail)
    assert main(["status", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_the_jobs_own_debug_is_not_taken() -> None:
    from gpurun.cli.app import _take_debug

    assert _take_debug(["submit", "a.py", "--", "--debug"]) == (["submit", "a.py", "--", "--debug"], False)
    assert _take_debug(["submit", "--debug", "a.py", "--", "x"]) == (["submit", "a.py", "--", "x"], True)


def test_a_noun_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host"]) == 0
    alone = capsys.readouterr().out
    assert main(["host", "--help"]) == 0
    assert capsys.readouterr().out == alone


def test_prune_with_a_number_without_a_unit_offers_days(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", "--older-than", "14"]) == 2
    said = capsys.readouterr().err
    assert '--older-than: 14 what? Write "14d", "14h" or "14m"' in said
    assert "gpurun prune --older-than 14d" in said


def test_rm_while_a_hook_runs_names_what_waits_for_it() -> None:
    entries, seen = (
        [SimpleNamespace(id="a-1111", host="box")],
        [SimpleNamespace(run="a-1111", host="box", live=True, shells=())],
    )
    with pytest.raises(UsageError) as error:
        rm._refuse_in_use(entries, seen)  # type: ignore[arg-type]
    assert "gpurun fetch --watch a-1111" in error.value.next_step


def test_rm_while_a_shell_is_open_names_what_ends_it() -> None:
    entries = [SimpleNamespace(id="a-1111", host="box")]
    seen = [SimpleNamespace(run="a-1111", host="box", live=False, shells=("kill -HUP 42",))]
    with pytest.raises(UsageError, match="a shell is open in a-1111 on box") as error:
        rm._refuse_in_use(entries, seen)  # type: ignore[arg-type]
    assert "kill -HUP 42" in error.value.next_step


def test_stdout_of_another_charset_gets_escaped_what_it_does_not_have(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpurun.__main__ import main as start

    for run in ("a-2222", "a-3333"):
        run_store.add(
            part({"id": run, "name": "a", "created": 1.0, "args": ["損失"], "project": {"name": "p", "root": "/p"}}),
            "box",
        )
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="latin-1"))
    monkeypatch.setattr(sys, "argv", ["gpurun", "compare", "a-2222", "a-3333"])
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 0
    assert b"\\u640d\\u5931" in written.getvalue()


@pytest.mark.parametrize("line", [["status", "train-7f3k"], ["logs"], ["submit", "train.py"]])
def test_working_directory_that_was_removed_is_named(
    line: list[str], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(line) == 2
    assert capsys.readouterr().err.startswith("error: the working directory is not there any more\n")

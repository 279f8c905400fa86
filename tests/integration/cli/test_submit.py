"""What `gpurun submit` says before anything is sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gpurun.cli import app, plan_shown
from gpurun.cli.submit import after_start
from gpurun.commands.submit import Started, make_plan
from gpurun.config import hosts
from gpurun.config.load import load
from gpurun.remote.wire import Wire
from tests.support.part import part

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hosts.add("box", {})
    root = home / "digits"
    root.mkdir()
    (root / "gpurun.toml").touch()
    (root / "train.py").touch()
    monkeypatch.chdir(root)
    return root


def dry_run(*words: str) -> int:
    return app.main(["submit", *words, "--dry-run"])


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cpus", "x", "--cpus: wants a number"),
        ("--cpus", "0", "--cpus: must be greater than 0"),
        ("--retries", "x", "--retries: wants a whole number"),
        ("-g", "x", '--gpus: wants a number of GPUs, 0 or more, or "all"'),
        ("--memory", "1Q", '--memory: wants a size such as "32GB" or "512MiB"'),
    ],
)
def test_a_value_that_an_option_does_not_take(option: str, value: str, said: str, capsys: Capture) -> None:
    assert dry_run("train.py", option, value) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0] == f"error: {said}"
    assert error[1].startswith("next: ")


@pytest.mark.parametrize("settings", ["gpurun.toml", "pyproject.toml"])
def test_submit_opens_each_file_of_the_configuration_once(project: Path, settings: str, tmp_path: Path) -> None:
    """Up to the first question, which no host answers."""
    (project / "gpurun.toml").unlink()
    (project / settings).write_text("gpus = 0\n" if settings == "gpurun.toml" else "[tool.gpurun]\ngpus = 0\n")
    (project / "job.toml").write_text('script = "train.py"\ndependencies = false\n')
    count = (
        "import os, sys; opened = []; names = ('hosts.toml', 'job.toml', 'gpurun.toml', 'pyproject.toml');"
        "sys.addaudithook(lambda event, args: event == 'open' and str(args[0]).endswith(names) and os.path.exists(args[0]) and opened.append(args[0]));"
        "from gpurun.cli.app import main; code = main(['submit', 'job.toml', '-y']);"
        "print(code, *sorted(name.rsplit('/', 1)[1] for name in map(str, opened)))"
    )
    env = {**os.environ, "GPURUN_SSH": "false"}
    done = subprocess.run([sys.executable, "-c", count], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["125", *sorted(["hosts.toml", "job.toml", settings])], done.stderr


def test_arguments_that_replace_those_of_the_job_file_are_told_with_the_command(project: Path, capsys: Capture) -> None:
    """They are replaced as one, which is easily taken for adding to them."""
    job = project / "digits.toml"
    job.write_text('script = "train.py"\nargs = ["--epochs", "20", "--lr", "1e-3"]\n')
    for given, shown in ((["--lr", "1"], "--lr 1"), ([], "no arguments")):
        loaded = load({"args": given}, "digits.toml", project)
        plan_shown.tell(make_plan(loaded), "box", yes=True)
        said = " ".join(capsys.readouterr().err.split())
        assert f"starts {' '.join(['python', 'train.py', *given])}" in said
        assert f"{shown} in place of the args of {job}: --epochs 20 --lr 1e-3" in said
    plan_shown.tell(make_plan(load({}, "digits.toml", project)), "box", yes=True)
    assert "in place of" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train.py", "-m", "vision.train"], "train.py and -m vision.train are two things to run"),
        (["."], ". is a folder"),
        ([], "name a script, a job file or -m MODULE"),
    ],
)
def test_what_is_to_run_is_named_once_and_is_a_file(words: list[str], said: str, capsys: Capture) -> None:
    assert dry_run(*words) == 2
    shown = capsys.readouterr().err
    assert f"error: {said}" in shown
    assert "next: " in shown


def test_numbers_arrive_as_numbers(capsys: Capture) -> None:
    assert dry_run("train.py", "--cpus", "1.5", "--retries", "2", "--json") == 0
    assert '"cpus": 1.5' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "noted"),
    [("scripts.nope", True), ("nowhere.train", True), ("scripts.fit", False), ("torch.distributed.run", False)],
)
def test_a_module_that_is_not_sent_is_noted(project: Path, module: str, capsys: Capture, *, noted: bool) -> None:
    """A folder without `__init__.py` gives way to an installed package of its name, so it speaks against nothing."""
    (project / "scripts").mkdir()
    (project / "scripts/fit.py").touch()
    assert dry_run("-m", module) == 0
    assert (f"{module} is not among the files that are sent" in capsys.readouterr().out) is noted


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"state": "queued", "reason": None, "live": True}, 0),
        ({"state": "failed", "reason": "start", "live": False, "message": "no process left"}, 125),
    ],
)
def test_detached_submit_whose_host_could_not_begin_is_told_and_fails(record: Any, code: int, capsys: Capture) -> None:
    started = Started(part({"id": "train-7f3k", **record}), None, earlier=False, fetch=False)
    wire = cast(Wire, SimpleNamespace(host="demo"))
    assert after_start(wire, started, lambda _, since=None: None, follow=False, as_json=False) == code
    assert ("no process left" in capsys.readouterr().err) == (code != 0)


def test_files_that_stay_as_secrets_are_all_named(project: Path, capsys: Capture) -> None:
    """A job may miss one that was taken for a secret by mistake."""
    for name in ("a.pem", "b.pem", "c.pem", "d.pem", "e.pem"):
        (project / name).write_text("key")
    assert dry_run("train.py") == 0
    assert "a.pem, b.pem, c.pem, d.pem, e.pem (may be a secret)" in " ".join(capsys.readouterr().out.split())


def test_dry_run_lists_all_files_or_says_how_to_list_all(project: Path, capsys: Capture) -> None:
    for number in range(20):
        (project / f"part{number}.py").write_text("x" * number)
    assert dry_run("train.py") == 0
    shown = capsys.readouterr().out
    assert [f"part{number}.py\n" in shown for number in range(20)] == [True] * 20
    for number in range(20, 60):
        (project / f"part{number}.py").write_text("x" * number)
    assert dry_run("train.py") == 0
    shown = capsys.readouterr().out
    assert ("part59.py" in shown, "part0.py" in shown) == (True, False)
    assert "all: gpurun submit ... --dry-run --json" in shown
    assert dry_run("train.py", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["files"]["all"]
    assert len(listed) == 62
    assert {"path": "part7.py", "bytes": 7} in listed

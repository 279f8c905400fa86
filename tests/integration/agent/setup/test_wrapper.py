"""The wrapper, run by real shells: what a job finds set, and that nothing in a value is ever read as shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpurun.agent.paths import RunPaths
from gpurun.agent.setup import plugin_files, wrapper
from tests.support.part import only
from tests.unit.agent.setup.test_wrapper import JOB, run

__all__ = ["run"]

TELL = (
    "import json, os; print(json.dumps({k: v.encode('utf8', 'surrogateescape').hex() for k, v in os.environ.items()}))"
)

HOSTILE = {
    "QUOTES": 'it\'s "quoted" `id` $(id) ${HOME} \\',
    "LINES": "a\n'b'\r\n\tc",
    "DASH": "-n",
    "BYTES": "\udcff\udcfe",
    "EMPTY": "",
    "UNICODE": "grüße 🚀",
}

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


def start(
    run: RunPaths, command: list[str], *, shell: str = "sh", log: bool = False, attempt: int = 1
) -> subprocess.CompletedProcess[bytes]:
    places = wrapper.on_host(run, "vision")
    job = only(**{**JOB, "attempt": attempt})
    wrapper.write(run, places, wrapper.settings(places, "ada", job), wrapper.last_settings(places, job))
    argv = wrapper.start(places, command) if log else wrapper.shell(places, command)
    return subprocess.run(by_shell(shell, argv), capture_output=True, check=False, env={"PATH": os.environ["PATH"]})


def by_shell(shell: str, argv: list[str]) -> list[str]:
    return [*([shell, "sh"] if shell == "busybox" else [shell]), *argv[1:]]


def environment(run: RunPaths, shell: str = "sh") -> dict[str, str]:
    done = start(run, [sys.executable, "-c", TELL], shell=shell)
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    return {name: bytes.fromhex(value).decode("utf-8", "surrogateescape") for name, value in told.items()}


@pytest.mark.parametrize("shell", SHELLS)
def test_values_arrive_byte_for_byte(run: RunPaths, shell: str) -> None:
    wrapper.write_env(run, HOSTILE)
    told = environment(run, shell)
    assert {name: told[name] for name in HOSTILE} == HOSTILE


def test_what_a_job_finds_set(run: RunPaths) -> None:
    told = environment(run)
    cache = run.host.job_cache
    assert told["GPURUN_RUN_ID"] == "train-7f3k"
    assert told["GPURUN_RUN_NAME"] == "träin"
    assert told["GPURUN_ATTEMPT"] == "1"
    assert told["GPURUN_DATA"] == run.host.data("vision")
    assert (told["HOME"], told["USER"], told["PYTHONUNBUFFERED"]) == (cache + "/home", "ada", "1")
    for name in ("TORCH_HOME", "HF_HOME", "PIP_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPYCACHEPREFIX"):
        assert told[name].startswith(cache + "/")
    assert told["TMPDIR"] == run.tmp
    assert told["PWD"] == run.workspace
    assert (told["GPURUN_OUT"], told["GPURUN_WORKSPACE"]) == (run.out, run.workspace)
    assert not {"gpurun_ro", "gpurun_log", "gpurun_code", "gpurun_secrets"} & set(told)


def test_a_user_may_set_anything_but_what_gpurun_tells(run: RunPaths) -> None:
    wrapper.write_env(run, {"HF_HOME": "/mine", "GPURUN_RUN_ID": "other-1111", "PYTHONPATH": "/mine"})
    told = environment(run)
    assert told["HF_HOME"] == "/mine"
    assert told["GPURUN_RUN_ID"] == "train-7f3k"
    assert told["PYTHONPATH"] == f"{run.workspace}:/mine"


def test_a_src_folder_is_on_the_path(run: RunPaths) -> None:
    Path(run.workspace, "src").mkdir()
    assert environment(run)["PYTHONPATH"] == f"{run.workspace}:{run.workspace}/src"


def test_the_plugin_comes_last_on_the_path_of_a_job_and_not_on_that_of_a_shell(run: RunPaths) -> None:
    plugin_files.lay_out(run, JOB)
    wrapper.write_env(run, {"PYTHONPATH": "/mine"})
    assert start(run, [sys.executable, "-c", TELL], log=True).returncode == 0
    told = json.loads(Path(run.log).read_text())
    assert bytes.fromhex(told["PYTHONPATH"]).decode() == f"{run.workspace}:/mine:{run.ro}/plugin"
    assert environment(run)["PYTHONPATH"] == f"{run.workspace}:/mine"


def test_the_command_becomes_the_process_and_its_output_the_log(run: RunPaths) -> None:
    done = start(run, ["sh", "-c", "echo out; echo err >&2; printf '\\377\\r'; exit 3"], log=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"", b"")
    assert Path(run.log).read_bytes() == b"out\nerr\n\xff\r"
    start(run, ["sh", "-c", "echo again"], log=True, attempt=2)
    assert Path(run.log).read_bytes().endswith(b"again\n")


@pytest.mark.parametrize("shell", SHELLS)
def test_wrapper_of_an_attempt_that_was_started_refuses_and_leaves_the_log_alone(run: RunPaths, shell: str) -> None:
    assert start(run, ["sh", "-c", "echo one"], shell=shell, log=True).returncode == 0
    assert wrapper.was_started(run, JOB)
    again = start(run, ["sh", "-c", "echo two"], shell=shell, log=True)
    assert (again.returncode, again.stdout) == (wrapper.STARTED_BEFORE, b"")
    assert b"this attempt was started before" in again.stderr
    assert Path(run.log).read_bytes() == b"one\n"
    assert not wrapper.was_started(run, only(**{**JOB, "attempt": 2}))


@pytest.mark.parametrize("shell", SHELLS)
def test_wrapper_that_was_disarmed_refuses_though_the_claim_is_gone(run: RunPaths, shell: str) -> None:
    start(run, ["sh", "-c", "echo one"], shell=shell, log=True)
    Path(run.claim(1)).unlink()  # a job may do that
    wrapper.disarm(run)
    argv = by_shell(shell, wrapper.start(wrapper.on_host(run, "vision"), ["sh", "-c", "echo two"]))
    assert subprocess.run(argv, capture_output=True, check=False).returncode == wrapper.STARTED_BEFORE
    assert Path(run.log).read_bytes() == b"one\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_wrapper_started_many_times_at_once_runs_the_job_once(run: RunPaths, shell: str) -> None:
    places = wrapper.on_host(run, "vision")
    wrapper.write(run, places, wrapper.settings(places, "ada", JOB), wrapper.last_settings(places, JOB))
    argv = by_shell(shell, wrapper.start(places, ["sh", "-c", "echo one"]))
    started = [subprocess.Popen(argv, stderr=subprocess.DEVNULL) for _ in range(20)]
    assert sorted(one.wait() for one in started) == [0, *[wrapper.STARTED_BEFORE] * 19]
    assert Path(run.log).read_bytes() == b"one\n"


def test_wrapper_that_cannot_write_its_claim_says_so(run: RunPaths) -> None:
    shutil.rmtree(run.out)
    done = start(run, ["sh", "-c", "echo one"], log=True)
    assert done.returncode == 125
    assert b"started-1 cannot be written" in done.stderr


def test_a_command_that_is_not_there_is_told_in_the_log(run: RunPaths) -> None:
    assert start(run, ["no-such-command"], log=True).returncode == 127
    assert b"no-such-command" in Path(run.log).read_bytes()


def test_command_that_a_shell_is_to_run_and_that_is_not_there_is_one_clear_line(run: RunPaths) -> None:
    done = start(run, ["no-such-command", "-L"])
    assert (done.returncode, done.stdout) == (127, b"")
    assert done.stderr.decode() == f"gpurun: there is no command no-such-command in the environment of {JOB['id']}\n"


def test_arguments_are_not_read_as_shell(run: RunPaths) -> None:
    hostile = ["$(id)", "a b", "it's", "-n", "", "*", "\n"]
    done = start(run, [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *hostile])
    assert json.loads(done.stdout) == hostile


def test_python_is_what_the_image_calls_so(run: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    for name in ("mkdir", "sh"):
        (programs / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(programs))
    done = start(run, ["python", "-c", "print('python3 it is')"], shell=str(programs / "sh"))
    assert done.stdout == b"python3 it is\n"


def test_secrets_lie_outside_of_what_others_are_shown(run: RunPaths) -> None:
    wrapper.write_env(run, {"TOKEN": "hunter2"})
    assert environment(run)["TOKEN"] == "hunter2"
    shown = [path for path in Path(run.host.runs).rglob("*") if path.is_file()]
    assert [path for path in shown if b"hunter2" in path.read_bytes()] == []


def test_secrets_of_an_older_gpurun_reach_the_job_and_leave_the_runs_folder(run: RunPaths) -> None:
    Path(run.old_env).write_text("export TOKEN=hunter2\n")
    wrapper.make_folders(run, "vision")
    assert environment(run)["TOKEN"] == "hunter2"
    assert not Path(run.old_env).exists()


def test_all_attempts_are_one_run_in_wandb_unless_the_user_says_otherwise(run: RunPaths) -> None:
    told = environment(run)
    assert (told["WANDB_RUN_ID"], told["WANDB_RESUME"]) == ("train-7f3k-512f26", "allow")
    wrapper.write_env(run, {"WANDB_RUN_ID": "mine"})
    assert environment(run)["WANDB_RUN_ID"] == "mine"

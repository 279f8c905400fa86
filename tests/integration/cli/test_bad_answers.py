"""The real command over a host that answers whatever it likes: one message, the verb's own exit code, and never a "bug"."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpurun.cli.app import main
from gpurun.remote import bundle
from tests.support.agent_answers import RUN, sound

LOCAL_SSH = Path(__file__).parents[2] / "support" / "local_ssh.sh"

AGENT = """
import json, os, sys, time
q = json.loads(sys.stdin.readline())
said = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "said")))
reply = said.get(sys.argv[1], '{"ok": false, "error": {"code": "x", "what": "no", "where": "", "next": "", "exit": 125}}')
sys.stdout.write("\\n" + q["nonce"] + "\\n" + reply + "\\n" + said.get(sys.argv[1] + " frames", ""))
sys.stdout.flush()
"""

# A line for each verb that asks a host, and the question that is answered badly.
LINES = {
    "ps": (["ps", "-H", "box"], "ps"),
    "ps -a": (["ps", "-a", "-H", "box", "--json"], "ps"),
    "status": (["status", RUN], "status"),
    "status --json": (["status", RUN, "--json"], "status"),
    "path": (["path", RUN], "status"),
    "logs": (["logs", RUN], "logs"),
    "logs -f": (["logs", "-f", RUN], "logs"),
    "wait": (["wait", RUN], "wait"),
    "stop": (["stop", RUN, "--grace", "1s"], "stop"),
    "rm": (["rm", RUN, "-y"], "rm"),
    "fetch": (["fetch", RUN], "outputs"),
    "fetch --best": (["fetch", RUN, "--best"], "checkpoint"),
    "resume": (["resume", RUN], "resume"),
    "resume asks": (["resume", RUN], "status"),
    "shell": (["shell", RUN, "--", "true"], "shell"),
    "submit": (["submit", "train.py", "-g", "0", "-H", "box"], "prepare"),
    "submit starts": (["submit", "train.py", "-g", "0", "-H", "box"], "start"),
    "push": (["push", "sets", "box:sets"], "data"),
    "data ls": (["data", "ls", "-H", "box"], "data_folders"),
    "data rm": (["data", "rm", "sets", "-H", "box", "-y"], "data_folders"),
    "host ls": (["host", "ls"], "ps"),
    "host check": (["host", "check", "box"], "check"),
    "host check --gpu": (["host", "check", "box", "--gpu"], "facts"),
    "host prepare": (["host", "prepare", "box"], "warm"),
    "host leave": (["host", "leave", "box", "-y"], "ps"),
    "tunnel": (["tunnel", RUN, "-p", "8080"], "tunnel"),
}

# What reports a sick host, and goes on with the others.
REPORTS = ("host ls", "host check")


class Hung(Exception):
    """The command did not end."""


class FakeHost:
    """A laptop that knows one run, on a host whose agent is ours."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.sound = sound()
        self.place = home / ".gpurun/agent" / bundle.current().hash
        self.place.mkdir(parents=True)
        (self.place / "__main__.py").write_text(AGENT)
        config = home / ".config/gpurun"
        config.mkdir(parents=True)
        (config / "hosts.toml").write_text('default = "box"\n[hosts.box]\n')
        project = home / "project"
        (project / "sets").mkdir(parents=True)
        (project / "sets/a").write_text("a")
        (project / "gpurun.toml").write_text("")
        (project / "train.py").write_text("")
        self.says({})

    def says(self, replies: dict[str, str]) -> None:
        every = {verb: json.dumps({"ok": True, "answer": answer}) for verb, answer in self.sound.items()}
        end = json.dumps({"end": self.sound["logs"]["run"]}) + "\n"
        frames = {f"{verb} frames": end for verb in ("logs", "start", "resume")}
        (self.place / "said").write_text(json.dumps({**every, **frames, **replies}))

    def learn(self) -> None:
        """Let the laptop know the run."""
        from gpurun.store import run_store

        shutil.rmtree(self.home / ".local", ignore_errors=True)
        run_store.update([self.sound["status"]["run"]], "box")

    def run(self, line: list[str], seconds: int = 20) -> int:
        def hang(*_: object) -> None:
            raise Hung

        signal.signal(signal.SIGALRM, hang)
        signal.alarm(seconds)
        try:
            return main(line)
        finally:
            signal.alarm(0)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "GPURUN_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.setenv("GPURUN_SSH", str(LOCAL_SSH))
    monkeypatch.setenv("LOGNAME", "ada")
    made = FakeHost(tmp_path)
    monkeypatch.chdir(tmp_path / "project")
    return made


def ok(answer: Any) -> str:
    return json.dumps({"ok": True, "answer": answer})


NO = {"code": "x", "what": "no", "where": "", "next": "", "exit": 125}
Bad = dict[str, Callable[[Any], str]]

NO_ANSWER: Bad = {
    "null": lambda _: "null",
    "a list": lambda _: "[]",
    "nothing": lambda _: "",
    "no JSON": lambda _: "{",
    "nesting": lambda _: '{"ok": true, "answer": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a list as answer": lambda _: ok([]),
    "ok is a text": lambda answer: json.dumps({"ok": "yes", "answer": answer}),
    "an error that is null": lambda _: json.dumps({"ok": False, "error": None}),
    "an error without words": lambda _: json.dumps({"ok": False, "error": {}}),
    "an error that exits 0": lambda _: json.dumps({"ok": False, "error": {**NO, "exit": 0}}),
    "an error that exits 256": lambda _: json.dumps({"ok": False, "error": {**NO, "exit": 256}}),
}

BAD_ANSWER: Bad = {
    "a null answer": lambda _: ok(None),
    "an empty answer": lambda _: ok({}),
    "nulls": lambda answer: ok(dict.fromkeys(answer)),
    "lists": lambda answer: ok({name: [] if not isinstance(value, list) else {} for name, value in answer.items()}),
    "NaN": lambda answer: ok({name: float("nan") for name in answer}),
    "another run": lambda answer: ok(json.loads(json.dumps(answer).replace(RUN, "other-9999"))),
}

# A run that nobody asked for is no fault where all runs are asked for, or none is named.
NAMES_NO_RUN = (
    "ps",
    "ps -a",
    "push",
    "data ls",
    "data rm",
    "host ls",
    "host check",
    "host check --gpu",
    "host prepare",
    "host leave",
    "shell",
    "tunnel",
)


@pytest.mark.parametrize("name", LINES)
def test_bad_answer_is_one_error_that_names_the_host(
    name: str, box: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    line, verb = LINES[name]
    if name == "tunnel":  # to a port of a job that runs
        box.sound["status"]["run"].update(state="running", live=True, ended=None)
    for kind, make in (NO_ANSWER | BAD_ANSWER if name in ("status", "logs") else BAD_ANSWER).items():
        if kind == "another run" and name in NAMES_NO_RUN:
            continue
        box.says({verb: make(box.sound[verb])})
        box.learn()
        code = box.run(line)
        said = capfd.readouterr()
        assert_one_error(f"{name}: {kind}", name, code, said.out + said.err)


def assert_one_error(where: str, name: str, code: int, said: str) -> None:
    assert "bug" not in said, (where, said)
    assert "Traceback" not in said, (where, said)
    assert "box" in said, (where, said)
    if name not in REPORTS:
        assert code in (125, 255), (where, code, said)
        assert len(re.findall("^error: ", said, re.M)) == 1, (where, said)
    elif name == "host check":
        assert code != 0, (where, said)


@pytest.mark.parametrize(("part", "name"), [("home", "type"), ("facts", "disk"), ("facts", "clock")])
def test_check_of_a_host_that_tells_a_part_as_null_names_the_part(
    part: str, name: str, box: FakeHost, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = box.sound["check"]
    box.says({"check": ok({**answer, part: {**answer[part], name: None}})})
    code = box.run(["host", "check", "box"])
    said = capfd.readouterr()
    assert_one_error(part, "host check", code, said.out + said.err)
    assert f"{part}.{name}" in said.out + said.err


def test_run_whose_job_the_host_no_longer_has_is_not_resumed(box: FakeHost, capfd: pytest.CaptureFixture[str]) -> None:
    box.says({"status": ok({**box.sound["status"], "job": None})})
    box.learn()
    code = box.run(["resume", RUN])
    assert_one_error("no job", "resume", code, capfd.readouterr().err)

"""A session that stays open as long as its shells, and the program that attaches a shell to it, on the oldest Python."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.setup import services
from tests.integration.agent.serve.conftest import Make, Program, Served, open_files
from tests.support.waiting import eventually

# Nothing of it is replaced but how long it waits, and the terminals of whoever else works on this machine.
SHORT_TIMEOUTS = """
import sys
sys.path.insert(0, {programs!r})
import shell_service
shell_service.CHECK_INTERVAL = 0.1
shell_service.FIRST_SHELL_TIMEOUT = {first}
shell_service.last_typed = lambda processes: 0.0
sys.exit(shell_service.main())
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(services.PROGRAMS)
    yield importlib.import_module("shell_service")
    for name in ("shell_service", "service_settings"):
        sys.modules.pop(name, None)


class Session:
    def __init__(self, served: Served, python: str, first: float = 60.0) -> None:
        self.served, self.python = served, python
        self.program = served.start(
            "-c", SHORT_TIMEOUTS.format(programs=str(served.programs), first=first), python=python
        )

    def enter(self, *command: str) -> Program:
        """Return once the command is attached to the session."""
        eventually(lambda: "the session is open" in self.program.said)
        shell = self.served.start("attach.py", *command, python=self.python)
        eventually(lambda: self.path in open_files(shell.process.pid))
        return shell

    @property
    def path(self) -> str:
        return str(self.served.sockets / "attached")


def stays(program: Program, seconds: float = 1.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if program.ended:
            return False
        time.sleep(0.05)
    return True


def test_session_ends_with_its_last_shell(serve: Make, python: str) -> None:
    session = Session(serve("shell"), python)
    first, second = session.enter("sleep", "600"), session.enter("sleep", "600")
    first.process.kill()
    first.code()
    assert stays(session.program)
    second.process.kill()
    assert session.program.code() == 0
    assert session.program.said == "the session is open\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["true"], 0),
        (["sh", "-c", "kill -9 $$"], 137),
        (["nowhere"], 127),
    ],
)
def test_session_of_a_recorded_command_ends_with_its_exit_code(
    serve: Make, python: str, command: list[str], code: int
) -> None:
    session = Session(serve("shell"), python)
    eventually(lambda: "the session is open" in session.program.said)
    assert session.served.start("attach.py", "--record", *command, python=python).code() == code
    assert session.program.code() == code


def test_session_of_a_shell_ignores_the_exit_code_of_a_later_command(serve: Make, python: str) -> None:
    session = Session(serve("shell"), python)
    shell = session.enter("sleep", "600")
    assert session.served.start("attach.py", "--record", "false", python=python).code() == 1
    shell.process.kill()
    assert session.program.code() == 0


def test_recorded_command_gets_the_signals_of_its_shell(serve: Make, python: str) -> None:
    session = Session(serve("shell"), python)
    shell = session.enter("--record", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    eventually(lambda: "up" in shell.said)
    shell.process.terminate()
    assert shell.code() == 5
    assert session.program.code() == 5


def test_background_process_of_a_shell_keeps_the_session_open(serve: Make, python: str, tmp_path: Path) -> None:
    session = Session(serve("shell"), python)
    shell = session.enter("sh", "-c", f"sleep 600 & echo $! >{tmp_path}/pid; sleep 0.5")
    assert shell.code() == 0
    assert stays(session.program)
    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert session.program.code() == 0


@pytest.mark.parametrize("early", [True, False])
def test_short_command_ends_the_session(serve: Make, python: str, *, early: bool) -> None:
    """A session for `true` must not wait for the first-shell timeout with its GPUs."""
    served = serve("shell")
    served.sockets.mkdir()
    if early:
        assert served.start("attach.py", "true", python=python).code() == 0
    session = Session(served, python)
    if not early:
        session.served.start("attach.py", "true", python=python).code()
    assert session.program.code() == 0
    assert "no shell was opened" not in session.program.said


def test_session_ends_when_no_shell_is_opened(serve: Make, python: str) -> None:
    session = Session(serve("shell"), python, first=0.3)
    assert session.program.code() == 0
    assert "no shell was opened: the session ends" in session.program.said


def test_idle_prompt_ends_the_session(serve: Make, python: str) -> None:
    session = Session(serve("shell", idle=0.6), python)
    os.mkfifo(session.served.folder / "typed")
    shell = session.enter("sh", "-c", f"read line <{session.served.folder}/typed; true")
    assert session.program.code() == 0
    assert "idle for 0.01 minutes: the session ends" in session.program.said
    assert not shell.ended  # the runtime ends what is left


@pytest.mark.parametrize("command", [["sh", "-c", "sleep 2.5; true"], ["sleep", "2.5"]])
def test_running_command_is_never_idle(serve: Make, python: str, command: list[str]) -> None:
    """In a shell, or instead of one: `gpurun shell -g 1 -- python train.py`."""
    session = Session(serve("shell", idle=0.6), python)
    shell = session.enter(*command)
    assert stays(session.program, 2.0)
    assert shell.code() == 0
    assert session.program.code() == 0
    assert "idle" not in session.program.said


def test_attached_command_keeps_its_exit_code(serve: Make, python: str) -> None:
    session = Session(serve("shell"), python)
    eventually(lambda: "the session is open" in session.program.said)
    shell = session.served.start("attach.py", "sh", "-c", "echo $0 $1; exit 7", "it's", "$(me)", python=python)
    assert shell.code() == 7
    assert shell.said == "it's $(me)\n"


def test_holders_of_a_lock_behind_a_link_are_found(module: Any, tmp_path: Path) -> None:
    """/tmp may be a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    lock = tmp_path / "link/attached"
    assert module.holders(str(lock)) == []
    with lock.open("w"):
        assert module.holders(str(lock)) == [f"/proc/{os.getpid()}"]


def test_last_typed_reads_the_terminals_of_the_session(module: Any) -> None:
    """Other users of the host do not keep the session open."""
    ours, theirs = pty.openpty()
    with (
        subprocess.Popen(["sleep", "60"], stdin=theirs) as shell,
        subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL) as other,
    ):
        os.write(ours, b"x\n")
        os.read(theirs, 10)
        typed = [module.last_typed([f"/proc/{each.pid}"]) for each in (shell, other)]
        assert typed[0] > time.time() - 60  # the kernel tells it to 8 s
        assert typed[1] == 0.0
        for each in (shell, other):
            each.kill()
    os.close(ours)
    os.close(theirs)

"""The first question to a host, asked on a terminal where ssh may ask a person."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurun.demo.host import EmbeddedHost
from tests.lab.terminal import Terminal

# The login shell of a host whose start-up files set the terminal's title and its clipboard.
EVIL = r"""#!/bin/sh
printf 'noise \033]0;evil\007\033]52;c;ZXZpbA==\007\n' >&2
exec sh "$@"
"""


@pytest.fixture
def host() -> Iterator[EmbeddedHost]:
    with tempfile.TemporaryDirectory(prefix="gpurun-host-") as folder:
        shell = Path(folder) / "evil"
        shell.write_text(EVIL)
        shell.chmod(0o755)
        with EmbeddedHost(Path(folder) / "host", shell=str(shell)) as host:
            yield host


@pytest.fixture
def environment(host: EmbeddedHost) -> Iterator[dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GPURUN_", "XDG_"))}
    with tempfile.TemporaryDirectory(prefix="gpurun-", dir="/tmp") as home:  # short: sockets lie below it
        places = {"HOME": home, "XDG_RUNTIME_DIR": home, "GPURUN_SSH": shlex.join(host.ssh_command)}
        yield {**kept, **places, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[3])}
        for socket in Path(home).glob("gpurun/ssh/*"):
            argv = ["ssh", "-F/dev/null", f"-oControlPath={socket}", "-O", "exit", "x"]
            subprocess.run(argv, capture_output=True, check=False)


def ps(environment: dict[str, str]) -> str:
    argv = [sys.executable, "-m", "gpurun", "ps", "-H", "demo"]
    with Terminal(argv, env=environment, cwd=Path(environment["HOME"])) as person:
        assert person.wait() == 0, person.shown
        return person.shown


def test_what_the_hosts_shell_prints_at_the_login_does_not_reach_the_terminal(environment: dict[str, str]) -> None:
    cold, warm = ps(environment), ps(environment)
    assert "no live runs" in cold
    assert "no live runs" in warm
    assert "\x1b]" not in cold + warm
    assert "noise" not in cold + warm


def test_what_ssh_says_of_a_failed_login_is_seen(host: EmbeddedHost, environment: dict[str, str]) -> None:
    (host.ssh_config.parent / "known_hosts").write_text("")
    argv = [sys.executable, "-m", "gpurun", "ps", "-H", "demo"]
    with Terminal(argv, env=environment, cwd=Path(environment["HOME"])) as person:
        person.expect("continue connecting")
        person.type("no")
        assert person.wait() == 255
    assert "Host key verification failed." in person.shown
    assert "the key of demo is not known yet" in " ".join(person.shown.split())

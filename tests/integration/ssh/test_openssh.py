"""How ssh is called, and where its sockets lie."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gpurun.ssh.openssh import Address, Connection, quote
from tests.unit.ssh.test_openssh import runtime_dir

__all__ = ["runtime_dir"]

HOSTILE = ["plain", "two words", "it's", '"quoted"', "$(touch pwned)", "`id`", "-leading", "a;b|c&d", "star*", "!bang"]


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_quoted_path_arrives_as_it_is(shell: str, name: str, tmp_path: Path) -> None:
    for path, expected in ((f"~/{name}", f"{tmp_path}/{name}"), (f"/{name}", f"/{name}")):
        said = subprocess.run(
            [shell, "-c", f"printf %s {quote(path)}"],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        assert said.stdout.decode() == expected


def test_ssh_takes_no_leave_on_the_users_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = tmp_path / "said"
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{said}\nexit 3\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("GPURUN_SSH", f"{tmp_path}/ssh -F elsewhere")
    assert Connection("box", Address("gpubox")).attended("exec sh") == 3
    argv = said.read_text().splitlines()
    assert argv[:4] == ["-F", "elsewhere", "-oLogLevel=ERROR", "-t"]
    assert argv[-2:] == ["gpubox", "exec sh"]

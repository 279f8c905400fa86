"""The arguments of ssh, and the paths of its sockets."""

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
def test_quoted_path_arrives_unchanged(shell: str, name: str, tmp_path: Path) -> None:
    for path, expected in ((f"~/{name}", f"{tmp_path}/{name}"), (f"/{name}", f"/{name}")):
        completed = subprocess.run(
            [shell, "-c", f"printf %s {quote(path)}"],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        assert completed.stdout.decode() == expected


def test_attended_command_prints_no_message_of_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = tmp_path / "arguments"
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{arguments}\nexit 3\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("GPURUN_SSH", f"{tmp_path}/ssh -F elsewhere")
    assert Connection("box", Address("gpubox")).attended("exec sh") == 3
    argv = arguments.read_text().splitlines()
    assert argv[:4] == ["-F", "elsewhere", "-oLogLevel=ERROR", "-t"]
    assert argv[-2:] == ["gpubox", "exec sh"]

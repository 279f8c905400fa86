"""What `gpurun tunnel` prints."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from gpurun.tunnel import registry
from tests.integration.tunnel.conftest import BOARD, Start, start
from tests.support.waiting import eventually
from tests.unit.cli.test_tunnel import Capture, gpurun, screen

__all__ = ["screen", "start"]


def test_list_prints_a_line_for_each_listener(start: Start, capsys: Capture) -> None:
    start("abcd", "box", since=1.0)
    start("efgh", "other", since=2.0)
    assert gpurun("--list") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["TUNNEL", "HOST", "STATE", "WHAT", "WHERE"],
        ["abcd", "box", "up", "TensorBoard", BOARD.url],
        ["efgh", "other", "up", "TensorBoard", BOARD.url],
    ]


def test_list_as_json(start: Start, capsys: Capture) -> None:
    process = start("abcd", "box", since=1.0)
    assert gpurun("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "id": "abcd",
            "host": "box",
            "pid": process.pid,
            "since": 1.0,
            "state": "up",
            "detached": False,
            "listeners": [{"name": "TensorBoard", "url": BOARD.url, "port": 12345, "run": "tensorboard-1111"}],
        }
    ]
    assert gpurun("--list", "--json") == 0


def test_close_ends_one_tunnel_and_leaves_the_other(start: Start) -> None:
    closed = start("abcd")
    start("efgh")
    assert gpurun("--close", "abcd") == 0
    assert closed.wait(60) == 0
    assert [tunnel.id for tunnel in registry.live()] == ["efgh"]


def test_all_closes_every_tunnel(start: Start) -> None:
    processes = [start("abcd"), start("efgh")]
    assert gpurun("--close", "--all") == gpurun("--close") == 2, "--close needs an ID"
    assert gpurun("--all") == 0
    assert [process.wait(60) for process in processes] == [0, 0]
    assert registry.live() == []


def test_close_of_a_tunnel_that_stays_open_is_a_failure(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(registry, "CLOSE_TIMEOUT", 0.2)
    start("abcd", ignores_term=True)
    assert gpurun("--close", "abcd") == words.EXIT_FAILED
    assert "still open after 0.2 s: abcd" in capsys.readouterr().err


def test_browser_that_keeps_running_does_not_block(screen: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`webbrowser` waits for a text browser or a script."""
    script, lives = tmp_path / "browser", tmp_path / "lives"
    script.write_text(f"#!/bin/sh\necho $$ > {lives}.new; mv {lives}.new {lives}; exec sleep 300\n")
    script.chmod(0o755)
    run = (
        "from gpurun.cli.tunnel_shown import open_in_browser; "
        "open_in_browser(['http://127.0.0.1:9/']); print('goes on', flush=True); input()"
    )
    env = {**os.environ, "BROWSER": str(script), "DISPLAY": ":0"}
    with subprocess.Popen(
        [sys.executable, "-c", run], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 20)
            assert ready
            eventually(lives.exists)
        finally:
            os.kill(int(lives.read_text()), signal.SIGKILL)
            process.stdin.close()

"""What `gpurun tunnel` says."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.cli import app
from gpurun.cli.tunnel_shown import Shown, open_in_browser
from gpurun.config import hosts
from gpurun.config.hosts import HostProfile
from gpurun.remote import wire
from gpurun.tunnel import registry
from gpurun.tunnel.link import Target
from gpurun.tunnel.plan import Found, Way
from gpurun.tunnel.registry import OpenDoor, Tunnel
from tests.unit.tunnel.conftest import BOARD, Start, start

__all__ = ["start"]

Capture = pytest.CaptureFixture[str]


def gpurun(*words: str) -> int:
    return app.main(["tunnel", *words])


def test_without_tunnels_the_list_says_so(home: Path, capsys: Capture) -> None:
    assert gpurun("--list") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no tunnel is open\n")


def test_the_list_has_a_line_for_each_door(start: Start, capsys: Capture) -> None:
    start("abcd", "box", since=1.0)
    start("efgh", "other", since=2.0)
    assert gpurun("--list") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["TUNNEL", "HOST", "STATE", "WHAT", "WHERE"],
        ["abcd", "box", "up", "TensorBoard", BOARD.url],
        ["efgh", "other", "up", "TensorBoard", BOARD.url],
    ]


def test_on_a_narrow_terminal_addresses_stand_below_their_tunnel(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    lab = OpenDoor("Jupyter", f"http://127.0.0.1:54321/lab?token={'0' * 32}", 54321, "jupyter-1111")
    entry = registry.Entry(Tunnel("abcd", "gpubox.example.org", state=registry.UP, doors=(BOARD, lab)))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert gpurun("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    entry.close()
    assert lines == ["abcd  gpubox.example.org  up", f"  TensorBoard  {BOARD.url}", f"  Jupyter      {lab.url}"]
    assert max(map(len, lines)) <= 80


def test_one_that_is_just_opening_is_listed_too(home: Path, capsys: Capture) -> None:
    entry = registry.Entry(Tunnel("abcd", "box"))
    assert gpurun("--list") == 0
    assert "opening" in capsys.readouterr().out
    entry.close()


def test_the_list_as_json(start: Start, capsys: Capture) -> None:
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
            "doors": [{"name": "TensorBoard", "url": BOARD.url, "port": 12345, "run": "tensorboard-1111"}],
        }
    ]
    assert gpurun("--list", "--json") == 0


def test_an_empty_list_is_json_too(home: Path, capsys: Capture) -> None:
    assert gpurun("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_one_is_closed_and_the_other_stays(start: Start) -> None:
    closed = start("abcd")
    start("efgh")
    assert gpurun("--close", "abcd") == 0
    assert closed.wait(20) == 0
    assert [one.id for one in registry.live()] == ["efgh"]


def test_all_are_closed(start: Start) -> None:
    processes = [start("abcd"), start("efgh")]
    assert gpurun("--close", "--all") == gpurun("--close") == 2, "--close wants to know which"
    assert gpurun("--all") == 0
    assert [process.wait(20) for process in processes] == [0, 0]
    assert registry.live() == []


def test_who_forgets_the_id_is_told_where_it_stands(home: Path, capsys: Capture) -> None:
    assert gpurun("--close") == 2
    assert "next: gpurun tunnel --list shows them; gpurun tunnel --all closes all" in capsys.readouterr().err


def test_closing_what_is_not_open(home: Path, capsys: Capture) -> None:
    assert gpurun("--close", "abcd") == 2
    said = capsys.readouterr().err
    assert "no tunnel 'abcd' is open" in said
    assert "next: gpurun tunnel --list" in said


def test_one_that_stays_is_told(start: Start, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(registry, "CLOSES_IN", 0.2)
    start("abcd", deaf=True)
    assert gpurun("--close", "abcd") == words.EXIT_FAILED
    assert "still there after 0.2 s: abcd" in capsys.readouterr().err


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.add("box", {})
    (home / "digits").mkdir()
    (home / "digits/gpurun.toml").touch()
    monkeypatch.chdir(home / "digits")


@pytest.mark.parametrize("port", ["x", "0", "99999", "1:2:3", ""])
def test_a_wrong_port_is_wrong_use(project: None, port: str, capsys: Capture) -> None:
    assert gpurun("-p", port) == 2
    said = capsys.readouterr().err
    assert "error: -p: " in said
    assert "next: -p 8080, or -p 9000:8080" in said


def test_a_run_that_nobody_knows(project: None, capsys: Capture) -> None:
    assert gpurun("imagenet", "-p", "8080") == 2
    assert "imagenet" in capsys.readouterr().err


def test_no_host_at_all(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(home)
    assert gpurun() == 2
    assert "gpurun host add" in capsys.readouterr().err


RECORD: dict[str, Any] = {"id": "tensorboard-1111", "state": words.RUNNING}
WAY = Way(Target("TensorBoard", "tensorboard-1111"), 12345, "TensorBoard of digits", RECORD)
PORT = Way(Target("port 8080", "train-7f3k", 8080), 8080, "port 8080 of train-7f3k")
TUNNEL = Tunnel("abcd", "box", 4242, 1.0, registry.UP, detached=False, doors=(BOARD,))


def url_of(door: OpenDoor) -> str:
    return door.url


def shown(*ways: Way, **options: bool) -> Shown:
    found = Found(wire.connect(HostProfile("box"), interactive=False), ways or (WAY,))
    return Shown(found, **{"open_browser": False, "as_json": False, "detached": False, **options})


def test_an_open_tunnel_is_an_address_and_how_to_end_it(capsys: Capture) -> None:
    shown().opened(TUNNEL, url_of)
    said = capsys.readouterr()
    assert said.out == f"TensorBoard  {BOARD.url}\n"
    assert "Ctrl-C closes the tunnel, and what runs there goes on" in said.err
    assert "gpurun stop tensorboard-1111" in said.err


def test_a_detached_one_says_how_it_is_closed(capsys: Capture) -> None:
    shown(detached=True).opened(TUNNEL, url_of)
    said = capsys.readouterr().err
    assert "gpurun tunnel --close abcd" in said
    assert "Ctrl-C" not in said


def test_a_port_that_was_taken_is_told(capsys: Capture) -> None:
    moved = OpenDoor("port 8080", "http://127.0.0.1:8081/", 8081, "train-7f3k")
    shown(WAY, PORT).opened(replace(TUNNEL, doors=(BOARD, moved)), url_of)
    said = capsys.readouterr()
    assert said.out == f"TensorBoard  {BOARD.url}\nport 8080    {moved.url}\n"
    assert said.err.count("is taken here") == 1
    assert "port 8080 is taken here, so port 8080 is at 8081" in said.err
    assert "gpurun stop train-7f3k" not in said.err, "a tunnel to a training is not how to end it"


def test_as_json_there_is_one_document_and_no_talk(capsys: Capture) -> None:
    shown(as_json=True).opened(TUNNEL, url_of)
    said = capsys.readouterr()
    assert json.loads(said.out)["doors"][0]["url"] == BOARD.url
    assert said.err == ""


def test_each_loss_is_told_once_and_each_return(capsys: Capture) -> None:
    one = shown()
    for _ in range(3):
        one.lost("the connection broke off")
    one.back()
    one.lost("no answer within 3 s")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "lost contact with box (the connection broke off); trying again" in lines[0]
    assert "back on box" in lines[1]


@pytest.mark.parametrize(
    ("state", "logs"), [(words.SUCCEEDED, False), (words.STOPPED, False), (words.FAILED, True), (words.LOST, True)]
)
def test_the_end_of_a_run_is_told(state: str, capsys: Capture, *, logs: bool) -> None:
    record = {**RECORD, "state": state, "exit_code": 0, "reason": "exit", "message": None, "started": 1.0, "ended": 2.0}
    shown().state(record)
    said = capsys.readouterr().err
    assert "tensorboard-1111" in said
    assert ("gpurun logs tensorboard-1111" in said) is logs


def test_a_run_that_runs_is_no_news(capsys: Capture) -> None:
    shown().state(RECORD)
    assert capsys.readouterr().err == ""


def test_what_other_users_can_reach_is_said_plainly(capsys: Capture) -> None:
    shown().exposed()
    said = capsys.readouterr().err
    assert "other users of that host can reach" in said
    assert "AllowStreamLocalForwarding" in said


class Browser:
    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.opened: list[str] = []

    def __call__(self, url: str) -> bool:
        self.opened.append(url)
        return self.works


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A laptop without any sign of a screen, until a test gives it one."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return monkeypatch


@pytest.mark.parametrize("far", [True, False])
def test_without_a_screen_no_browser_is_tried(screen: pytest.MonkeyPatch, capsys: Capture, *, far: bool) -> None:
    """One on the terminal (lynx, w3m) would take it over."""
    browser = Browser(works=True)
    screen.setattr("webbrowser.open", browser)
    if far:
        screen.setenv("SSH_CONNECTION", "1 2 3 4")
    open_in_browser([BOARD.url])
    assert browser.opened == []
    said = capsys.readouterr().err
    assert "open the address yourself" in said
    assert ("SSH session" in said) is far


@pytest.mark.parametrize("sign", ["DISPLAY", "WAYLAND_DISPLAY", "darwin"])
def test_on_a_screen_each_page_is_opened(screen: pytest.MonkeyPatch, sign: str, capsys: Capture) -> None:
    browser = Browser(works=True)
    screen.setattr("webbrowser.open", browser)
    if sign == "darwin":
        screen.setattr("sys.platform", sign)
    else:
        screen.setenv(sign, ":0")
    shown(open_browser=True).opened(TUNNEL, lambda door: f"http://127.0.0.1:{door.port}/once")
    assert browser.opened == ["http://127.0.0.1:12345/once"]


def test_a_browser_that_stays_holds_nothing_up(screen: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A text browser, or a script: `webbrowser` waits for it."""
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
            assert lives.exists()
        finally:
            os.kill(int(lives.read_text()), signal.SIGKILL)
            process.stdin.close()


def test_a_browser_that_does_not_start_is_told(screen: pytest.MonkeyPatch, capsys: Capture) -> None:
    screen.setattr("webbrowser.open", Browser(works=False))
    screen.setenv("DISPLAY", ":0")
    open_in_browser([BOARD.url])
    assert "no browser could be started: open the address yourself" in capsys.readouterr().err

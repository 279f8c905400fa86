"""What `gpurun tunnel` prints."""

from __future__ import annotations

import json
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
from gpurun.tunnel.plan import Route, Routes
from gpurun.tunnel.registry import OpenListener, Tunnel
from tests.integration.tunnel.conftest import BOARD, start
from tests.support.part import part

__all__ = ["start"]

Capture = pytest.CaptureFixture[str]


def gpurun(*words: str) -> int:
    return app.main(["tunnel", *words])


def test_list_without_tunnels_prints_a_note(home: Path, capsys: Capture) -> None:
    assert gpurun("--list") == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "no tunnel is open\n")


def test_list_on_a_narrow_terminal_prints_urls_below_their_tunnel(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    lab = OpenListener("Jupyter", f"http://127.0.0.1:54321/lab?token={'0' * 32}", 54321, "jupyter-1111")
    entry = registry.Entry(Tunnel("abcd", "gpubox.example.org", state=registry.UP, listeners=(BOARD, lab)))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert gpurun("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    entry.close()
    assert lines == ["abcd  gpubox.example.org  up", f"  TensorBoard  {BOARD.url}", f"  Jupyter      {lab.url}"]
    assert max(map(len, lines)) <= 80


def test_list_shows_a_tunnel_that_is_opening(home: Path, capsys: Capture) -> None:
    entry = registry.Entry(Tunnel("abcd", "box"))
    assert gpurun("--list") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["abcd", "box", "connecting", "opening"]
    entry.close()


def test_empty_list_as_json(home: Path, capsys: Capture) -> None:
    assert gpurun("--list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_close_without_an_id_explains_where_to_find_it(home: Path, capsys: Capture) -> None:
    assert gpurun("--close") == 2
    assert "next: gpurun tunnel --list shows them; gpurun tunnel --all closes all" in capsys.readouterr().err


def test_close_of_an_unknown_id_is_an_error(home: Path, capsys: Capture) -> None:
    assert gpurun("--close", "abcd") == 2
    printed = capsys.readouterr().err
    assert "no tunnel 'abcd' is open" in printed
    assert "next: gpurun tunnel --list" in printed


@pytest.fixture
def project(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.add("box", {})
    (home / "digits").mkdir()
    (home / "digits/gpurun.toml").touch()
    monkeypatch.chdir(home / "digits")


@pytest.mark.parametrize("port", ["x", "0", "99999", "1:2:3", ""])
def test_invalid_port_is_a_usage_error(project: None, port: str, capsys: Capture) -> None:
    assert gpurun("-p", port) == 2
    printed = capsys.readouterr().err
    assert "error: -p: " in printed
    assert "next: -p 8080, or -p 9000:8080" in printed


def test_unknown_run_is_a_usage_error(project: None, capsys: Capture) -> None:
    assert gpurun("imagenet", "-p", "8080") == 2
    assert "imagenet" in capsys.readouterr().err


def test_tunnel_without_a_host_is_a_usage_error(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(home)
    assert gpurun() == 2
    assert "gpurun host add" in capsys.readouterr().err


RECORD: Any = {"id": "tensorboard-1111", "state": words.RUNNING}
ROUTE = Route(Target("TensorBoard", "tensorboard-1111"), 12345, "TensorBoard of digits", RECORD)
PORT = Route(Target("port 8080", "train-7f3k", 8080), 8080, "port 8080 of train-7f3k")
TUNNEL = Tunnel("abcd", "box", 4242, 1.0, registry.UP, detached=False, listeners=(BOARD,))


def url_of(listener: OpenListener) -> str:
    return listener.url


def shown(*chosen: Route, **options: bool) -> Shown:
    routes = Routes(wire.connect(HostProfile("box"), interactive=False), chosen or (ROUTE,))
    return Shown(routes, **{"open_browser": False, "as_json": False, "detached": False, **options})


def test_open_tunnel_prints_its_url_and_how_to_close_it(capsys: Capture) -> None:
    shown().opened(TUNNEL, url_of)
    printed = capsys.readouterr()
    assert printed.out == f"TensorBoard  {BOARD.url}\n"
    assert "Ctrl-C closes the tunnel, and the runs on the host continue" in printed.err
    assert "gpurun stop tensorboard-1111" in printed.err


def test_detached_tunnel_prints_how_to_close_it(capsys: Capture) -> None:
    shown(detached=True).opened(TUNNEL, url_of)
    printed = capsys.readouterr().err
    assert "gpurun tunnel --close abcd" in printed
    assert "Ctrl-C" not in printed


def test_port_in_use_is_reported(capsys: Capture) -> None:
    moved = OpenListener("port 8080", "http://127.0.0.1:8081/", 8081, "train-7f3k")
    shown(ROUTE, PORT).opened(replace(TUNNEL, listeners=(BOARD, moved)), url_of)
    printed = capsys.readouterr()
    assert printed.out == f"TensorBoard  {BOARD.url}\nport 8080    {moved.url}\n"
    assert printed.err.count("is in use on this laptop") == 1
    assert "port 8080 is in use on this laptop, so port 8080 is at 8081" in printed.err
    assert "gpurun stop train-7f3k" not in printed.err, "closing a tunnel must not suggest ending a training"


def test_json_output_is_one_document_without_messages(capsys: Capture) -> None:
    shown(as_json=True).opened(TUNNEL, url_of)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["listeners"][0]["url"] == BOARD.url
    assert printed.err == ""


def test_lost_contact_is_reported_once_and_so_is_each_return(capsys: Capture) -> None:
    observer = shown()
    for _ in range(3):
        observer.lost("the connection broke off")
    observer.back()
    observer.lost("no answer within 3 s")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "lost contact with box (the connection broke off); reconnecting" in lines[0]
    assert "reconnected to box" in lines[1]


@pytest.mark.parametrize(
    ("state", "logs"), [(words.SUCCEEDED, False), (words.STOPPED, False), (words.FAILED, True), (words.LOST, True)]
)
def test_end_of_a_run_is_reported(state: str, capsys: Capture, *, logs: bool) -> None:
    record = {**RECORD, "state": state, "exit_code": 0, "reason": "exit", "message": None, "started": 1.0, "ended": 2.0}
    shown().state(part(record))
    printed = capsys.readouterr().err
    assert "tensorboard-1111" in printed
    assert ("gpurun logs tensorboard-1111" in printed) is logs


def test_running_run_is_not_reported(capsys: Capture) -> None:
    shown().state(RECORD)
    assert capsys.readouterr().err == ""


def test_ports_that_other_users_can_reach_are_reported(capsys: Capture) -> None:
    shown().exposed()
    printed = capsys.readouterr().err
    assert "other users of that host can reach" in printed
    assert "AllowStreamLocalForwarding" in printed


class Browser:
    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.opened: list[str] = []

    def __call__(self, url: str) -> bool:
        self.opened.append(url)
        return self.works


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A laptop without any sign of a screen; the test may add one."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return monkeypatch


@pytest.mark.parametrize("is_remote", [True, False])
def test_no_browser_is_opened_without_a_screen(screen: pytest.MonkeyPatch, capsys: Capture, *, is_remote: bool) -> None:
    """A text browser (lynx, w3m) would take over the terminal."""
    browser = Browser(works=True)
    screen.setattr("webbrowser.open", browser)
    if is_remote:
        screen.setenv("SSH_CONNECTION", "1 2 3 4")
    open_in_browser([BOARD.url])
    assert browser.opened == []
    printed = capsys.readouterr().err
    assert "open the URL yourself" in printed
    assert ("SSH session" in printed) is is_remote


@pytest.mark.parametrize("sign", ["DISPLAY", "WAYLAND_DISPLAY", "darwin"])
def test_browser_opens_each_page_on_a_screen(screen: pytest.MonkeyPatch, sign: str, capsys: Capture) -> None:
    browser = Browser(works=True)
    screen.setattr("webbrowser.open", browser)
    if sign == "darwin":
        screen.setattr("sys.platform", sign)
    else:
        screen.setenv(sign, ":0")
    shown(open_browser=True).opened(TUNNEL, lambda listener: f"http://127.0.0.1:{listener.port}/once")
    assert browser.opened == ["http://127.0.0.1:12345/once"]


def test_browser_that_does_not_start_is_reported(screen: pytest.MonkeyPatch, capsys: Capture) -> None:
    screen.setattr("webbrowser.open", Browser(works=False))
    screen.setenv("DISPLAY", ":0")
    open_in_browser([BOARD.url])
    assert "no browser could be started: open the URL yourself" in capsys.readouterr().err

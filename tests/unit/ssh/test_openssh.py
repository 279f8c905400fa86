"""The arguments of ssh, and the paths of its sockets."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from gpurun.errors import GpurunError, UsageError
from gpurun.ssh import openssh
from gpurun.ssh.openssh import Address, Connection


@pytest.fixture(autouse=True)
def runtime_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GPURUN_SSH", raising=False)
    return folder


def test_argv_overrides_the_users_configuration(runtime_dir: Path) -> None:
    connection = Connection("box", Address("1.2.3.4", "root", 34567, "~/.ssh/rent"), interactive=False)
    assert connection.argv("true") == [
        "ssh",
        "-T",
        "-oControlMaster=auto",
        "-oControlPersist=600",
        f"-oControlPath={connection.control_path}",
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=ask",
        "-oFingerprintHash=sha256",
        "-oConnectTimeout=10",
        "-oServerAliveInterval=5",
        "-oServerAliveCountMax=3",
        "-oRemoteCommand=none",
        "-oPermitLocalCommand=no",
        "-oClearAllForwardings=yes",
        "-oTunnel=no",
        "-oForwardX11=no",
        "-oForwardAgent=no",
        *("-l", "root", "-p", "34567", "-i", str(runtime_dir.parent / ".ssh/rent")),
        "--",
        "1.2.3.4",
        "true",
    ]


def test_batch_mode_is_off_when_the_user_can_be_prompted() -> None:
    assert "-oBatchMode=no" in Connection("box", Address("box"), interactive=True).argv("true")


def test_gpurun_ssh_names_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPURUN_SSH", "ssh -F '/tmp/my config'")
    connection = Connection("box", Address("box"), interactive=False)
    assert connection.argv("true")[:4] == ["ssh", "-F", "/tmp/my config", "-T"]
    assert connection.control_argv("check")[:3] == ["ssh", "-F/dev/null", f"-oControlPath={connection.control_path}"]


def test_rsh_has_the_same_options_as_argv() -> None:
    connection = Connection("box", Address("fe80::1", "ada", 2222), interactive=False)
    assert shlex.split(connection.rsh()) == connection.argv("")[:-3]
    assert connection.destination == "[fe80::1]"


def test_agent_is_forwarded_over_a_master_of_its_own() -> None:
    connection = Connection("box", Address("box"), interactive=False)
    forwarding = connection.with_agent()
    assert "-oForwardAgent=yes" in forwarding.argv("true")
    assert forwarding.control_path != connection.control_path


def test_each_way_to_connect_has_its_own_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Connection("box", Address("box"), interactive=False)
    assert one.control_path == Connection("other name", Address("box"), interactive=True).control_path
    assert one.control_path != Connection("box", Address("box", port=2)).control_path
    before = one.control_path
    monkeypatch.setenv("GPURUN_SSH", "ssh -F elsewhere")
    assert one.control_path != before


def test_edited_configuration_changes_the_socket(tmp_path: Path) -> None:
    connection = Connection("box", Address("box"), interactive=False)
    before = connection.control_path
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/config").write_text("Host box\n  HostName elsewhere\n")
    assert connection.control_path != before


def test_long_runtime_directory_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("long" * 20)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    socket = Connection("box", Address("box"), interactive=False).control_path
    assert socket.parent == Path(f"/tmp/gpurun-{os.getuid()}/ssh")
    assert len(str(socket)) + 17 < 104


def test_folder_that_others_can_enter_is_not_used(runtime_dir: Path) -> None:
    (runtime_dir / "gpurun").mkdir(mode=0o755)
    assert openssh.socket_folder() == Path(f"/tmp/gpurun-{os.getuid()}/ssh")


def test_socket_folder_without_a_private_folder_is_an_error(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # a user whose folder belongs to somebody else
    Path("/tmp/gpurun-4000000000").mkdir(mode=0o700, exist_ok=True)
    try:
        with pytest.raises(GpurunError, match="no private folder"):
            openssh.socket_folder()
    finally:
        Path("/tmp/gpurun-4000000000").rmdir()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("box", Address("box")),
        ("ada@box", Address("box", "ada")),
        ("ada@box:2222", Address("box", "ada", 2222)),
        ("ada@lab@box", Address("box", "ada@lab")),
        ("[fe80::1]:22", Address("fe80::1", None, 22)),
        ("fe80::1", Address("fe80::1")),
        ("1.2.3.4:34567", Address("1.2.3.4", None, 34567)),
    ],
)
def test_parse_address(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", "box:", "box:ssh", "box:0", "box:65536", "-oProxyCommand=x", "a b", "-l@box"])
def test_parse_of_an_invalid_address_is_an_error(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)

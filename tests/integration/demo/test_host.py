"""The embedded host, used by the real ssh and rsync."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gpurun.demo import processes
from gpurun.demo.host import MARK, EmbeddedHost
from tests.support.waiting import eventually


def ssh(
    host: EmbeddedHost, *command: str, options: tuple[str, ...] = (), stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [*host.ssh_command, *options, host.alias, *command],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def alive(pid: int) -> bool:
    """Return whether the process runs and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pid_in(file: Path) -> int:
    eventually(lambda: file.exists() and file.read_text().endswith("\n"))
    return int(file.read_text())


@pytest.fixture
def echo_port() -> Iterator[int]:
    """Return the port of a TCP service that sends back the first bytes it gets, in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_answer_once, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _answer_once(server: socket.socket) -> None:
    peer, _ = server.accept()
    with peer:
        peer.sendall(peer.recv(100).upper())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _ask(address: str | tuple[str, int], family: socket.AddressFamily) -> bytes:
    with socket.socket(family) as client:
        eventually(lambda: client.connect_ex(address) == 0)
        client.sendall(b"hello")
        return client.recv(100)


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_exit_code_and_both_streams_are_returned(embedded_host: EmbeddedHost, code: int) -> None:
    assert ssh(embedded_host, f"echo out; echo err >&2; exit {code}") == (code, b"out\n", b"err\n")


def test_death_by_a_signal_is_reported(embedded_host: EmbeddedHost) -> None:
    code, _, _ = ssh(embedded_host, "kill -TERM $$")
    assert code == 255  # what ssh says when it was given a signal and no exit status


def test_stdin_is_raw_and_ends(embedded_host: EmbeddedHost) -> None:
    data = bytes(range(256)) * 10_000
    assert ssh(embedded_host, "cat", stdin=data) == (0, data, b"")


def test_command_that_reads_nothing_ends(embedded_host: EmbeddedHost) -> None:
    assert ssh(embedded_host, "exit 4", stdin=bytes(20_000_000))[0] == 4


def test_home_and_python_are_those_of_the_host(embedded_host: EmbeddedHost) -> None:
    _, out, _ = ssh(embedded_host, 'echo "$HOME"; pwd; python3 -c "import sys; print(sys.executable)"')
    home, cwd, python = out.decode().splitlines()
    assert Path(home) == Path(cwd) == embedded_host.home
    assert Path(python).parent == Path(sys.executable).parent


def test_users_ssh_files_are_not_used(embedded_host: EmbeddedHost) -> None:
    seen = subprocess.run(
        [*embedded_host.ssh_command, "-v", embedded_host.alias, "true"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(Path.home() / ".ssh") not in seen.stderr
    for name in ("host_key", "user_key"):
        assert (embedded_host.ssh_config.parent / name).stat().st_mode & 0o077 == 0


def test_other_user_key_is_refused(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    # The first value of an option wins, and files on the command line come before those of the configuration.
    config = tmp_path / "config"
    config.write_text(
        embedded_host.ssh_config.read_text().replace(
            str(embedded_host.ssh_config.parent / "user_key"), str(tmp_path / "key")
        )
    )
    done = subprocess.run(
        ["ssh", "-F", str(config), "-oBatchMode=yes", embedded_host.alias, "true"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 255
    assert b"Permission denied" in done.stderr


def test_changed_host_key_is_refused(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    with EmbeddedHost(tmp_path / "other") as other:
        known = (other.ssh_config.parent / "known_hosts").read_text().split()[1:]
    stranger = tmp_path / "known_hosts"
    stranger.write_text(f"[127.0.0.1]:{embedded_host.port} {' '.join(known)}\n")
    code, _, err = ssh(embedded_host, "true", options=(f"-oUserKnownHostsFile={stranger}",))
    assert code == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in err


def test_300_mb_are_copied_unchanged_in_both_directions(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    with (there / "big").open("wb") as file:
        for _ in range(30):
            file.write(os.urandom(10_000_000))
    rsync = ["rsync", "-a", "-e", shlex.join(embedded_host.ssh_command)]
    subprocess.run([*rsync, f"{there}/", f"{embedded_host.alias}:big/"], check=True)
    subprocess.run([*rsync, f"{embedded_host.alias}:big/", f"{back}/"], check=True)
    subprocess.run(["cmp", str(there / "big"), str(back / "big")], check=True)
    assert ssh(embedded_host, "rm -r big")[0] == 0


def test_output_before_an_exit_is_complete(embedded_host: EmbeddedHost) -> None:
    code, out, _ = ssh(embedded_host, "head -c 50000000 /dev/zero; exit 7")
    assert (code, len(out)) == (7, 50_000_000)


def test_slow_reader_gets_everything(embedded_host: EmbeddedHost) -> None:
    with subprocess.Popen(
        [*embedded_host.ssh_command, embedded_host.alias, "head -c 20000000 /dev/zero"],
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        assert ssh(embedded_host, "true")[0] == 0  # nobody else waits for it
        assert len(reader.stdout.read()) == 20_000_000


def test_many_sessions_share_one_connection(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    master = ("-oControlMaster=auto", f"-oControlPath={tmp_path}/m", "-oControlPersist=60")
    try:
        assert ssh(embedded_host, "echo first", options=master)[1] == b"first\n"
        commands = [
            subprocess.Popen(
                [
                    *embedded_host.ssh_command,
                    *master,
                    embedded_host.alias,
                    f"sleep 0.5; echo $SSH_CLIENT; exit {n}",
                ],
                stdout=subprocess.PIPE,
            )
            for n in range(8)
        ]
        started = time.monotonic()
        peers = {command.communicate()[0] for command in commands}
        assert [command.returncode for command in commands] == list(range(8))
        assert len(peers) == 1
        assert time.monotonic() - started < 3
    finally:
        ssh(embedded_host, options=(*master, "-O", "exit"))


def test_port_is_forwarded(embedded_host: EmbeddedHost, echo_port: int) -> None:
    port = _free_port()
    forward = [
        *embedded_host.ssh_command,
        "-N",
        "-L",
        f"127.0.0.1:{port}:127.0.0.1:{echo_port}",
        embedded_host.alias,
    ]
    with subprocess.Popen(forward) as tunnel:
        try:
            assert _ask(("127.0.0.1", port), socket.AF_INET) == b"HELLO"
        finally:
            tunnel.terminate()


def test_unix_socket_is_forwarded(embedded_host: EmbeddedHost) -> None:
    there, here = embedded_host.home / "there.sock", embedded_host.workdir / "here.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(there))
        server.listen()
        threading.Thread(target=_answer_once, args=(server,), daemon=True).start()
        with subprocess.Popen(
            [*embedded_host.ssh_command, "-N", "-L", f"{here}:{there}", embedded_host.alias]
        ) as tunnel:
            try:
                eventually(here.exists)
                assert _ask(str(here), socket.AF_UNIX) == b"HELLO"
            finally:
                tunnel.terminate()


def test_host_can_forward_only_ports(tmp_path: Path, echo_port: int) -> None:
    with EmbeddedHost(tmp_path / "host", sockets=False) as host, socket.socket(socket.AF_UNIX) as server:
        there, here, local = host.home / "s", tmp_path / "s", _free_port()
        server.bind(str(there))
        server.listen()
        server.settimeout(0.5)
        forwards = ("-L", f"{here}:{there}", "-L", f"127.0.0.1:{local}:127.0.0.1:{echo_port}")
        with subprocess.Popen([*host.ssh_command, "-N", *forwards, host.alias]) as tunnel:
            try:
                assert _ask(("127.0.0.1", local), socket.AF_INET) == b"HELLO"
                with suppress(ConnectionError):  # ssh may have closed it before the first byte
                    assert _ask(str(here), socket.AF_UNIX) == b""
                with pytest.raises(TimeoutError):
                    server.accept()
            finally:
                tunnel.terminate()


def test_host_can_forbid_forwarding(tmp_path: Path, echo_port: int) -> None:
    with EmbeddedHost(tmp_path / "host", forwarding=False) as host:
        code, _, err = ssh(host, options=("-W", f"127.0.0.1:{echo_port}"))
    assert code == 255
    assert b"open failed" in err


def test_terminal_is_allocated_on_request(embedded_host: EmbeddedHost) -> None:
    code, out, _ = ssh(embedded_host, "tty; echo $TERM; exit 6", options=("-tt",))
    assert code == 6
    assert out.startswith(b"/dev/pts/")
    assert ssh(embedded_host, "tty")[1] == b"not a tty\n"


def test_login_shell_reads_commands_from_stdin(embedded_host: EmbeddedHost) -> None:
    assert ssh(embedded_host, stdin=b"echo $((6 * 7))\nexit 5\n")[:2] == (5, b"42\n")


@pytest.mark.parametrize("end", ["client", "connection"])
def test_end_of_the_client_ends_its_command_but_not_detached_processes(
    embedded_host: EmbeddedHost, tmp_path: Path, end: str
) -> None:
    stays, detached = tmp_path / "stays", tmp_path / "detached"
    command = (
        f"setsid sh -c 'echo $$ >{detached}; exec sleep 300' </dev/null >/dev/null 2>&1 &"
        f" echo $$ >{stays}; exec sleep 300"
    )
    with subprocess.Popen([*embedded_host.ssh_command, embedded_host.alias, command]) as client:
        pids = pid_in(stays), pid_in(detached)
        assert all(alive(pid) for pid in pids)
        client.kill() if end == "client" else embedded_host.hang_up()
    try:
        eventually(lambda: not alive(pids[0]))
        assert alive(pids[1])
    finally:
        os.kill(pids[1], 9)


def test_end_of_one_session_leaves_the_others_of_a_connection(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    master = ("-oControlMaster=auto", f"-oControlPath={tmp_path}/m", "-oControlPersist=60")
    follower, other = tmp_path / "follower", tmp_path / "other"
    try:
        assert ssh(embedded_host, "true", options=master)[0] == 0
        start = [*embedded_host.ssh_command, *master, embedded_host.alias]
        with (
            subprocess.Popen([*start, f"echo $$ >{follower}; exec tail -f /dev/null"]) as first,
            subprocess.Popen([*start, f"echo $$ >{other}; exec tail -f /dev/null"]) as second,
        ):
            pids = pid_in(follower), pid_in(other)
            first.kill()
            eventually(lambda: not alive(pids[0]))
            assert alive(pids[1])
            second.kill()
        eventually(lambda: not alive(pids[1]))
    finally:
        ssh(embedded_host, options=(*master, "-O", "exit"))


def test_background_process_with_the_output_keeps_the_channel_open(embedded_host: EmbeddedHost) -> None:
    """As with sshd, so that a test notices a launcher that forgets to redirect its output."""
    started = time.monotonic()
    assert ssh(embedded_host, "sleep 1.5 & exit 0")[0] == 0
    assert time.monotonic() - started > 1.4


def test_close_ends_all_processes_of_the_host(tmp_path: Path) -> None:
    host = EmbeddedHost(tmp_path / "host").start()
    pid_file = tmp_path / "pid"
    ssh(host, f"setsid sh -c 'echo $$ >{pid_file}; exec sleep 300' </dev/null >/dev/null 2>&1 &")
    pid = pid_in(pid_file)
    assert pid in processes.marked(MARK, str(host.workdir))
    host.close()
    host.close()
    assert not alive(pid)
    assert ssh(host, "true")[0] == 255


def test_paths_with_spaces_and_percent_signs(tmp_path: Path) -> None:
    with EmbeddedHost(tmp_path / "my 100% host") as host:
        assert ssh(host, "pwd")[1].decode().rstrip("\n") == str(host.home)


def test_shell_files_of_the_hosts_home_are_read(tmp_path: Path) -> None:
    with EmbeddedHost(tmp_path / "host", shell="/bin/bash") as host:
        (host.home / ".bashrc").write_text("echo noise\n")
        assert ssh(host, "echo answer")[1] == b"noise\nanswer\n"

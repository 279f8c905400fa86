"""SSH as people have it: other shells, odd configurations, passwords, jumps, and connections that fail."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpurun.config.hosts import HostProfile
from gpurun.errors import ContactLost
from gpurun.remote import wire
from gpurun.remote.wire import Wire
from gpurun.ssh.openssh import Connection
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.sshd import make_key
from tests.lab.host.users import ADA, PASSWORD
from tests.lab.terminal import Terminal
from tests.support.faultproxy import FaultProxy

GPURUN = [sys.executable, "-m", "gpurun"]


@pytest.fixture
def here(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """Let this test process act as the laptop, to test the layers below the command line."""
    for name, value in laptop.env.items():
        monkeypatch.setenv(name, value)
    return laptop


def wire_to(name: str, *, forward_agent: bool = False) -> Wire:
    return wire.connect(HostProfile(name), interactive=False, forward_agent=forward_agent)


def ask(name: str) -> str:
    path: str = wire_to(name).ask("data", {"name": "sets"})["path"]
    return path


def pid_of_master(connection: Connection) -> int:
    """ssh writes its socket's path over its command line (and its environment, so the lab cannot tell whose it is)."""
    title = f"ssh: {connection.control_path} [mux]".encode()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    (found,) = [pid for pid in pids if title in read_or_nothing(Path(f"/proc/{pid}/cmdline"))]
    return found


def read_or_nothing(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


# --- one connection


def test_all_commands_share_one_login(host: LabHost, laptop: Laptop) -> None:
    before = host.sshd.traffic()
    laptop.gpurun("ps", "-H", "ada")
    first = host.sshd.traffic() - before
    assert (first.logins, first.sessions) == (1, 2)  # the second brought the agent
    laptop.gpurun("ps", "-H", "ada")
    both = host.sshd.traffic() - before
    assert (both.logins, both.sessions) == (1, 3)


def test_nothing_hangs_on_the_connection_when_the_answer_is_there(host: LabHost, here: Laptop) -> None:
    ask("ada")
    assert host.processes() == []


def test_two_cold_questions_at_once(host: LabHost, here: Laptop) -> None:
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(ask("ada"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [f"{ADA.home}/.gpurun/data/sets"] * 4
    agents = list((host.home() / ".gpurun/agent").iterdir())
    assert len(agents) == 1


def test_killed_master_is_replaced(host: LabHost, here: Laptop) -> None:
    ask("ada")
    connection = wire_to("ada").connection
    os.kill(pid_of_master(connection), signal.SIGKILL)
    assert connection.is_warm
    assert not connection.is_up()
    assert ask("ada")
    assert connection.is_up()


def test_more_sessions_than_the_server_allows(host: LabHost, here: Laptop) -> None:
    host.sshd.start("MaxSessions 2")
    ask("ada")
    connection = wire_to("ada").connection
    before = host.sshd.traffic()
    held = [connection.popen("sleep 20", stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        time.sleep(1)
        assert ask("ada")
        assert (host.sshd.traffic() - before).logins >= 1  # a connection of its own
    finally:
        for each in held:
            each.kill()
            each.wait()


def test_dropping_a_master_does_not_harm_what_runs_over_it(host: LabHost, here: Laptop) -> None:
    connection = wire_to("ada").connection
    connection.run("true")
    running = connection.popen("sleep 2; echo whole", stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    connection.drop()
    assert not connection.is_warm
    assert running.communicate(timeout=20)[0] == b"whole\n"


def test_ssh_agent_is_forwarded_only_on_request(host: LabHost, here: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    said = subprocess.run(["ssh-agent", "-s"], capture_output=True, check=True, text=True).stdout
    sock, pid = said.split("SSH_AUTH_SOCK=")[1].split(";")[0], int(said.split("SSH_AGENT_PID=")[1].split(";")[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", sock)
        subprocess.run(["ssh-add", "-q", here.home / ".ssh/id_ed25519"], check=True)
        plain = wire_to("ada").connection
        assert plain.run("ssh-add -l").code != 0
        assert b"ED25519" in plain.with_agent().run("ssh-add -l").stdout
        assert plain.run("ssh-add -l").code != 0
    finally:
        os.kill(pid, signal.SIGTERM)


def test_long_runtime_directory(host: LabHost, here: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = here.home / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    assert ask("ada")
    assert wire_to("ada").connection.is_up()
    wire_to("ada").connection.close()


# --- odd configurations and shells


def test_lines_that_break_a_tools_ssh(host: LabHost, here: Laptop) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        here.add_alias(
            "odd",
            port=host.sshd.port,
            lines=[
                "RemoteCommand tmux attach",
                "RequestTTY force",
                f"LocalForward {port} localhost:1",
                "ExitOnForwardFailure yes",
                "PermitLocalCommand yes",
                f"LocalCommand touch {here.home}/local-command-ran",
                "ForwardX11 yes",
                "ControlMaster no",
                f"ControlPath {here.home}/theirs-%C",
                "BatchMode no",
            ],
        )
        assert ask("odd") == f"{ADA.home}/.gpurun/data/sets"
    assert not (here.home / "local-command-ran").exists()
    assert not list(here.home.glob("theirs-*"))


def test_include_and_a_jump_host(host: LabHost, bare_host: LabHost, here: Laptop) -> None:
    (here.home / "more.conf").write_text(
        f"Host inner\n HostName 127.0.0.1\n Port {bare_host.sshd.port}\n User {ADA.name}\n ProxyJump ada\n"
        f" IdentityFile {here.home}/.ssh/id_ed25519\n UserKnownHostsFile {here.known_hosts}\n"
    )
    config = here.ssh_config.read_text()
    here.ssh_config.write_text(f"Include {here.home}/more.conf\n{config}")
    before = host.sshd.traffic()
    assert ask("inner")
    assert (host.sshd.traffic() - before).logins == 1
    assert (bare_host.home() / ".gpurun/data/sets").is_dir()


@pytest.fixture
def login_shell(host: LabHost) -> Iterator[object]:
    def set_to(shell: str) -> None:
        host.run("chsh", "-s", shell, ADA.name, user=None)

    yield set_to
    set_to("/bin/bash")


@pytest.mark.parametrize("shell", ["/bin/dash", "/usr/bin/fish", "/bin/tcsh"])
def test_other_login_shells(host: LabHost, here: Laptop, login_shell: object, shell: str) -> None:
    login_shell(shell)  # type: ignore[operator]
    assert ask("ada") == f"{ADA.home}/.gpurun/data/sets"
    odd = Wire(wire_to("ada").connection, root="~/it's a $HOME; disk")
    assert odd.ask("data", {"name": "sets"})["path"] == f"{ADA.home}/it's a $HOME; disk/.gpurun/data/sets"


def test_noisy_startup_file(host: LabHost, here: Laptop) -> None:
    bashrc = host.home() / ".bashrc"
    bashrc.write_text('echo "Welcome to the lab!"; printf "no newline"; echo oops >&2\n')
    assert ask("ada")


def test_no_python_on_the_host(host: LabHost, laptop: Laptop) -> None:
    host.hide("python3", "python3.11", "python")
    told = laptop.gpurun("ps", "-H", "ada", check=False)
    assert told.returncode == 125
    assert "there is no `python3` on ada" in told.stderr
    assert "[hosts.ada]" in told.stderr


# --- a person at the terminal


def test_password_is_asked_once_on_a_terminal(host: LabHost, laptop: Laptop) -> None:
    with Terminal([*GPURUN, "ps", "-H", "pat"], env=laptop.env, cwd=laptop.home) as person:
        person.expect("password:")
        person.type(PASSWORD)
        assert person.wait() == 0, person.shown
    with Terminal([*GPURUN, "ps", "-H", "pat"], env=laptop.env, cwd=laptop.home) as person:
        assert person.wait() == 0
        assert "password" not in person.shown


def test_password_login_without_a_terminal_is_refused_with_next_steps(host: LabHost, laptop: Laptop) -> None:
    told = laptop.gpurun("ps", "-H", "pat", check=False)
    assert told.returncode == 255
    assert "did not let `gpurun-pat` in" in told.stderr
    assert "gpurun host add pat" in told.stderr


def test_unknown_key_is_shown_and_confirmed_on_a_terminal(host: LabHost, laptop: Laptop) -> None:
    laptop.known_hosts.write_text("")
    with Terminal([*GPURUN, "ps", "-H", "ada"], env=laptop.env, cwd=laptop.home) as person:
        person.expect("SHA256:")
        person.expect("continue connecting")
        person.type("yes")
        assert person.wait() == 0, person.shown
    assert host.sshd.public_key in laptop.known_hosts.read_text()


def test_a_banner_is_seen_and_nothing_that_the_host_prints_moves_the_terminal(host: LabHost, laptop: Laptop) -> None:
    evil = "\033]0;evil\007"
    (host.root / "etc/banner").write_text(f"Authorized use only {evil}\n")
    (host.home() / ".ssh/rc").write_text(f"echo '{evil}' >&2\n")
    (host.home() / ".bashrc").write_text(f"echo '{evil}' >&2\n")
    host.sshd.start("Banner /etc/banner")
    with Terminal([*GPURUN, "ps", "-H", "ada"], env=laptop.env, cwd=laptop.home) as person:
        assert person.wait() == 0, person.shown
    assert "Authorized use only" in person.shown
    assert "\033]" not in person.shown


# --- connections that fail: each with its repair


def failing(laptop: Laptop, alias: str) -> str:
    """Return what `gpurun ps` prints about an unreachable host."""
    told = laptop.gpurun("ps", "-H", alias, check=False, timeout=90)
    assert told.returncode == 255, told.stderr
    assert told.stdout == ""
    return told.stderr


def test_unknown_key_is_refused_without_a_terminal(host: LabHost, laptop: Laptop, tmp_path: Path) -> None:
    laptop.known_hosts.write_text("")
    said = failing(laptop, "ada")
    key = tmp_path / "key.pub"
    key.write_text(host.sshd.public_key)
    fingerprint = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, check=True, text=True).stdout.split()[
        1
    ]
    assert f"the key of ada is not known yet: ED25519 {fingerprint}" in said
    assert f"gpurun host add ada --accept-key {fingerprint}" in said
    assert laptop.known_hosts.read_text() == ""


def test_changed_key_is_refused_and_the_old_one_can_be_removed(host: LabHost, laptop: Laptop, tmp_path: Path) -> None:
    host.sshd.swap_key(tmp_path)
    said = failing(laptop, "ada")
    assert "the key of ada has CHANGED" in said
    line = next(line.strip() for line in said.splitlines() if "ssh-keygen -R" in line)
    laptop.run("sh", "-c", line)
    assert "is not known yet" in failing(laptop, "ada")


def test_changed_key_is_refused_despite_the_configuration(host: LabHost, laptop: Laptop, tmp_path: Path) -> None:
    laptop.add_alias("lax", port=host.sshd.port, lines=["StrictHostKeyChecking no"])
    host.sshd.swap_key(tmp_path)
    assert "has CHANGED" in failing(laptop, "lax")


def test_refused_user_key(host: LabHost, laptop: Laptop) -> None:
    make_key(laptop.home / ".ssh/id_ed25519", "another")
    said = failing(laptop, "ada")
    assert "ada did not let `gpurun-ada` in" in said
    assert ".ssh/id_ed25519" in said


def test_host_without_sshd(host: LabHost, laptop: Laptop) -> None:
    host.sshd.stop()
    assert f"nothing listens on 127.0.0.1 port {host.sshd.port}" in failing(laptop, "ada")


def test_unknown_host_name(host: LabHost, laptop: Laptop) -> None:
    assert "no machine is known by the name `no-such-host.invalid`" in failing(laptop, "no-such-host.invalid")


def test_port_of_another_protocol(host: LabHost, laptop: Laptop) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def greet() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    client.sendall(b"220 mail.example.org ESMTP\r\n")

        threading.Thread(target=greet, daemon=True).start()
        laptop.add_alias("mail", port=listener.getsockname()[1])
        assert "is not an SSH server (it sends '220 mail.example.org ESMTP')" in failing(laptop, "mail")


def test_jump_host_that_refuses_the_login(host: LabHost, bare_host: LabHost, laptop: Laptop) -> None:
    laptop.add_alias("inner", port=bare_host.sshd.port, lines=["ProxyJump pat"])
    said = failing(laptop, "inner")
    assert "could not connect to pat, the jump host of inner" in said
    assert "did not let `gpurun-pat` in" in said


def test_unreachable_host_behind_its_jump_host(host: LabHost, bare_host: LabHost, laptop: Laptop) -> None:
    laptop.add_alias("inner", port=bare_host.sshd.port, lines=["ProxyJump ada"])
    bare_host.sshd.stop()
    assert "ada lets us in, but 127.0.0.1" in failing(laptop, "inner")


# --- connections that die


def test_black_hole_is_noticed_and_the_question_repeated(host: LabHost, here: Laptop) -> None:
    with FaultProxy(host.sshd.port) as proxy:
        here.add_alias("slow", port=proxy.port)
        here.trust_port(proxy.port, like="ada")
        connected = wire_to("slow")
        connected.ask("data", {"name": "sets"})
        proxy.blackhole()
        threading.Timer(3.0, proxy.reset).start()  # the old connection dies, a new one gets through
        threading.Timer(3.0, proxy.heal).start()
        began = time.monotonic()
        assert connected.ask("data", {"name": "sets"}, timeout=2.0)
        assert time.monotonic() - began < 60


def test_black_hole_is_reported_in_time(host: LabHost, here: Laptop) -> None:
    with FaultProxy(host.sshd.port) as proxy:
        here.add_alias("slow", port=proxy.port)
        here.trust_port(proxy.port, like="ada")
        connected = wire_to("slow")
        connected.ask("data", {"name": "sets"})
        proxy.blackhole()
        began = time.monotonic()
        with pytest.raises(ContactLost):
            connected.ask("data", {"name": "sets"}, within=2.0)
        assert time.monotonic() - began < 30
        proxy.heal()


def test_reset_connection_is_replaced(host: LabHost, here: Laptop) -> None:
    with FaultProxy(host.sshd.port) as proxy:
        here.add_alias("slow", port=proxy.port)
        here.trust_port(proxy.port, like="ada")
        connected = wire_to("slow")
        connected.ask("data", {"name": "sets"})
        proxy.reset()
        assert connected.ask("data", {"name": "sets"})


def test_ssh_itself_says_nothing_of_the_kind(host: LabHost, here: Laptop) -> None:
    """A remote command that ends with 255 is not a failed connection."""
    connection: Connection = wire_to("ada").connection
    assert connection.run("exit 255").code == 255
    assert connection.is_up()


def test_slow_host_keeps_its_connection(host: LabHost, here: Laptop) -> None:
    """A new connection may need the user's password."""
    ask("ada")
    slow = host.home() / "slow-python"
    slow.write_text("#!/bin/sh\nsleep 30\n")
    slow.chmod(0o755)
    connected = Wire(wire_to("ada").connection, python="~/slow-python")
    before = host.sshd.traffic()
    with pytest.raises(ContactLost, match="though the connection stands"):
        connected.ask("data", {"name": "sets"}, timeout=1.0)
    with pytest.raises(ContactLost):
        connected.ask("data", {"name": "sets"}, within=1.0)
    assert ask("ada")
    assert (host.sshd.traffic() - before).logins == 0

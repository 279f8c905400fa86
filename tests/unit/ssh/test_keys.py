"""Host keys: fingerprints, and reading and writing known_hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.errors import GpurunError
from gpurun.ssh import diagnose, keys
from gpurun.ssh.config import Resolved
from gpurun.ssh.diagnose import Problem
from gpurun.ssh.keys import HostKey, KnownKey

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAIBp6/IlVPeqe5wt8HNT2YDJcBGzx3r8ojet9fuXZEnqW"
KEY = HostKey("ssh-ed25519", BLOB)
OTHER = HostKey("ssh-ed25519", BLOB.replace("Bp6", "Bp7"))
RSA = HostKey("ssh-rsa", "AAAAB3NzaC1yc2EAAAADAQABAAAAgQ==")


def resolved(file: Path, port: int = 2222) -> Resolved:
    return Resolved("box", "gpu1.example.org", port, "ada", (), (str(file),))


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    assert KEY.fingerprint == "SHA256:9wBhNZMWjLy0INROuAKIZDHYNewUs2BALGPsKtoTxgw"
    assert (KEY.name, RSA.name, HostKey("ecdsa-sha2-nistp256", "").name) == ("ED25519", "RSA", "ECDSA")


def test_trust_keeps_a_last_line_without_newline(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"other ssh-ed25519 {BLOB}")
    keys.trust(resolved(file), KEY)
    assert file.read_text().splitlines() == [
        f"other ssh-ed25519 {BLOB}",
        f"[gpu1.example.org]:2222 ssh-ed25519 {BLOB}",
    ]


@pytest.mark.parametrize(
    ("known", "code"),
    [
        ([], "key_unknown"),
        ([KnownKey("f", 1, RSA)], "key_unknown"),  # ssh asks the user in this case too
        ([KnownKey("f", 1, OTHER)], "key_changed"),
        ([KnownKey("f", 1, KEY, "@revoked")], "key_revoked"),
        ([KnownKey("f", 1, KEY)], None),
        ([KnownKey("f", 1, OTHER), KnownKey("f", 2, KEY)], None),
        ([KnownKey("f", 1, RSA, "@cert-authority")], None),
    ],
)
def test_check_host_key_code(known: list[KnownKey], code: str | None, tmp_path: Path) -> None:
    host = resolved(tmp_path / "known_hosts")
    if code is None:
        diagnose.check_host_key("box", host, KEY, known)
        return
    with pytest.raises(Problem) as raised:
        diagnose.check_host_key("box", host, KEY, known)
    assert raised.value.code == code


def test_changed_key_error_has_the_command_that_removes_the_old_key(tmp_path: Path) -> None:
    host = resolved(tmp_path / "known hosts")
    with pytest.raises(Problem) as raised:
        diagnose.check_host_key("box", host, KEY, [KnownKey(str(tmp_path / "known hosts"), 3, OTHER)])
    assert KEY.fingerprint in raised.value.what
    assert "known hosts:3" in raised.value.what
    assert f"ssh-keygen -R '[gpu1.example.org]:2222' -f '{tmp_path}/known hosts'" in raised.value.next_step


def test_run_within_raises_timeout_error() -> None:
    import threading

    with pytest.raises(TimeoutError):
        keys.run_within(0.05, threading.Event().wait)


def test_proxy_argv_of_a_jump() -> None:
    host = Resolved("box", "inner", 2222, "ada", (), (), jump="a@first,b@second:2200")
    assert keys.proxy_argv(host) == [
        *("ssh", "-oBatchMode=yes", "-oClearAllForwardings=no", "-J", "a@first"),
        *("-W", "[inner]:2222", "-p", "2200", "b@second"),
    ]


def test_trust_without_a_known_hosts_file_is_an_error(tmp_path: Path) -> None:
    for files in ((), ("/dev/null",)):
        with pytest.raises(GpurunError, match="stores no host keys for box"):
            keys.trust(Resolved("box", "h", 22, "ada", (), files), KEY)

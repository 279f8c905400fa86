"""Host keys: fingerprints, and reading and writing known_hosts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gpurun.ssh import keys
from gpurun.ssh.keys import KnownKey
from tests.unit.ssh.test_keys import BLOB, KEY, RSA, resolved


def test_trusted_key_is_known(tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "known_hosts"
    host = resolved(file)
    assert keys.known_keys(host) == []
    keys.trust(host, KEY)
    assert keys.known_keys(host) == [KnownKey(str(file), 1, KEY)]
    assert keys.known_keys(resolved(file, port=22)) == []


def test_known_keys_reads_hashed_names_and_markers(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[gpu1.example.org]:2222 ssh-ed25519 {BLOB}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    with file.open("a") as out:
        out.write(f"@revoked [gpu1.example.org]:2222 ssh-rsa {RSA.blob}\n")
    assert "gpu1" not in file.read_text().splitlines()[0]
    known = keys.known_keys(resolved(file))
    assert [(each.line, each.key.kind, each.marker) for each in known] == [
        (1, "ssh-ed25519", ""),
        (2, "ssh-rsa", "@revoked"),
    ]

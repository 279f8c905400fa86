"""Host keys: what known_hosts has, fingerprints, and what is written."""

from __future__ import annotations

import subprocess
from pathlib import Path

from gpurun.ssh import keys
from gpurun.ssh.keys import KnownKey
from tests.unit.ssh.test_keys import BLOB, KEY, RSA, resolved


def test_what_is_trusted_is_known_then(tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "known_hosts"
    host = resolved(file)
    assert keys.known_keys(host) == []
    keys.trust(host, KEY)
    assert keys.known_keys(host) == [KnownKey(str(file), 1, KEY)]
    assert keys.known_keys(resolved(file, port=22)) == []


def test_hashed_names_and_markers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"[gpu1.example.org]:2222 ssh-ed25519 {BLOB}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    with file.open("a") as out:
        out.write(f"@revoked [gpu1.example.org]:2222 ssh-rsa {RSA.blob}\n")
    assert "gpu1" not in file.read_text().splitlines()[0]
    found = keys.known_keys(resolved(file))
    assert [(each.line, each.key.kind, each.marker) for each in found] == [
        (1, "ssh-ed25519", ""),
        (2, "ssh-rsa", "@revoked"),
    ]

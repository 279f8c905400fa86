"""Read the user's SSH configuration by `ssh -G`."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.ssh import config

DATA = Path(__file__).parent / "data"


def test_parse_of_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    resolved = config.parse("gpubox", (DATA / "ssh-G-gpubox.txt").read_text())
    assert resolved == config.Resolved(
        alias="gpubox",
        host="gpu1.example.org",
        port=2222,
        user="ada",
        identity_files=("/home/ada/.ssh/id_lab", "/home/ada/.ssh/id_ed25519"),
        known_hosts=(
            "/home/ada/.ssh/known_hosts",
            "/home/ada/.ssh/known hosts of the lab",
            "/etc/ssh/ssh_known_hosts",
            "/etc/ssh/ssh_known_hosts2",
        ),
        jump="gate@bastion.example.org:2200",
    )
    assert resolved.known_as == "[gpu1.example.org]:2222"


def test_parse_reads_none_as_unset() -> None:
    resolved = config.parse("box", "hostname box\nport 22\nproxyjump none\nproxycommand none\nuserknownhostsfile none")
    assert (resolved.jump, resolved.proxy_command, resolved.known_hosts, resolved.known_as) == (None, None, (), "box")


def test_aliases_follow_include_and_skip_patterns(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "config").write_text(
        f'Host box "other box" *.lab !bad\n  HostName x\nInclude {tmp_path}/more/*.conf\nhost=late\n'
        "# Host commented\nHost 'unclosed\n"
    )
    (tmp_path / "more/a.conf").write_text(f"Host included\nInclude {tmp_path}/config\n")  # a circle must end
    assert config.aliases(tmp_path / "config") == ["box", "other box", "included", "late"]
    assert config.aliases(tmp_path / "missing") == []

"""Connections over jump hosts without prompts, with the real ssh and a jump host that asks for a password."""

from __future__ import annotations

import pytest

from gpurun.ssh.jump import proxy_command


def test_proxy_command_of_two_jumps_has_no_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPURUN_SSH", raising=False)
    quiet = (
        "-oBatchMode=yes -oStrictHostKeyChecking=ask -oConnectTimeout=5 -oServerAliveInterval=5 -oServerAliveCountMax=3"
    )
    first = proxy_command(["ada@one:2222"], 5)
    assert first == f"ssh {quiet} -W '[%h]:%p' -- ssh://ada@one:2222"
    escaped = first.replace("%", "%%").replace("'", "'\"'\"'")
    assert proxy_command(["ada@one:2222", "two"], 5) == (
        f"ssh {quiet} '-oProxyCommand={escaped}' -W '[%h]:%p' -- ssh://two"
    )

"""An ssh that is to ask nobody asks nobody on its way either: with the real ssh, and a host that wants a password."""

from __future__ import annotations

import pytest

from gpurun.ssh.jump import command


def test_each_host_of_a_longer_way_is_asked_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPURUN_SSH", raising=False)
    quiet = (
        "-oBatchMode=yes -oStrictHostKeyChecking=ask -oConnectTimeout=5 -oServerAliveInterval=5 -oServerAliveCountMax=3"
    )
    first = command(["ada@one:2222"], 5)
    assert first == f"ssh {quiet} -W '[%h]:%p' -- ssh://ada@one:2222"
    escaped = first.replace("%", "%%").replace("'", "'\"'\"'")
    assert command(["ada@one:2222", "two"], 5) == (f"ssh {quiet} '-oProxyCommand={escaped}' -W '[%h]:%p' -- ssh://two")

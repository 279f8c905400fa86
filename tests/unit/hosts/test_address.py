"""Addresses as people type them and as rental panels print them."""

from __future__ import annotations

import pytest

from gpurun.errors import UsageError
from gpurun.hosts.address import parse
from gpurun.ssh.openssh import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ada@gpubox:2222", Address("gpubox", "ada", 2222)),
        ("ssh://root@1.2.3.4:40022", Address("1.2.3.4", "root", 40022)),
        ("ssh -p 34567 root@1.2.3.4 -L 8080:localhost:8080", Address("1.2.3.4", "root", 34567)),
        (
            "ssh root@ssh5.vast.ai -p34567 -i ~/.ssh/id_ed25519",
            Address("ssh5.vast.ai", "root", 34567, "~/.ssh/id_ed25519"),
        ),
        ("ssh abc-64410@ssh.runpod.io -i '~/my keys/id'", Address("ssh.runpod.io", "abc-64410", None, "~/my keys/id")),
        ("ssh -tA -oPort=5 -o 'User ada' -J a@b,c x tmux attach -t 1", Address("x", "ada", 5, None, "a@b,c")),
        ("/usr/bin/ssh -o StrictHostKeyChecking=no -NL 1:h:2 u@h", Address("h", "u")),
        ("ssh ssh://u@[fe80::1]:22", Address("fe80::1", "u", 22)),
        ("ssh -p 1 -p 2 u@fe80::1", Address("fe80::1", "u", 1)),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert parse(text) == address


@pytest.mark.parametrize(
    "text", ["", "ssh", "ssh -p 22", "a b", "ssh 'unclosed", "ssh -p 0 h", "ssh -p x h", "scp a b:c"]
)
def test_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)

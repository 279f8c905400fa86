"""Addresses as people type them and as rental panels print them."""

from __future__ import annotations

import shlex

import pytest

from gpurun.errors import UsageError
from gpurun.hosts.address import add_command, parse
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


@pytest.mark.parametrize(
    "address",
    [
        Address("gpubox"),
        Address("gpubox", "ada", 2222),
        Address("1.2.3.4", "root", 40022, "/home/ada/my keys/id"),
        Address("x", "ada", 5, None, "a@b,c"),
    ],
)
def test_command_that_adds_a_host_again_names_the_same_address(address: Address) -> None:
    words = shlex.split(add_command("box", address))
    assert words[:4] == ["gpurun", "host", "add", "box"]
    again = parse(words[4])
    key = words[words.index("-i") + 1] if "-i" in words else None
    assert Address(again.host, again.user, again.port, key, again.jump) == address


def test_command_that_adds_an_alias_again_is_its_name() -> None:
    assert add_command("box", Address("box")) == add_command("box", None) == "gpurun host add box"

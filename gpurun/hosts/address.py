"""Where a host is, as people type it or as rental panels print it."""

from __future__ import annotations

import shlex
from dataclasses import replace

from gpurun.errors import UsageError
from gpurun.ssh.openssh import Address

_WITH_VALUE = "BbcDEeFIiJLlmOoPpQRSWw"  # ssh's options that take a value, of which we know four


def parse(text: str) -> Address:
    """`[user@]host[:port]`, `ssh://user@host:port`, or a whole line `ssh -p 34567 root@1.2.3.4 -L 8080:...`.

    Of such a line -p, -l, -i, -J and their -o twins count; forwards and the rest are the user's own affair. Raises UsageError.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"`{text}` cannot be read: {error}", 'write it as "ssh -p PORT user@host"') from None
    if words and words[0].rpartition("/")[2] in ("ssh", "ssh.exe"):
        return _line(text, words[1:])
    if len(words) != 1:
        raise UsageError(
            f"`{text}` is not the address of a host", 'write user@host:port, or "ssh -p PORT user@host" in quotes'
        )
    return Address.parse(words[0].removeprefix("ssh://").rstrip("/"))


def add_command(name: str, address: Address | None) -> str:
    """Return the command line that adds a host under `name`; `address` None: an alias of the SSH configuration."""
    words = ["gpurun", "host", "add", name]
    if address is not None and address.jump:
        jump = ["ssh", "-J", address.jump, *(["-p", str(address.port)] if address.port else [])]
        words.append(shlex.join([*jump, str(replace(address, port=None))]))
    elif address is not None and str(address) != name:
        words.append(str(address))
    if address is not None and address.identity_file:
        words += ["-i", address.identity_file]
    return shlex.join(words)


def _line(text: str, words: list[str]) -> Address:
    told: dict[str, str] = {}
    target = ""
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word == "-":
            if target:
                break  # from here on it is a command for the host
            target = word
            continue
        letters = word[1:]
        at = next((index for index, letter in enumerate(letters) if letter in _WITH_VALUE), None)
        if at is None:
            continue
        value = letters[at + 1 :] or (words.pop(0) if words else "")
        _take(told, letters[at], value)
    if not target:
        raise UsageError(f"`{text}` names no host", 'write it as "ssh -p PORT user@host"')
    address = Address.parse(target.removeprefix("ssh://").rstrip("/"))
    if "port" in told:
        address = replace(address, port=Address.parse(f"host:{told['port']}").port)
    return replace(
        address,
        user=told.get("user", address.user),
        identity_file=told.get("identityfile"),
        jump=told.get("proxyjump"),
    )


def _take(told: dict[str, str], option: str, value: str) -> None:
    """ssh takes the first value of each."""
    if option == "o":
        key, _, value = value.replace("=", " ", 1).partition(" ")
        told.setdefault(key.strip().lower(), value.strip())
    elif option in "pliJ":
        told.setdefault({"p": "port", "l": "user", "i": "identityfile", "J": "proxyjump"}[option], value)

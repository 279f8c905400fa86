"""Read the user's SSH configuration, by `ssh -G` alone. Nothing here connects."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpurun import process
from gpurun.errors import UsageError
from gpurun.ssh.openssh import Connection, program

MAX_INCLUDE_DEPTH = 16  # files, as in ssh itself


@dataclass(frozen=True)
class Resolved:
    """A destination, as ssh resolves it."""

    alias: str
    host: str
    port: int
    user: str
    identity_files: tuple[str, ...]
    known_hosts: tuple[str, ...]  # the user's files, then the system's
    host_key_alias: str | None = None
    jump: str | None = None
    proxy_command: str | None = None
    identities_only: bool = False

    @property
    def known_as(self) -> str:
        """The name of this host in known_hosts."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def resolve(connection: Connection) -> Resolved:
    """Return how ssh resolves the connection's destination. Raises UsageError when the configuration has a mistake."""
    address = connection.address
    completed = process.run([*program(), *address.options(), "-G", "--", address.host], timeout=10)
    if completed.code != 0:
        raise UsageError(
            f"ssh cannot read its configuration: {completed.said or 'exit code ' + str(completed.code)}",
            f"correct ~/.ssh/config until this prints no error: ssh -G {address.host}",
        )
    return parse(address.host, completed.stdout.decode("utf-8", "replace"))


def parse(alias: str, text: str) -> Resolved:
    """Parse the output of `ssh -G`: a keyword and its value on each line. Some keywords come several times."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key.lower(), []).append(value.strip())

    def first(key: str) -> str | None:
        value = values.get(key, [""])[0]
        return None if value in ("", "none") else value

    files = [first("userknownhostsfile"), first("globalknownhostsfile")]
    return Resolved(
        alias=alias,
        host=first("hostname") or alias,
        port=int(first("port") or 22),
        user=first("user") or "",
        identity_files=tuple(str(Path(path).expanduser()) for path in values.get("identityfile", [])),
        known_hosts=tuple(str(Path(path).expanduser()) for names in files if names for path in _paths(names)),
        host_key_alias=first("hostkeyalias"),
        jump=first("proxyjump"),
        proxy_command=first("proxycommand"),
        identities_only=first("identitiesonly") == "yes",
    )


def _paths(value: str) -> list[str]:
    """Split a line of paths, whose quotes ssh has removed: a word that does not begin a path belongs to the path before it."""
    paths: list[str] = []
    for word in value.split(" "):
        if word.startswith(("/", "~")) or not paths:
            paths.append(word)
        else:
            paths[-1] += " " + word
    return paths


def aliases(config: Path | None = None) -> list[str]:
    """Return the names in the user's `Host` lines and in included files, without patterns; for completion and messages."""
    return list(dict.fromkeys(_aliases(config or Path("~/.ssh/config").expanduser(), MAX_INCLUDE_DEPTH)))


def _aliases(file: Path, depth: int) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if depth else []
    except OSError:
        return
    for line in lines:
        key, *words = _words(line)
        if key == "host":
            yield from (word for word in words if not set(word) & set("*?!"))
        elif key == "include":
            for word in words:
                pattern = Path("~/.ssh").expanduser() / Path(word).expanduser()
                for name in sorted(glob.glob(str(pattern))):  # noqa: PTH207 - the pattern is an absolute path
                    yield from _aliases(Path(name), depth - 1)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line.replace("=", " ", 1), comments=True)
    except ValueError:
        words = []
    return [words[0].lower(), *words[1:]] if words else [""]

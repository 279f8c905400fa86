"""What the user's SSH configuration says of a host. `ssh -G` is the one reader of it; nothing here connects."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gpurun import process
from gpurun.errors import UsageError
from gpurun.ssh.openssh import Connection, program

MANY = 16  # files deep is as far as ssh itself follows Include


@dataclass(frozen=True)
class Resolved:
    """A destination as ssh would go there."""

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
        """The name under which known_hosts has this host's key."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"


def resolve(connection: Connection) -> Resolved:
    """What ssh makes of the connection's destination. Raises UsageError when the configuration has a mistake."""
    address = connection.address
    asked = process.run([*program(), *address.options(), "-G", "--", address.host], timeout=10)
    if asked.code != 0:
        raise UsageError(
            f"ssh cannot read its configuration: {asked.said or 'exit code ' + str(asked.code)}",
            f"put ~/.ssh/config right; `ssh -G {address.host}` should print no error",
        )
    return parse(address.host, asked.stdout.decode("utf-8", "replace"))


def parse(alias: str, text: str) -> Resolved:
    """`ssh -G` output: a keyword and its value on each line; some keywords come several times."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key.lower(), []).append(value.strip())

    def one(key: str) -> str | None:
        value = found.get(key, [""])[0]
        return None if value in ("", "none") else value

    files = [one("userknownhostsfile"), one("globalknownhostsfile")]
    return Resolved(
        alias=alias,
        host=one("hostname") or alias,
        port=int(one("port") or 22),
        user=one("user") or "",
        identity_files=tuple(str(Path(path).expanduser()) for path in found.get("identityfile", [])),
        known_hosts=tuple(str(Path(path).expanduser()) for names in files if names for path in _paths(names)),
        host_key_alias=one("hostkeyalias"),
        jump=one("proxyjump"),
        proxy_command=one("proxycommand"),
        identities_only=one("identitiesonly") == "yes",
    )


def _paths(value: str) -> list[str]:
    """Paths in one line, from which ssh has taken the quotes: a word that begins no path belongs to the one before."""
    paths: list[str] = []
    for word in value.split(" "):
        if word.startswith(("/", "~")) or not paths:
            paths.append(word)
        else:
            paths[-1] += " " + word
    return paths


def aliases(config: Path | None = None) -> list[str]:
    """The names in the user's `Host` lines, Include followed, without patterns; for completion and messages."""
    return list(dict.fromkeys(_aliases(config or Path("~/.ssh/config").expanduser(), MANY)))


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

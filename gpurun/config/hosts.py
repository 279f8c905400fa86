"""hosts.toml: the hosts that were added, and which of them a command means."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurun import locked, toml
from gpurun.agent.files import write_atomically
from gpurun.config import problems
from gpurun.config.readers import key, required, table, table_of, text, values, variables, whole_number
from gpurun.errors import UsageError
from gpurun.secret import Secret
from gpurun.ssh.openssh import Address


def _engine(value: Any) -> tuple[str, ...]:
    words = shlex.split(value) if isinstance(value, str) else value
    if not words or not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise ValueError('wants a command such as "docker" or ["sudo", "-n", "docker"]')
    return tuple(words)


def _without_password(value: Any) -> str:
    index = text(value)
    if "@" in index.partition("://")[2].partition("/")[0]:
        raise ValueError("must hold no user or password: keep them in ~/.netrc of the host")
    return index


def _base_image(value: Any) -> str | dict[str, str]:
    return value if isinstance(value, str) else table_of(text)(value)


@dataclass(frozen=True)
class AddressConfig(Address):
    """How `ssh` reaches a host."""

    host: str = required(text)
    """Name or address of the machine."""
    user: str | None = key(text)
    """Login name."""
    port: int | None = key(whole_number(1, 65535))
    """Port of its SSH server."""
    identity_file: str | None = key(text)
    """The private key to offer."""
    jump: str | None = key(text)
    """The host to go through, as in `ssh -J`."""


@dataclass(frozen=True)
class HostProfile:
    """What `[hosts.NAME]` says about one host. Without an `address`, `name` is an alias of the user's SSH configuration."""

    name: str
    address: AddressConfig | None = key(table(AddressConfig))  # noqa: RUF009
    """Where the host is, if NAME is not an alias of your SSH configuration: `host`, `user`, `port`, `identity_file`, `jump`."""
    root: str | None = key(text)
    """A folder on a roomy disk: gpurun's files go to `.gpurun` in it. Without it, to `~/.gpurun`."""
    python: str | None = key(text)
    """The host's Python, 3.8 or later. Default: `python3`. Without an engine: the one that has torch."""
    engine: tuple[str, ...] | None = key(_engine)
    """The engine's command, e.g. `"sudo -n docker"`. Default: `docker`."""
    env: Mapping[str, Secret | None] = key(variables, {})
    """Variables for every job on this host."""
    data: Mapping[str, str] = key(table_of(text), {})
    """Where this host keeps data: `[hosts.NAME.data]` with lines `imagenet = "/mnt/imagenet"`."""
    pip_index: str | None = key(_without_password)
    """The package index that pip asks on this host. A password has no place in it: it would be seen in `ps` there."""
    registry_mirror: str | None = key(text)
    """The registry that images are pulled from in place of Docker Hub."""
    base_image: str | Mapping[str, str] | None = key(_base_image)
    """The image that gpurun's own is built on, in place of the pinned one; `{ "v2.7" = "..." }` for several."""
    added: bool = False  # to hosts.toml


def _profiles(value: Any) -> dict[str, HostProfile]:
    read = table_of(functools.partial(values, HostProfile))(value)
    return {name: HostProfile(name, **keys, added=True) for name, keys in read.items()}


@dataclass(frozen=True)
class Hosts:
    """hosts.toml, in your configuration directory."""

    default: str | None = key(text)
    """The host that is taken when nothing names one (`gpurun host use NAME`)."""
    hosts: Mapping[str, HostProfile] = key(_profiles, {})
    """One table a host: `[hosts.NAME]`."""

    def get(self, name: str) -> HostProfile:
        """Return the host of that name; any other word is an alias of the SSH configuration."""
        return self.hosts.get(name) or HostProfile(name)


def path() -> Path:
    """Where hosts.toml is, or would be."""
    import platformdirs

    return platformdirs.user_config_path("gpurun") / "hosts.toml"


def read() -> Hosts:
    """The hosts that were added. Raises UsageError when hosts.toml is broken."""
    return _hosts(toml.read(path()), lambda: path().read_text(encoding="utf-8-sig"))


def choose(flag: str | None = None, *, job: str | None = None, project: str | None = None) -> HostProfile:
    """`flag` > GPURUN_HOST > `job` > `project` > the default > the only one added. UsageError lists the known ones."""
    known = read()
    name = flag or os.environ.get("GPURUN_HOST") or job or project or known.default
    if name:
        return known.get(_no_option(name))
    if len(known.hosts) == 1:
        return next(iter(known.hosts.values()))
    if known.hosts:
        names = ", ".join(known.hosts)
        raise UsageError(
            f"no host was named, and several are known: {names}",
            "name one with -H NAME, or make one the default: gpurun host use NAME",
        )
    raise UsageError(
        "no host was named, and none is known",
        "name any alias of your SSH configuration with -H ALIAS, or add a host: gpurun host add NAME user@address",
    )


def add(name: str, values: Mapping[str, Any]) -> None:
    """Put `values` (keys of HostProfile; None takes a key away) into `[hosts.NAME]`, beside what stands there.

    The only host so far, which was taken without being named, becomes the default: a second one changes nothing about it.
    """
    import tomlkit

    _no_option(name)
    with locked.state():
        document = _document()
        before = list(document.get("hosts", {}))
        if len(before) == 1 and name not in before and "default" not in document:
            document = _with_default_first(before[0], document)
        hosts = document.setdefault("hosts", tomlkit.table(is_super_table=True))
        table = hosts.setdefault(name, tomlkit.table())
        for key, value in values.items():
            if value is None:
                table.pop(key, None)
            else:
                table[key] = _inline(value) if isinstance(value, Mapping) and key == "address" else value
        _write(document)


def remove(name: str) -> bool:
    """Take `[hosts.NAME]` away; False when it was not there."""
    with locked.state():
        document = _document()
        if name not in document.get("hosts", {}):
            return False
        del document["hosts"][name]
        if document.get("default") == name:
            del document["default"]
        _write(document)
    return True


def use(name: str) -> None:
    """Make `name`, which may be any alias of the SSH configuration, the default host."""
    with locked.state():
        document = _document()
        before = list(document.items())
        if "default" in document or not before:
            document["default"] = _no_option(name)
        else:
            # A key after the first table would belong to that table.
            document = _with_default_first(_no_option(name), document)
        _write(document)


def _with_default_first(name: str, document: Any) -> Any:
    import tomlkit

    return tomlkit.parse(tomlkit.dumps({"default": name}) + "\n" + tomlkit.dumps(document))


def _no_option(name: str) -> str:
    """ssh would take a name such as `-oProxyCommand=...` for an option."""
    if name.startswith("-") or not name.isprintable() or " " in name or not name:
        raise UsageError(f"{name!r} is not a valid name of a host", "use letters, digits, dots and dashes")
    return name


def _inline(values: Mapping[str, Any]) -> Any:
    import tomlkit

    table = tomlkit.inline_table()
    table.update({key: value for key, value in values.items() if value is not None})
    return table


def _document() -> Any:
    import tomlkit

    read()  # says what is wrong with a broken file in our words
    return tomlkit.parse(path().read_text(encoding="utf-8-sig")) if path().exists() else tomlkit.document()


def _write(document: Any) -> None:
    import tomlkit

    text = tomlkit.dumps(document)
    _hosts(tomlkit.parse(text).unwrap(), lambda: text)
    path().parent.mkdir(parents=True, exist_ok=True)
    # A link into a folder of dotfiles stays a link. 0600: `env` may hold keys.
    write_atomically(os.path.realpath(path()), text.encode(), 0o600)


def _hosts(told: Mapping[str, Any], text: Callable[[], str]) -> Hosts:
    read, wrong = problems.read(Hosts, told, problems.Source(str(path()), text))
    problems.refuse(wrong, "the keys of hosts.toml are in the README")
    return Hosts(**read)

"""hosts.toml: the hosts that were added, and which of them a command means.

Read without pydantic as long as the file is the one that was last found valid: `ps` and `logs` have no
tenth of a second for it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpurun import locked, toml
from gpurun.agent.files import write_atomically
from gpurun.errors import UsageError


@dataclass(frozen=True)
class Address:
    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    jump: str | None = None


@dataclass(frozen=True)
class Host:
    """A host as the user named it. Without an `address`, `name` is an alias of the user's SSH configuration."""

    name: str
    address: Address | None = None
    root: str | None = None
    python: str | None = None
    engine: tuple[str, ...] | None = None
    env: Mapping[str, str | None] = field(default_factory=dict, repr=False)  # None: the laptop's own value
    data: Mapping[str, str] = field(default_factory=dict)
    pip_index: str | None = None
    registry_mirror: str | None = None
    base_image: str | Mapping[str, str] | None = None  # a name of the catalogue -> image; one alone: of its default
    added: bool = False


@dataclass(frozen=True)
class Hosts:
    default: str | None
    hosts: Mapping[str, Host]

    def get(self, name: str) -> Host:
        """The host of that name; any other word is an alias of the SSH configuration."""
        return self.hosts.get(name) or Host(name)


def path() -> Path:
    """Where hosts.toml is, or would be."""
    import platformdirs

    return platformdirs.user_config_path("gpurun") / "hosts.toml"


def read() -> Hosts:
    """The hosts that were added. Raises UsageError when hosts.toml is broken."""
    told = toml.read(path())
    if told and not _known_valid(path()):
        _check(told, path().read_text(encoding="utf-8-sig"))
        _remember_valid(path())
    hosts = {name: _host(name, table) for name, table in told.get("hosts", {}).items()}
    return Hosts(told.get("default"), hosts)


def choose(flag: str | None = None, *, job: str | None = None, project: str | None = None) -> Host:
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
        raise UsageError(f"{name!r} is no name of a host", "use letters, digits, dots and dashes")
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
    _check(tomlkit.parse(text).unwrap(), text)
    path().parent.mkdir(parents=True, exist_ok=True)
    # A link into a folder of dotfiles stays a link. 0600: `env` may hold keys.
    write_atomically(os.path.realpath(path()), text.encode(), 0o600)


def _check(told: Mapping[str, Any], text: str) -> None:
    from gpurun.config import problems, schema

    source = problems.Source(str(path()), lambda: text)
    problems.refuse(problems.validate(schema.HostsFile, told, source)[1], "the keys of hosts.toml are in the README")


def _valid_marker() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("gpurun") / "hosts.valid"


def _stamp(file: Path) -> bytes:
    """Names the file's content and the schema that found it valid."""
    schema = Path(__file__).with_name("schema.py")
    sha = hashlib.sha256(file.read_bytes())
    sha.update(schema.read_bytes())
    return sha.hexdigest().encode()


def _known_valid(file: Path) -> bool:
    try:
        return _valid_marker().read_bytes() == _stamp(file)
    except OSError:
        return False


def _remember_valid(file: Path) -> None:
    try:
        _valid_marker().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(str(_valid_marker()), _stamp(file))
    except OSError:
        return  # no cache, then: it is checked again next time


def _host(name: str, table: Mapping[str, Any]) -> Host:
    values = dict(table)
    engine, address, env = values.pop("engine", None), values.pop("address", None), values.pop("env", {})
    if isinstance(env, list):
        pairs = [(key, text if sign else None) for key, sign, text in (line.partition("=") for line in env)]
        env = dict(pairs)
    return Host(
        name,
        address=Address(**address) if address else None,
        engine=tuple(shlex.split(engine) if isinstance(engine, str) else engine) if engine else None,
        env={key: None if text is None else str(text) for key, text in env.items()},
        added=True,
        **values,
    )

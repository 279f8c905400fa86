"""`host add`: from an address to a host that jobs can be sent to. Nothing is trusted, installed or stored unasked."""

from __future__ import annotations

import getpass
import re
import shlex
import socket
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpurun import process
from gpurun.config import hosts
from gpurun.config.hosts import HostProfile
from gpurun.errors import KEY_UNKNOWN, GpurunError, HostError, HostUnreachable, UsageError
from gpurun.hosts import address as addresses
from gpurun.hosts import warm
from gpurun.hosts.check import CheckResult, check
from gpurun.hosts.findings import GB, WARN, Finding
from gpurun.remote.wire import Wire, connect
from gpurun.ssh import config, diagnose, keys
from gpurun.ssh.config import Resolved
from gpurun.ssh.keys import HostKey
from gpurun.ssh.openssh import CONNECTION_FAILED, Address, Connection
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import CheckAnswer

PASSWORD_TRIES = 3
LOGIN_IN = 15.0  # seconds
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}"

# Appends a line that comes on stdin to the list of keys that are let in, which may end without a newline.
INSTALL = (
    "umask 077; cd && mkdir -p .ssh && f=.ssh/authorized_keys && "
    '{ [ ! -s "$f" ] || [ -z "$(tail -c 1 "$f")" ] || echo >>"$f"; } && cat >>"$f" && '
    '{ ! command -v restorecon >/dev/null || restorecon -F .ssh "$f"; }'
)


class Dialog(Protocol):
    """The person at the terminal, if there is one."""

    def can_ask(self) -> bool: ...
    def say(self, text: str) -> None: ...
    def confirm(self, question: str) -> bool: ...
    def confirm_key(self, question: str) -> bool: ...
    def password(self, prompt: str) -> str: ...
    def finding(self, finding: Finding) -> None: ...


@dataclass(frozen=True)
class Order:
    """What was asked for. `target` None: what stands in hosts.toml, or the alias of that name."""

    name: str
    target: str | None = None
    identity_file: str | None = None
    root: str | None = None
    accept_key: str | None = None  # "SHA256:...": this key of the host is trusted unasked
    install_key: bool | None = None  # None: ask


@dataclass(frozen=True)
class Added:
    result: CheckResult
    updated: bool  # the name was known before
    warming: bool  # the image is being made ready on the host


def add(order: Order, dialog: Dialog) -> Added:
    """Make a host known under a name, or give a known name its new address. Raises GpurunError, HostUnreachable."""
    check_name(order.name)
    before = hosts.read().hosts.get(order.name)
    address = _address(order, before)
    connection = Connection(order.name, address or Address(order.name), interactive=dialog.can_ask())
    resolved = config.resolve(connection)
    key = agree_on_key(connection, resolved, order.accept_key, dialog)
    let_in(connection, resolved, key, order, dialog)
    values = {} if address is None else {"address": asdict(address)}
    hosts.add(order.name, {**values, **({"root": order.root} if order.root else {})})
    result = check(_wire(order.name), dialog.finding)
    if result.answer is not None:
        _settle(order, result, dialog)
        _follow_runs(order.name)
    return Added(result, before is not None, warming=_warm(order.name, result, dialog))


def check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UsageError(f"{name!r} is not a valid name for a host", "use letters, digits, `-`, `_` and `.`")


def _address(order: Order, before: HostProfile | None) -> Address | None:
    """None for an alias of the SSH configuration, which knows the way by itself."""
    known = before.address if before else None
    address = known if order.target is None else addresses.parse(order.target)
    named = order.identity_file or (address.identity_file if address else None)
    if named is None:
        return address
    file = Path(named).expanduser()
    if not file.is_file():  # ssh would go on without it, as if none had been named
        raise UsageError(f"there is no key {file}", f"name the private key: gpurun host add {order.name} -i FILE")
    return replace(address or Address(order.name), identity_file=str(file.absolute()))


# --- the host's key


def agree_on_key(connection: Connection, host: Resolved, accept: str | None, dialog: Dialog) -> HostKey:
    """The host's key, which is known, was named, or has been shown and agreed to. Raises HostUnreachable."""
    key, failure = diagnose.read_host_key(connection, host, wanted=accept)
    if failure is None:
        return key
    if failure.code != KEY_UNKNOWN:
        raise failure
    if accept is not None and accept != key.fingerprint:
        raise GpurunError(
            f"{connection.name} has the key {key.name} {key.fingerprint}, not {accept}",
            "ask the host's owner for its fingerprint; do not go on if it differs",
            where=connection.name,
        )
    if accept is None:
        if not dialog.can_ask():
            raise failure
        dialog.say(f"{connection.name} ({host.host} port {host.port}) shows the key\n  {key.name} {key.fingerprint}")
        dialog.say("Compare it with what the host's owner or the rental panel says, or with this, run on the host:")
        dialog.say("  ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        if not dialog.confirm_key("Is this the host's key?"):
            again = addresses.add_command(connection.name, connection.address)
            raise GpurunError("the host's key was not trusted; nothing was done", again)
    file = keys.trust(host, key)
    dialog.say(f"the key is in {file} now")
    return key


# --- our key


def let_in(connection: Connection, host: Resolved, key: HostKey, order: Order, dialog: Dialog) -> None:
    """Make sure that a login works: with a key, if need be with one that is put there. Raises HostUnreachable."""
    if _logs_in(connection):
        return
    if not dialog.can_ask():
        raise diagnose.explain(Connection(connection.name, connection.address, interactive=False))
    public = _public_key(host, dialog) if order.install_key is not False else None
    question = f"No key of yours is let in yet. Put {public} on {connection.name}? (asks for the password once)"
    if public is not None and (order.install_key or dialog.confirm(question)):
        _install(connection, host, key, public, dialog)
        if _logs_in(connection):
            return
        raise HostUnreachable(
            f"{connection.name} took the key and still lets no key in",
            "look at AuthorizedKeysFile and PubkeyAuthentication in the host's /etc/ssh/sshd_config",
            where=connection.name,
        )
    # The user's own ssh can ask for more than we can: a second factor, a code.
    if connection.run("exit 0").code == CONNECTION_FAILED:
        raise diagnose.explain(connection)


def _logs_in(connection: Connection) -> bool:
    quiet = Connection(connection.name, connection.address, interactive=False)
    try:
        return quiet.run("exit 0", timeout=LOGIN_IN).code != CONNECTION_FAILED
    except process.TimedOut:
        return False


def _public_key(host: Resolved, dialog: Dialog) -> Path | None:
    """The user's public key; a new one when there is none and the user wants it."""
    for file in host.identity_files:
        public = Path(file + ".pub")
        if public.is_file():
            return public
    private = Path("~/.ssh/id_ed25519").expanduser()
    if private.exists() or not dialog.confirm(f"You have no SSH key. Make one ({private})?"):
        return None
    private.parent.mkdir(mode=0o700, exist_ok=True)
    dialog.say(f"no key of yours is let in: making {private}; ssh-keygen asks for a passphrase, which may be empty")
    if process.attended(["ssh-keygen", "-t", "ed25519", "-f", str(private)]) != 0:
        return None
    return private.with_name(private.name + ".pub")


def _install(connection: Connection, host: Resolved, key: HostKey, public: Path, dialog: Dialog) -> None:
    line = " ".join([*public.read_text(encoding="utf-8").split()[:2], mark(connection.name)]) + "\n"
    command = "exec sh -c " + shlex.quote(INSTALL)
    for left in reversed(range(PASSWORD_TRIES)):
        password = dialog.password(f"{host.user}@{host.host}'s password: ")
        try:
            if keys.run_with_password(host, key, password, command, line.encode()) == 0:
                dialog.say(f"{public} is on {connection.name} now, marked `{mark(connection.name)}`")
                return
            raise GpurunError(
                f"{connection.name} could not store the key", "is the home there writable?", where=connection.name
            )
        except PermissionError:
            if left:
                dialog.say("the password was refused, try again")
    raise HostUnreachable(
        f"{connection.name} refused the password of `{host.user}`",
        f"it may want more than a password: ssh-copy-id -i {public} {shlex.quote(str(connection.address))}",
        where=connection.name,
    )


def mark(name: str) -> str:
    """The comment of the key that `host add` puts on a host, by which `host rm --revoke` finds it."""
    laptop = re.sub(r"[^A-Za-z0-9_.-]", "-", f"{getpass.getuser()}@{socket.gethostname()}".replace("@", "."))
    return f"gpurun:{laptop}:{name}"


# --- what follows from the check


def _wire(name: str) -> Wire:
    return connect(hosts.read().get(name))


def _settle(order: Order, result: CheckResult, dialog: Dialog) -> None:
    """Propose what makes the host better: a roomier disk, the engine through sudo."""
    if result.answer is None:
        return
    profile = hosts.read().get(order.name)
    place = roomier_root(result.answer) if profile.root is None else None
    if place is not None and not _has_runs(order.name):
        path, free = place
        question = f"{path} has {free / GB:.0f} GB free, far more than your home. Keep gpurun's files there?"
        if dialog.confirm(question):
            hosts.add(order.name, {"root": path})
        elif not dialog.can_ask():
            dialog.say(f"roomier: gpurun host add {order.name} --root {path}  ({free / GB:.0f} GB free)")
    refused = result.answer["facts"]["engine_error"]
    works = refused.get("works") if refused else None
    if works and dialog.confirm(f"`{works}` works there without a password. Use it?"):
        hosts.add(order.name, {"engine": works})


def roomier_root(answer: CheckAnswer) -> tuple[str, int] | None:
    """A folder on a lasting disk that has far more room than where gpurun's files would lie, with its free bytes."""
    free = answer["facts"]["disk"]["free"]
    for place in answer["disks"]:
        if place["free"] > max(2 * free, free + 50 * GB) and not answer["facts"]["root"].startswith(place["path"]):
            return place["path"], place["free"]
    return None


def _has_runs(name: str) -> bool:
    return any(entry.host == name for entry in run_store.all_runs())


def _follow_runs(name: str) -> None:
    """Runs of this host that the laptop knows under another name or address are found under this one from now on."""
    run_store.update(_wire(name).ask("ps", {"all": True, "ids": None})["runs"], name)


def _warm(name: str, result: CheckResult, dialog: Dialog) -> bool:
    """Have the pinned image made ready on the host, in the background. True when that is under way."""
    if result.answer is None or not result.answer["facts"]["engine"]:
        return False
    try:
        return warm.warm(_wire(name), hosts.read().get(name))
    except HostError as error:  # the driver, or the disk: the host is added all the same
        dialog.finding(Finding("image", WARN, error.what, error.next_step))
        return False

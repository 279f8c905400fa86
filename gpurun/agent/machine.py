"""Identify the machine, its boot and the root of gpurun's files, so that a clone, a reboot and another root are
recognized.

GPURUN_MACHINE_ID_FILE and GPURUN_BOOT_ID_FILE name other files than the system's, for tests that reboot a host or make
two hosts of one machine; the boot is then as old as the second file.

A home may be shared by several hosts, so the host's random id is in a file whose name contains a hash of the machine
id: `host-id-<hash of the machine id>`. A root with two such files is a shared home.

Machines that were made from one image, and a cloned disk, have one machine id. A clone does not copy the signs of the
hardware: they distinguish such machines. GPURUN_SYSTEM names a folder that replaces / when the signs are read.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Optional

from .paths import HostPaths

if TYPE_CHECKING:
    from .schema.host import Signs

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MACHINE_IDS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def hostname() -> str:
    return os.uname().nodename


def machine_id() -> str:
    """Return the id of this machine.

    Containers of one image may have one machine id, so there the host name is part of it.
    """
    named = os.environ.get("GPURUN_MACHINE_ID_FILE")
    ids = [text for text in (text_of(path) for path in ([named] if named else _MACHINE_IDS)) if text]
    if ids and (named or not in_container()):
        return ids[0]
    return hashlib.sha256("\0".join([*ids[:1], hostname()]).encode()).hexdigest()[:32]


def boot_id() -> str:
    """Return an id that changes with each boot of the machine, and in a container with each start of the container too."""
    named = os.environ.get("GPURUN_BOOT_ID_FILE")
    if named:
        return text_of(named)
    if not in_container():
        return text_of(_BOOT_ID)
    # When its first process ends, all other processes of a container end too, whatever the machine does.
    return hashlib.sha256(("%s %s" % (text_of(_BOOT_ID), _first_process_started())).encode()).hexdigest()[:32]


def is_this_boot(boot: Optional[str]) -> bool:
    """Return whether `boot` is the id of this boot.

    True also for None, and for the machine's own boot id, which older versions used in a container.
    """
    return boot in (None, boot_id()) or (boot == text_of(_BOOT_ID) and "GPURUN_BOOT_ID_FILE" not in os.environ)


def _first_process_started() -> int:
    """Return when process 1 was started, in ticks since the machine's boot; 0 when that is unknown."""
    fields = text_of("/proc/1/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


_HARDWARE = ("product_uuid", "product_serial", "board_serial", "board_asset_tag")  # of DMI; only root can read some
_INSTANCE = "/var/lib/cloud/data/instance-id"


def signs() -> Signs:
    """Return what distinguishes this machine from a clone of it, as far as it can be read: texts, and `macs`, a list."""
    return _signs(os.environ.get("GPURUN_SYSTEM", ""))


@functools.lru_cache(maxsize=None)
def _signs(system: str) -> Signs:
    if in_container() and not system:  # the hardware is not the container's own
        return {}
    values: Signs = {"hostname": hostname()}
    for name in _HARDWARE:
        values[name] = text_of("%s/sys/class/dmi/id/%s" % (system, name))
    values["instance"] = text_of(system + _INSTANCE)
    cards = [
        os.path.dirname(path) for path in glob.glob(system + "/sys/class/net/*/device")
    ]  # without bridges and tunnels
    values["macs"] = sorted(
        {text_of(card + "/address") for card in cards if text_of(card + "/addr_assign_type") == "0"} - {""}
    )
    return {name: value for name, value in values.items() if value}


def another_machine(before: Signs, now: Signs) -> Optional[str]:
    """Return why these are the signs of two machines, in words; None when they may be of one machine.

    The host name counts only when no other sign exists: machines are renamed.
    """
    for name in (*_HARDWARE, "instance"):
        if before.get(name) and now.get(name) and before[name] != now[name]:
            return "its %s differs" % name.replace("_", " ").replace("instance", "cloud instance")
    cards = [set(machine_signs.get("macs") or []) for machine_signs in (before, now)]
    if all(cards):
        return None if cards[0] & cards[1] else "its network cards differ"
    unique = before.get("product_uuid") and before.get("product_uuid") == now.get("product_uuid")
    names = (before.get("hostname"), now.get("hostname"))
    if all(names) and names[0] != names[1] and not unique:
        return "its name was %s and is %s" % names
    return None


def booted_at() -> float:
    """Return when the machine was started (unix seconds)."""
    named = os.environ.get("GPURUN_BOOT_ID_FILE")
    if named:
        return os.stat(named).st_mtime
    for line in text_of("/proc/stat").splitlines():
        if line.startswith("btime "):
            since = _first_process_started() / os.sysconf("SC_CLK_TCK") if in_container() else 0.0
            return float(line.split()[1]) + since
    return 0.0


def in_container() -> bool:
    return any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")))


def host_id(host: HostPaths) -> str:
    """Return this host's random id. The first call makes it. The file's second line has the machine's signs."""
    path = host_id_file(host)
    stored = text_of(path).split("\n")[0]
    if stored:
        return stored
    os.makedirs(host.root, mode=0o700, exist_ok=True)
    make_root_id(host)
    return _make_once(path, "%s\n%s\n" % (secrets.token_hex(8), json.dumps(signs(), sort_keys=True)))


def _make_once(path: str, text: str) -> str:
    """Make a file that is never changed, and return its first line. Of two processes at once the first one wins."""
    beside = "%s.%s" % (path, secrets.token_hex(4))
    try:
        with open(beside, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)  # complete, or not there
    except FileExistsError:
        pass
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside)
    return text_of(path).split("\n")[0]


def make_root_id(host: HostPaths) -> None:
    """Make the id of an existing root that has none. When the disk refuses, the next verb tries again."""
    if os.path.isdir(host.root) and not text_of(host.root_id):
        with suppress(OSError):
            _make_once(host.root_id, secrets.token_hex(8) + "\n")


def root_mark(host: HostPaths) -> str:
    """Return the mark that processes and sockets of this root's runs have: another root may have a run of the same id.

    Empty when the root does not exist yet, or has no room for its id. A process without a mark counts as part of every
    root.
    """
    own_id = text_of(host.root_id)
    source = "%s\0%s" % (os.path.realpath(host.root), own_id)
    return hashlib.sha256(os.fsencode(source)).hexdigest()[:16] if own_id else ""


def host_id_file(host: HostPaths) -> str:
    """Return the path of this machine's id: beside the id of a machine with the same machine id and other hardware."""
    path = "%s-%s" % (host.host_id, hashlib.sha256(machine_id().encode()).hexdigest()[:12])
    try:
        stored = json.loads((text_of(path).split("\n")[1:] or ["{}"])[0])
    except ValueError:
        return path
    if another_machine(stored if isinstance(stored, dict) else {}, signs()) is None:
        return path
    return "%s-%s" % (path, hashlib.sha256(json.dumps(signs(), sort_keys=True).encode()).hexdigest()[:12])


def machines_here(host: HostPaths) -> int:
    """Return how many machines have used this root. More than one: the home is shared."""
    folder, name = os.path.split(host.host_id)
    try:
        return sum(1 for entry in os.listdir(folder) if entry.startswith(name + "-") and "." not in entry)
    except FileNotFoundError:
        return 0


def text_of(path: str) -> str:
    """Return the text of a file without blanks around it; "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

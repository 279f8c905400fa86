"""Identify the machine, its boot and the root of gpurun's files, so that a clone, a reboot and another root are recognized.

GPURUN_MACHINE_ID_FILE and GPURUN_BOOT_ID_FILE name other files than the system's, for tests that reboot a host or
make two of one machine; the boot is then as old as the second file.

A home may be shared by several hosts, so the host's random id lies in a file that the machine's own id is part of the
name of: `host-id-<hash of the machine id>`. Whoever finds two of them knows that the home is shared.

Machines of one image, and a disk that was cloned, have one machine id. What a clone does not copy are the signs of the
hardware: they tell such machines from one another. GPURUN_SYSTEM names a folder that stands for / where these are read.
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
    """Which machine this is. Containers of one image may have one machine id: their host name is part of it there."""
    told = os.environ.get("GPURUN_MACHINE_ID_FILE")
    found = [text for text in (text_of(path) for path in ([told] if told else _MACHINE_IDS)) if text]
    if found and (told or not in_container()):
        return found[0]
    return hashlib.sha256("\0".join([*found[:1], hostname()]).encode()).hexdigest()[:32]


def boot_id() -> str:
    """Another one after each boot of the machine; in a container, after each start of the container too."""
    told = os.environ.get("GPURUN_BOOT_ID_FILE")
    if told:
        return text_of(told)
    if not in_container():
        return text_of(_BOOT_ID)
    # With its first process all others of a container have gone, whatever the machine does.
    return hashlib.sha256(("%s %s" % (text_of(_BOOT_ID), _first_process_started())).encode()).hexdigest()[:32]


def is_this_boot(told: Optional[str]) -> bool:
    """What was noted with `told` was noted in this boot; also for None, and for a container's machine as it was told before."""
    return told in (None, boot_id()) or (told == text_of(_BOOT_ID) and "GPURUN_BOOT_ID_FILE" not in os.environ)


def _first_process_started() -> int:
    """When process 1 was started, in ticks since the machine's boot; 0 where that is not told."""
    fields = text_of("/proc/1/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


_HARDWARE = ("product_uuid", "product_serial", "board_serial", "board_asset_tag")  # of DMI; some for root alone
_INSTANCE = "/var/lib/cloud/data/instance-id"


def signs() -> Signs:
    """What tells this machine from a clone of it, as far as it can be read: texts, and `macs`, a list."""
    return _signs(os.environ.get("GPURUN_SYSTEM", ""))


@functools.lru_cache(maxsize=None)
def _signs(system: str) -> Signs:
    if in_container() and not system:  # its machine is none of its own
        return {}
    found: Signs = {"hostname": hostname()}
    for name in _HARDWARE:
        found[name] = text_of("%s/sys/class/dmi/id/%s" % (system, name))
    found["instance"] = text_of(system + _INSTANCE)
    cards = [os.path.dirname(path) for path in glob.glob(system + "/sys/class/net/*/device")]  # no bridge, no tunnel
    found["macs"] = sorted(
        {text_of(card + "/address") for card in cards if text_of(card + "/addr_assign_type") == "0"} - {""}
    )
    return {name: value for name, value in found.items() if value}


def another_machine(before: Signs, now: Signs) -> Optional[str]:
    """Why these are the signs of two machines, in words; None when they may be one's.

    The name alone says something only where nothing else does: machines are renamed.
    """
    for name in (*_HARDWARE, "instance"):
        if before.get(name) and now.get(name) and before[name] != now[name]:
            return "its %s is another" % name.replace("_", " ").replace("instance", "cloud instance")
    cards = [set(told.get("macs") or []) for told in (before, now)]
    if all(cards):
        return None if cards[0] & cards[1] else "its network cards are others"
    unique = before.get("product_uuid") and before.get("product_uuid") == now.get("product_uuid")
    names = (before.get("hostname"), now.get("hostname"))
    if all(names) and names[0] != names[1] and not unique:
        return "its name was %s and is %s" % names
    return None


def booted_at() -> float:
    """When the machine was started (unix seconds)."""
    told = os.environ.get("GPURUN_BOOT_ID_FILE")
    if told:
        return os.stat(told).st_mtime
    for line in text_of("/proc/stat").splitlines():
        if line.startswith("btime "):
            since = _first_process_started() / os.sysconf("SC_CLK_TCK") if in_container() else 0.0
            return float(line.split()[1]) + since
    return 0.0


def in_container() -> bool:
    return any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")))


def host_id(host: HostPaths) -> str:
    """This host's random id, made at the first call. The file's second line has the machine's signs."""
    path = host_id_file(host)
    found = text_of(path).split("\n")[0]
    if found:
        return found
    os.makedirs(host.root, mode=0o700, exist_ok=True)
    make_root_id(host)
    return _make_once(path, "%s\n%s\n" % (secrets.token_hex(8), json.dumps(signs(), sort_keys=True)))


def _make_once(path: str, text: str) -> str:
    """Make a file that lasts and never changes. Return its first line: of two that come at once the first wins."""
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
    """Make the id of a root that is there and has none. What the disk refuses is tried again by the next verb."""
    if os.path.isdir(host.root) and not text_of(host.root_id):
        with suppress(OSError):
            _make_once(host.root_id, secrets.token_hex(8) + "\n")


def root_mark(host: HostPaths) -> str:
    """Return what processes and sockets of this root's runs carry, for another root may have a run of the same id.

    Empty where there is no root yet, or no room for its id: what carries no mark counts as of every root.
    """
    found = text_of(host.root_id)
    told = "%s\0%s" % (os.path.realpath(host.root), found)
    return hashlib.sha256(os.fsencode(told)).hexdigest()[:16] if found else ""


def host_id_file(host: HostPaths) -> str:
    """Where this machine's id lies: beside that of a machine with the same machine id and other hardware."""
    path = "%s-%s" % (host.host_id, hashlib.sha256(machine_id().encode()).hexdigest()[:12])
    try:
        known = json.loads((text_of(path).split("\n")[1:] or ["{}"])[0])
    except ValueError:
        return path
    if another_machine(known if isinstance(known, dict) else {}, signs()) is None:
        return path
    return "%s-%s" % (path, hashlib.sha256(json.dumps(signs(), sort_keys=True).encode()).hexdigest()[:12])


def machines_here(host: HostPaths) -> int:
    """How many machines have used this root: more than one is a home that is shared."""
    folder, name = os.path.split(host.host_id)
    try:
        return sum(1 for entry in os.listdir(folder) if entry.startswith(name + "-") and "." not in entry)
    except FileNotFoundError:
        return 0


def text_of(path: str) -> str:
    """Return the text of a file without blanks around it; nothing where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""

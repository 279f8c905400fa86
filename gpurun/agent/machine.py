"""Which machine this is, and since when it runs.

`GPURUN_MACHINE_ID_FILE` and `GPURUN_BOOT_ID_FILE` name other files than the system's, for tests that make several hosts,
or a reboot, on one machine.
"""

from __future__ import annotations

import os
import secrets
import socket

from .files import read_json, write_json
from .locks import host_lock
from .paths import HostPaths


def machine_id() -> str:
    """The same for this machine's life; a container without one of its own is known by its host name."""
    return _first_line(os.environ.get("GPURUN_MACHINE_ID_FILE", "/etc/machine-id")) or hostname()


def boot_id() -> str:
    """Another one after each boot."""
    return _first_line(os.environ.get("GPURUN_BOOT_ID_FILE", "/proc/sys/kernel/random/boot_id"))


def booted_at() -> float:
    """Unix seconds."""
    with open("/proc/stat") as file:
        line = next(line for line in file if line.startswith("btime "))
    return float(line.split()[1])


def hostname() -> str:
    return socket.gethostname()


def host_id(host: HostPaths) -> str:
    """Random, made once: the same host whatever its address. A home that two machines share holds one for each."""
    key = machine_id()
    known = read_json(host.host_id) or {}
    if key not in known:
        os.makedirs(host.root, mode=0o700, exist_ok=True)
        with host_lock("host-id"):
            known = read_json(host.host_id) or {}
            known.setdefault(key, secrets.token_hex(8))
            write_json(host.host_id, known)
    return str(known[key])


def _first_line(path: str) -> str:
    try:
        with open(path) as file:
            return file.readline().strip()
    except FileNotFoundError:
        return ""

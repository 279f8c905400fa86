"""Collect the facts of this host and cache them for ten minutes: nvidia-smi and the engine may take seconds."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import sys
import time
from typing import TYPE_CHECKING, Dict, List, Optional, cast

from .. import error_codes, machine
from ..errors import AgentError
from ..files import read_json, write_json
from ..paths import HostPaths
from . import gpus

if TYPE_CHECKING:
    from ..schema.host import AskedFacts, CachedFacts, Disk, EngineAnswer, ErrorDocument, GpuAnswer, HostFacts

FRESH = 600.0  # seconds that cached facts are good for
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_facts(host: HostPaths, engine: Optional[List[str]] = None, *, refresh: bool = False) -> HostFacts:
    """Return HostFacts as the wire has them (bytes, unix seconds). `disk` and `clock` are never cached."""
    cached: Optional[CachedFacts] = None if refresh else read_json(host.facts)
    if not cached or not _is_fresh(cached, engine):
        cached = {
            **_collect(host, engine),
            "boot_id": machine.boot_id(),
            "machine_id": machine.machine_id(),
            "engine_asked": engine,
            "asked_at": time.time(),
        }
        # A failure may soon be repaired: do not cache it.
        if not cached["engine_error"] and not cached["gpus_error"]:
            os.makedirs(host.cache, mode=0o700, exist_ok=True)
            write_json(host.facts, cached)
    return {**cached, "disk": disk(host.root), "clock": time.time()}


def _is_fresh(cached: CachedFacts, engine: Optional[List[str]]) -> bool:
    """Return whether the cached facts are of this boot, this host and this engine, and young enough."""
    stamp = (cached.get("boot_id"), cached.get("machine_id"), cached.get("engine_asked"))
    return stamp == (machine.boot_id(), machine.machine_id(), engine) and 0 <= time.time() - cached["asked_at"] < FRESH


def disk(path: str) -> Disk:
    """Return bytes and inodes of the file system that `path` is on, or will be on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return {
        "free": status.f_bavail * status.f_frsize,
        "total": status.f_blocks * status.f_frsize,
        "inodes_free": status.f_favail,
        "inodes": status.f_files,
    }


def _collect(host: HostPaths, engine: Optional[List[str]]) -> AskedFacts:
    engine_facts = _engine_facts(engine)
    return {
        "python": {"path": sys.executable, "version": platform.python_version()},
        "home": os.path.expanduser("~"),
        "user": getpass.getuser(),
        "hostname": machine.hostname(),
        "host_id": machine.host_id(host),
        "root": host.root,
        "container": machine.in_container(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": memory(),
        "runtimes": ["docker", "bare"] if engine_facts["engine"] else ["bare"],
        **engine_facts,
        **_gpu_facts(),
    }


def _gpu_facts() -> GpuAnswer:
    try:
        listed = gpus.list_gpus()
        driver = gpus.driver_version() if listed else None
    except AgentError as error:
        return {"gpus": [], "driver": None, "gpus_error": error.as_json()}
    return {
        "gpus": [{"index": gpu.index, "uuid": gpu.uuid, "name": gpu.name, "memory": gpu.memory} for gpu in listed],
        "driver": driver,
        "gpus_error": None,
    }


def _engine_facts(argv: Optional[List[str]]) -> EngineAnswer:
    """Return the facts of the engine that the profile names, else of Docker when the host has it."""
    named = argv or ["docker"]
    if shutil.which(named[0]) is None:
        if argv is None:
            return {"engine": None, "engine_error": None}
        missing = "the host has no program `%s`" % named[0]
        next_step = "correct `engine` in the host's profile (hosts.toml)"
        return {"engine": None, "engine_error": AgentError(error_codes.ENGINE_MISSING, missing, next_step).as_json()}
    from . import engine

    try:
        return {"engine": engine.Engine(named).facts(), "engine_error": None}
    except AgentError as error:
        document = cast("ErrorDocument", {**error.as_json(), **_advise_on_permission(error, argv)})
        return {"engine": None, "engine_error": document}


def _advise_on_permission(error: AgentError, argv: Optional[List[str]]) -> Dict[str, str]:
    """Return how to get permission to use the engine, where permission is missing."""
    if error.code != error_codes.ENGINE_NO_RIGHT:
        return {}
    from . import engine

    join = "sudo usermod -aG docker %s, then log out of the host" % getpass.getuser()
    if argv is None:
        try:
            engine.Engine(["sudo", "-n", "docker"]).facts()
        except (AgentError, FileNotFoundError):
            return {"next": join}
        profile = 'engine = "sudo -n docker" in the host\'s profile (hosts.toml) works here too'
        return {"next": join + "; " + profile, "works": "sudo -n docker"}
    return {"next": join}


def memory() -> int:
    """Return the bytes of memory that processes here may use: the machine's, or the limit of the container that is this
    host.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for text in map(machine.text_of, _MEMORY_LIMITS) if text.isdigit()]
    return min([total, *limits])

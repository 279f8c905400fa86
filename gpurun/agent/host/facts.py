"""What this host is and has, asked once in ten minutes: nvidia-smi and the engine may take seconds."""

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
    """HostFacts as the wire has them (bytes, unix seconds); disk and clock are always of now."""
    known: Optional[CachedFacts] = None if refresh else read_json(host.facts)
    if not known or not _is_fresh(known, engine):
        known = {
            **_ask(host, engine),
            "boot_id": machine.boot_id(),
            "machine_id": machine.machine_id(),
            "engine_asked": engine,
            "asked_at": time.time(),
        }
        # A failure may be mended in a moment: it is asked again.
        if not known["engine_error"] and not known["gpus_error"]:
            os.makedirs(host.cache, mode=0o700, exist_ok=True)
            write_json(host.facts, known)
    return {**known, "disk": disk(host.root), "clock": time.time()}


def _is_fresh(known: CachedFacts, engine: Optional[List[str]]) -> bool:
    stamp = (known.get("boot_id"), known.get("machine_id"), known.get("engine_asked"))
    return stamp == (machine.boot_id(), machine.machine_id(), engine) and 0 <= time.time() - known["asked_at"] < FRESH


def disk(path: str) -> Disk:
    """Bytes and inodes of the file system that `path` is on, or will be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return {
        "free": found.f_bavail * found.f_frsize,
        "total": found.f_blocks * found.f_frsize,
        "inodes_free": found.f_favail,
        "inodes": found.f_files,
    }


def _ask(host: HostPaths, engine: Optional[List[str]]) -> AskedFacts:
    engine_facts = _engine(engine)
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
        **_gpus(),
    }


def _gpus() -> GpuAnswer:
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


def _engine(argv: Optional[List[str]]) -> EngineAnswer:
    """The engine that the profile names, else Docker when it is there."""
    named = argv or ["docker"]
    if shutil.which(named[0]) is None:
        if argv is None:
            return {"engine": None, "engine_error": None}
        missing = "there is no `%s` on this host" % named[0]
        mend = "put right `engine` in the host's profile (hosts.toml)"
        return {"engine": None, "engine_error": AgentError(error_codes.ENGINE_MISSING, missing, mend).as_json()}
    from . import engine

    try:
        return {"engine": engine.Engine(named).facts(), "engine_error": None}
    except AgentError as error:
        told = cast("ErrorDocument", {**error.as_json(), **_way_in(error, argv)})
        return {"engine": None, "engine_error": told}


def _way_in(error: AgentError, argv: Optional[List[str]]) -> Dict[str, str]:
    """How to get the right to the engine, where that is what is missing."""
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
    """Bytes that processes here may use: the machine's, or the limit of the container that this host is."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for text in map(machine.text_of, _MEMORY_LIMITS) if text.isdigit()]
    return min([total, *limits])

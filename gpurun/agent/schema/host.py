"""What a host is and has."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict, Union

Signs = Dict[str, Union[str, List[str]]]  # of the hardware, by name; see agent/machine.py
Inspected = Dict[str, Any]  # an engine's own document, as `docker inspect` or `docker info` prints it


class Disk(TypedDict):
    """Room on a file system. Made by agent/host/facts.py."""

    free: int  # bytes
    total: int  # bytes
    inodes_free: int
    inodes: int


class LastingDisk(Disk):
    """A folder on a disk that outlives a reboot. Made by agent/host/disks.py, shown by `host add` and `host check`."""

    path: str
    mount: str
    type: str  # of the file system


class GpuOfRun(TypedDict):
    """A GPU that a run has, or a MIG slice of one. In the event `leased`, and in a RunRecord."""

    index: int  # of a slice, its GPU's
    uuid: str
    name: str


class GpuFacts(GpuOfRun):
    """A GPU of a host. In HostFacts."""

    memory: int  # bytes; 0 when the driver does not tell


class EngineInfo(TypedDict):
    """What decides who a job is in its container. Parsed from `docker info` by agent/host/engine.py."""

    version: str
    root: Optional[str]  # where its images lie
    rootless: bool
    userns: bool
    selinux: bool


class EngineFacts(EngineInfo):
    """The engine of a host. In HostFacts and in job.json."""

    argv: List[str]
    toolkit: bool  # containers can be given GPUs, as far as can be seen


class Python(TypedDict):
    """The Python that runs the agent."""

    path: str
    version: str


class FoundPython(Python):
    """A Python that jobs without an engine could use. Made by agent/images/environments.py, shown by `host check`."""

    torch: Optional[str]  # its version


class BasePython(FoundPython):
    """All that agent/images/environments.py asks a Python for; kept with the environment that is made from it."""

    prefix: str
    venv: bool
    packages: List[str]  # folders


class _Error(TypedDict):
    code: str  # one of error_codes
    what: str
    where: str
    next: str
    exit: int  # the exit code of the laptop's command


class ErrorDocument(_Error, total=False):
    """A refusal. Written by agent/errors.py, raised again on the laptop by remote/wire.py."""

    works: str  # in `engine_error`: the engine that the host's profile could name instead


class EngineAnswer(TypedDict):
    """The engine of a host, or why it cannot be asked."""

    engine: Optional[EngineFacts]
    engine_error: Optional[ErrorDocument]


class GpuAnswer(TypedDict):
    """The GPUs of a host, or why they cannot be listed."""

    gpus: List[GpuFacts]
    driver: Optional[str]
    gpus_error: Optional[ErrorDocument]


class AskedFacts(EngineAnswer, GpuAnswer):
    """What takes seconds to ask, kept for ten minutes. Made by agent/host/facts.py."""

    python: Python
    home: str
    user: str
    hostname: str
    host_id: str
    root: str  # of gpurun's files
    container: bool
    cpus: int
    memory: int  # bytes that processes may use
    runtimes: List[str]


class CachedFacts(AskedFacts):
    """cache/facts.json. Written and read by agent/host/facts.py."""

    boot_id: str
    machine_id: str
    engine_asked: Optional[List[str]]  # argv, as the profile names it
    asked_at: float


class HostFacts(CachedFacts):
    """The answer to `facts`, and a part of others: cached, but for disk and clock, which are of now."""

    disk: Disk
    clock: float

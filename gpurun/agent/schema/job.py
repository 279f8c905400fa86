"""job.json: what the user asked for, and what the host added when it accepted the run."""

from __future__ import annotations

from typing import List, Optional, TypedDict, Union

from .host import EngineFacts, Signs

GpuRequest = Union[int, str]  # a number of GPUs, or "all"


class ProjectOfJob(TypedDict):
    """Which project a job is of. Written by the laptop; `root` is the laptop's path."""

    name: str
    root: str


class Resources(TypedDict):
    """What the user asked for. Written by the laptop, read by queue and runtimes. None: no limit was asked for."""

    gpus: GpuRequest
    memory: Optional[int]  # bytes
    cpus: Optional[float]
    shm: Optional[int]  # bytes


class _Mount(TypedDict):
    source: str  # a path of the host; may begin with `~/`
    target: str
    readonly: bool


class Mount(_Mount, total=False):
    """A directory or file of the host that the job sees. Written by the laptop, read by the runtimes."""

    name: Optional[str]  # of the host's data, where the profile names the source; 0.1.0 did not write it


class Port(TypedDict):
    """A port of the job that a tunnel leads to. Written by the laptop from the job file, read by its tunnel."""

    local: Optional[int]  # None: the same as `remote`
    remote: int


class Service(TypedDict):
    """Which service a run is. Written by the laptop, read by agent/setup/services.py."""

    kind: str  # one of vocabulary.SERVICES
    title: str
    idle: float  # seconds without use after which it ends; 0: never
    run: Optional[str]  # the one run that a TensorBoard is about


class Notebook(TypedDict):
    """The script that a notebook became. Written by the laptop, read by agent/setup/notebooks.py."""

    path: str  # the notebook, in the project
    script: str  # the file name of `source`
    source: str


class Base(TypedDict):
    """The base that gpurun's own image is built on. Written by the laptop (job/images.py), read by agent/images."""

    name: str
    reference: str
    torch: str
    cuda: str
    driver: str  # the oldest NVIDIA driver that runs it
    room: int  # bytes that it wants free
    asked: bool  # the user named it


class _Dependencies(TypedDict):
    kind: str  # uv, requirements or pyproject
    file: str


class Dependencies(_Dependencies, total=False):
    """What to install for a project. Written by the laptop (job/dependencies.py), read by agent/images/layers.py."""

    requirements: List[str]  # of a pyproject
    tools: List[str]  # what a service or a notebook needs besides


class _Git(TypedDict):
    commit: Optional[str]
    branch: Optional[str]
    dirty: bool


class Git(_Git, total=False):
    """The state of the project's repository. Written by the laptop (config/project.py), shown by `status` and `which`."""

    patch: Optional[str]  # against the commit; bytes that are not UTF-8 are surrogates


class Profile(TypedDict):
    """What of the host's profile a job needs. Written by the laptop (job/spec.py), read by agent/images."""

    python: Optional[str]
    engine: Optional[List[str]]
    pip_index: Optional[str]
    registry_mirror: Optional[str]


class _JobSpec(TypedDict):
    schema: int
    id: str
    token: str
    name: str
    owner: str
    created: float
    project: ProjectOfJob
    job_file: Optional[str]
    command: List[str]
    script: str
    service: Optional[Service]
    notebook: Optional[Notebook]
    ports: List[Port]
    args: List[str]
    resources: Resources
    runtime: Optional[str]  # as requested; the one that was chosen is in `host`
    image: Optional[str]
    base: Optional[Base]
    dockerfile: Optional[str]
    env: List[str]  # names alone
    mounts: List[Mount]
    max_duration: Optional[float]  # seconds
    grace: float  # seconds
    retries: int
    on_checkpoint: Optional[str]
    on_end: Optional[str]
    dependencies: Optional[Dependencies]
    git: Optional[Git]
    keep_caps: List[str]
    user: Optional[str]
    profile: Profile
    fetch_hint: str


class JobSpec(_JobSpec, total=False):
    """What the user asked for, with no secret in it. Written by the laptop (job/spec.py), sent with `prepare`."""

    data: Optional[str]  # the mount that stands in for the project's data folder; 0.1.0 did not write it


class FactsOfHost(TypedDict):
    """What of the host's facts is kept with a job."""

    engine: Optional[EngineFacts]
    memory: int  # bytes


class _MachineOfRun(TypedDict):
    hostname: str
    machine_id: str
    boot_id: str


class MachineOfRun(_MachineOfRun, total=False):
    """Which machine a run belongs to: in job.json, and adopted.json of a run that was given up. See agent/state/origin.py."""

    signs: Signs  # 0.1.0 wrote neither this nor `runs`
    runs: str  # the folder of the runs


class HostOfJob(MachineOfRun):
    """What runs a job. Written by `prepare`."""

    id: str
    runtime: str  # the one that was chosen
    engine: Optional[List[str]]  # argv
    facts: FactsOfHost


class Job(JobSpec):
    """job.json: immutable. Written by `prepare`, read by every verb of the host, sent with `status` and `migrate`."""

    host: HostOfJob


class AttemptJob(Job):
    """The job as the present attempt runs it; never in a file. Made by agent/state/jobs.py."""

    attempt: int
    resume: Optional[str]  # the checkpoint that it begins from, by the path that the job sees

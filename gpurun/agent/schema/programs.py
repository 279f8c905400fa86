"""What is told to the programs that stand alone on a host, as JSON: the keeper of a job, the installer of dependencies, a hook."""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict

from .job import Dependencies


class KeeperOrder(TypedDict):
    """The job that a keeper is to start. Made by agent/runtimes/bare.py, read by keeper.py beside it."""

    id: str
    argv: List[str]
    cwd: str
    env: Dict[str, str]
    boot_id: str
    log: str  # this and the next two are paths
    record: str
    control: str
    fds: List[int]  # locks that the job inherits
    root: str  # the mark of the root that the run is in


class WitnessOrder(TypedDict):
    """What the upper one of two keepers goes on with. Made and read by keeper.py, in two programs."""

    order: KeeperOrder
    lower: int  # pid
    control: int  # this and the next two are descriptors
    answer: int
    begun: int


class _KeeperRecord(TypedDict):
    pid: int  # of the job's main process
    ticks: Optional[int]  # when it was started, since the boot
    boot_id: str
    keeper: int  # pid
    started: float


class KeeperRecord(_KeeperRecord, total=False):
    """keeper.json of a run. Written by agent/runtimes/keeper.py, read by bare.py beside it."""

    exit_code: int  # this and the next once the job has ended
    finished: float


class SshOfInstaller(TypedDict):
    """Paths in the container by which pip reaches a repository over SSH."""

    agent: str
    known_hosts: str


class _InstallOrder(Dependencies):
    project: str
    index: Optional[str]
    where: str  # the base, as messages call it


class InstallOrder(_InstallOrder, total=False):
    """What is to be installed. Made by agent/images, read by layer_install.py there."""

    cache: str  # pip's, in a container
    ssh: Optional[SshOfInstaller]


class HookOrder(TypedDict):
    """The hook to run. Made and read by agent/lifecycle/hooks.py, in two processes."""

    run: str  # its folder
    name: str  # on_checkpoint or on_end
    command: str
    facts: Dict[str, str]  # what the hook finds in its environment
    variables: str  # shell text that sets the user's own
    line: int  # of the checkpoint, in the ledger

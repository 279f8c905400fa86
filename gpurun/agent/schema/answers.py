"""The answers of the wire, one class a verb. Made by agent/verbs/<verb>.py, checked on the laptop by remote/answers.py.

The answer to `facts` is host.HostFacts.
"""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple, TypedDict, Union

from .checkpoint import Checkpoint, Ledgers, PlacedCheckpoint
from .files import DataFolder, FileHash, LeftOfRun, MeasuredData, OutputFile, Skipped, Stays
from .host import FoundPython, GpuFacts, HostFacts, LastingDisk
from .job import Job
from .requests import Place
from .run import Environment, Event, Mark, Prepared, RunRecord


class RunAnswer(TypedDict):
    """`start`, `resume` and `logs`, read by commands/submit, commands/resume and commands/follow."""

    run: RunRecord


class PrepareAnswer(TypedDict):
    """`prepare`, read by commands/submit and commands/migrate."""

    created: bool
    run: RunRecord
    snapshot: str
    link_dest: List[str]
    facts: HostFacts


class MigratedCheckpoint(PlacedCheckpoint):
    """Where a checkpoint lies that another host needs."""

    folder: str
    name: str


class MigrateAnswer(TypedDict, total=False):
    """`migrate`, read by commands/migrate: `run` to `checkpoint`; or `begun` and `run`; or nothing."""

    run: Optional[RunRecord]
    job: Job
    root: str
    snapshot: List[Tuple[str, str, int, int, str]]  # path, kind, size, mtime_ns, target
    checkpoint: Optional[MigratedCheckpoint]
    begun: bool


class RoomOnDisk(TypedDict):
    """The disk of gpurun's files. In the answer to `ps`."""

    free: int  # bytes
    total: int  # bytes


class GpuInUse(GpuFacts):
    """A GPU, and who has it. In the answer to `ps`."""

    used_by: Optional[str]  # in words
    run: Optional[str]  # the run that has it, by its id


class OtherRun(TypedDict):
    """A run of another account of the host. In the answer to `ps`."""

    run: str
    owner: Optional[str]
    gpus: List[int]


class _PsAnswer(TypedDict, total=False):
    gpu_error: str


class PsAnswer(_PsAnswer):
    """`ps`, read by commands/runs, and by whoever needs the newest of a run."""

    now: float
    more: Optional[Place]  # where the next page begins
    mark: Mark
    host_id: str
    hostname: str
    boot_id: str
    runs: List[RunRecord]
    ledgers: Ledgers
    queue: List[str]
    disk: RoomOnDisk
    gpus: List[GpuInUse]
    others: List[OtherRun]


class StatusAnswer(TypedDict):
    """`status`, read by commands/runs and commands/follow."""

    run: RunRecord
    job: Optional[Job]
    events: List[Event]
    prepare_tail: Optional[str]
    log_tail: Optional[str]
    traceback: Optional[str]
    path: str
    environment: Optional[Environment]
    prepared: Optional[Prepared]
    ledgers: Ledgers


class WaitAnswer(TypedDict):
    """`wait`, read by commands/runs, commands/stop and hosts/leave."""

    runs: List[RunRecord]
    ledgers: Ledgers


class StopAnswer(TypedDict):
    """`stop`, read by commands/stop and hosts/leave."""

    runs: List[RunRecord]


class RmAnswer(TypedDict):
    """`rm`, read by commands/removal."""

    removed: List[str]
    freed: int  # bytes
    left: List[LeftOfRun]


class Held(TypedDict):
    """What would go with a run. Made by agent/lifecycle/unfetched.py, read by commands/unfetched.py."""

    live: bool
    container: bool
    files: int
    bytes: int
    stamp: Optional[str]
    elsewhere: Optional[float]  # when some laptop had fetched all that there is now


class HeldWithShells(Held):
    """The same, with the commands that end the shells in it."""

    shells: List[str]


class UnfetchedAnswer(TypedDict):
    """`unfetched`, read by commands/unfetched."""

    runs: List[RunRecord]
    held: Dict[str, HeldWithShells]
    ledgers: Ledgers


class ShellAnswer(TypedDict):
    """`shell`, read by cli/shell."""

    argv: List[str]
    path: str
    ended: bool


class OutputsAnswer(TypedDict):
    """`outputs`, read by fetch/once and commands/notebook_session."""

    run: str
    record: RunRecord
    ledgers: Ledgers
    root: str
    live: bool
    now: float
    files: List[OutputFile]
    skipped: List[Skipped]
    caches: List[str]
    bytes: int
    container: bool
    stamp: Optional[str]


class HashAnswer(TypedDict):
    """`hash`, read by fetch/verify."""

    hashes: Dict[str, FileHash]


class FetchedAnswer(TypedDict):
    """`fetched`, read by fetch."""

    counts: bool


_As = TypedDict("_As", {"as": str})


class CheckpointFile(Checkpoint, _As):
    """A checkpoint, and where its file lies."""

    folder: str
    name: str
    mtime_ns: int
    ctime_ns: int
    inode: int


class CheckpointAnswer(TypedDict):
    """`checkpoint`, read by fetch/checkpoint."""

    run: RunRecord
    ledgers: Ledgers
    count: int
    checkpoint: Optional[CheckpointFile]


class DataAnswer(TypedDict):
    """`data`, read by commands/push."""

    path: str
    empty: bool
    free: int  # bytes


class DataFoldersAnswer(TypedDict):
    """`data_folders`, read by commands/data."""

    folders: List[DataFolder]
    freed: int  # bytes
    left: List[str]


class Echo(TypedDict):
    """What sends back what comes: to try forwards on. In the answer to `check`."""

    port: int
    socket: str


class HomeFacts(TypedDict):
    """The file system of gpurun's files. In the answer to `check`."""

    type: str  # of the file system
    machines: int


class CheckAnswer(TypedDict):
    """`check`, read by hosts/check."""

    facts: HostFacts
    rsync: Optional[str]
    toolkit: Optional[str]
    pythons: List[FoundPython]
    engine_free: Optional[int]  # bytes
    disks: List[LastingDisk]
    home: HomeFacts
    ends_at_logout: bool
    echo: Optional[Echo]


class LeaveAnswer(TypedDict):
    """`leave`, read by hosts/leave."""

    revoked: int  # lines
    removed: List[str]
    freed: int  # bytes
    shared: bool
    data: Dict[str, MeasuredData]
    foreign: List[str]
    left: List[Stays]
    kept: List[Stays]


class WarmAnswer(TypedDict):
    """`warm`, read by hosts/ready."""

    name: str
    started: bool
    engine: bool


class ForwardTarget(TypedDict):
    """Where the host's sshd must forward the connections of a listener to."""

    name: str
    socket: Optional[str]
    port: Optional[int]
    token: Optional[str]


class TunnelAnswer(TypedDict):
    """`tunnel`, read by tunnel/link."""

    probe: Union[str, int, None]  # a path or a port
    listeners: List[ForwardTarget]
    runs: List[RunRecord]

"""The requests of the wire, one class a verb. Made by the laptop, read by agent/verbs/<verb>.py."""

from __future__ import annotations

from typing import Dict, List, Optional, Tuple, TypedDict

from .checkpoint import PlacedCheckpoint, Reported
from .job import Base, GpuRequest, JobSpec
from .run import AttemptSummary, Manifest
from .wire import Request

Place = Tuple[int, str]  # in the list of ended runs: time of job.json in nanoseconds, and id; a list in JSON
BytesRead = Dict[str, Dict[str, int]]  # run id -> host id -> bytes of its ledger that the laptop has


class LedgerRequest(Request, total=False):
    """A part of several requests: by it the answer has what is new of the runs' ledgers."""

    ledgers: BytesRead


class FactsRequest(Request):
    """`facts`, asked by hosts/verify."""


class CheckRequest(Request):
    """`check`, asked by hosts/check."""


class PrepareRequest(Request):
    """`prepare`, asked by commands/submit and commands/migrate."""

    job: JobSpec
    total_bytes: int


class StartRequest(Request):
    """`start`, asked by commands/submit."""

    run: str
    token: str
    manifest: Manifest
    env: Dict[str, str]  # values of the user's secrets
    follow: bool
    agent_socket: bool


class Carried(TypedDict):
    """What the laptop brings with a run that comes from another host."""

    checkpoint: Optional[PlacedCheckpoint]
    attempt: int  # the last one there
    earlier: List[AttemptSummary]
    progress: Optional[Reported]  # the last line of it


_From = TypedDict("_From", {"from": Optional[str]}, total=False)  # best, last or a path


class _ResumeRequest(Request, _From, total=False):
    manifest: Optional[Manifest]
    carried: Carried
    follow: bool


class ResumeRequest(_ResumeRequest):
    """`resume`, asked by commands/resume and commands/migrate."""

    run: str
    ask: str
    gpus: Optional[GpuRequest]
    env: Dict[str, str]


class _MigrateRequest(Request, _From, total=False):
    ask: str
    target: str
    to: str
    attempt: int
    back: str
    settle: str


class MigrateRequest(_MigrateRequest):
    """`migrate`, asked by commands/migrate: `ask`, `from` and `target`; or `to` and `attempt`; or `back`; or `settle`."""

    run: str


class PsRequest(LedgerRequest, total=False):
    """`ps`, asked by commands/runs, and by whoever needs the newest of a run."""

    all: bool
    ids: Optional[List[str]]
    gpus: bool
    limit: Optional[int]
    after: Optional[Place]  # where the page begins: `more` of the answer before


class StatusRequest(LedgerRequest):
    """`status`, asked by commands/runs and commands/follow."""

    run: str


class _LogsRequest(Request, total=False):
    follow: bool
    attempt: Optional[int]
    build: bool
    times: bool
    offset: Optional[int]
    prepare_offset: Optional[int]
    tail: Optional[int]  # lines
    since: Optional[float]  # seconds


class LogsRequest(_LogsRequest):
    """`logs`, asked by commands/follow."""

    run: str


class WaitRequest(LedgerRequest):
    """`wait`, asked by commands/runs, commands/stop and hosts/leave."""

    runs: List[str]
    seconds: float


class _StopRequest(Request, total=False):
    grace: Optional[float]  # seconds; None: the job's
    force: bool
    abandon: bool


class StopRequest(_StopRequest):
    """`stop`, asked by commands/stop and hosts/leave."""

    runs: List[str]


class _RmRequest(Request, total=False):
    stamps: Dict[str, Optional[str]]  # by run


class RmRequest(_RmRequest):
    """`rm`, asked by commands/removal."""

    runs: List[str]


class UnfetchedRequest(LedgerRequest):
    """`unfetched`, asked by commands/unfetched."""

    runs: List[str]


class _ShellRequest(Request, total=False):
    command: List[str]
    tty: bool


class ShellRequest(_ShellRequest):
    """`shell`, asked by cli/shell."""

    run: str


class _OutputsRequest(LedgerRequest, total=False):
    caches: bool
    outside: bool


class OutputsRequest(_OutputsRequest):
    """`outputs`, asked by fetch/once and commands/notebook_session."""

    run: str


class _HashRequest(Request, total=False):
    prefix: Dict[str, int]  # bytes, by path


class HashRequest(_HashRequest):
    """`hash`, asked by fetch/verify."""

    run: str
    paths: List[str]


class FetchedRequest(Request):
    """`fetched`, asked by fetch."""

    run: str
    what: str  # all or some
    attempt: int
    stamp: Optional[str]


class CheckpointRequest(LedgerRequest):
    """`checkpoint`, asked by fetch/checkpoint."""

    run: str
    which: str  # best, last or a SHA-256


class _DataRequest(Request, total=False):
    pushed: bool


class DataRequest(_DataRequest):
    """`data`, asked by commands/push."""

    name: str


class DataFoldersRequest(Request, total=False):
    """`data_folders`, asked by commands/data."""

    remove: Optional[str]


class _LeaveRequest(Request, total=False):
    runs: List[str]
    stamps: Dict[str, Optional[str]]  # by run
    stays: List[str]
    data: Dict[str, str]  # stamps by name
    keep_data: bool


class LeaveRequest(_LeaveRequest):
    """`leave`, asked by hosts/leave."""

    wipe: bool
    revoke: Optional[str]


class ProfileOfImage(TypedDict):
    """What of the host's profile decides how an image is made."""

    pip_index: Optional[str]
    registry_mirror: Optional[str]


class _WarmRequest(Request, total=False):
    follow: bool


class WarmRequest(_WarmRequest):
    """`warm`, asked by hosts/ready."""

    image: Optional[str]
    base: Optional[Base]
    profile: ProfileOfImage


class TunnelListener(TypedDict):
    """A listener of a tunnel. It leads to the service that a run is, to a port of a run, or (without a run) of the host."""

    name: str
    run: Optional[str]
    service: bool
    port: Optional[int]


class TunnelRequest(Request):
    """`tunnel`, asked by tunnel/link."""

    tunnel: str
    listeners: List[TunnelListener]
    loopback: bool

"""What is told of a run: its journal, the files beside it, and the record that the laptop gets."""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict, Union

from .checkpoint import Checkpoint, CheckpointSummary, PlacedCheckpoint, Reported
from .host import GpuOfRun
from .job import Git, GpuRequest, Port, Service


class Mark(TypedDict, total=False):
    """A moment. Made by agent/clocks.py; `t` is always there, the others not in what 0.1.0 wrote."""

    t: float
    up: float  # seconds since the boot
    boot: str  # which boot


class UploadNote(Mark, total=False):
    """upload.json of a run: what of an upload had come when. Written and read by agent/lifecycle/reconcile.py."""

    arrived: List[int]  # files, bytes, the newest change in nanoseconds


class Manifest(TypedDict):
    """What identifies a project's files. Made by agent/manifest.py on both floors, compared by `start`."""

    digest: str
    coarse: str  # the digest with times in whole seconds
    count: int
    bytes: int


class _Prepared(TypedDict):
    image: Optional[str]
    digest: Optional[str]
    image_id: Optional[str]  # None: there is no engine
    environment: Optional[str]  # the folder of an environment, or the tag of a layer


class Prepared(_Prepared, total=False):
    """What a runtime made ready: prepared.json, and in the event `prepared`. Written and read by agent/runtimes."""

    base: Optional[str]  # docker: what an image of gpurun's own stands on
    content: Optional[str]  # docker: the hash of all that it was made from
    base_id: str  # docker: the image below the layer of dependencies
    python: str  # bare
    path: List[str]  # bare: the folders that stand first on PATH


class AttemptSummary(TypedDict, total=False):
    """How an attempt went. Made by journal.summary; `attempt` is always there, `ran` not in what 0.1.0 wrote."""

    attempt: int
    state: Optional[str]
    reason: Optional[str]
    exit_code: Optional[int]
    message: Optional[str]
    started: Optional[float]
    ended: Optional[float]
    ran: Optional[float]  # seconds


class FactsOfEnd(TypedDict, total=False):
    """What is known of an end besides its state and its reason."""

    exit_code: Optional[int]
    message: Optional[str]
    next: Optional[str]


class Facts(FactsOfEnd, total=False):
    """What an event of the journal carries besides its name and its mark. Written through journal.record alone."""

    # created, syncing, queued, preparing, running (the states), waiting
    waiting: Optional[str]  # what for
    ticket: Optional[int]
    aside: bool  # it lets those behind it pass
    manifest: Optional[Manifest]  # of the snapshot
    boot_id: str
    # ended, and exit.json
    state: str
    reason: str  # a key of vocabulary.REASONS; also of `stop`
    ran: float  # seconds
    again: bool  # it ends the attempt and not the run
    # attempt
    number: int
    why: str  # resume or retry
    checkpoint: Optional[PlacedCheckpoint]
    gpus: Union[GpuRequest, List[GpuOfRun], None]  # what was asked for; of `leased`, what the run has
    ask: Optional[str]  # also of moving, given_back
    by: Optional[str]  # also of `stop`
    earlier: List[AttemptSummary]
    # moving, moved
    to: str  # the host, as the laptop calls it
    # step
    doing: str
    # stop
    grace: float  # seconds
    force: bool
    # prepared
    record: Prepared
    # note, which has a `message` too
    went_on: str  # the run that has this one's workspace now


class Event(Mark, Facts, total=False):
    """A line of events.jsonl. `t` and `event` are always there; written and read by agent/state/journal.py."""

    event: str
    v: int  # the schema; an event without one is of 1


class ExitRecord(Mark, Facts, total=False):
    """exit.json: how a run, or an earlier attempt, ended. Written and read by agent/state/journal.py."""

    attempt: int
    v: int


class Moving(TypedDict):
    """A move to another host whose outcome is not known. Made by agent/state/moving.py, read by commands/migrate.py."""

    ask: str
    to: str  # the host, as the laptop calls it


class Step(TypedDict):
    """What is being done before the job starts. In a RunRecord."""

    doing: str
    since: float
    seconds: float  # that it has taken so far


class Retries(TypedDict):
    """How often an attempt may begin by itself, and how often one did. In a RunRecord."""

    asked: int
    used: int


class Versions(TypedDict):
    """What a run ran on, in versions. Made by agent/images/inventory.py, in a RunRecord."""

    python: Optional[str]
    torch: Optional[str]
    cuda: Optional[str]
    cudnn: Optional[str]
    lightning: Optional[str]
    driver: Optional[str]


class Inventory(TypedDict):
    """What an image or an environment has. Printed by agent/images/inventory_probe.py, kept below cache/about/."""

    python: Optional[str]
    torch: Optional[str]
    cuda: Optional[str]
    cudnn: Optional[str]
    lightning: Optional[str]
    packages: Dict[str, str]  # versions by name


class Environment(Versions):
    """environment.json of a run. Written by agent/images/inventory.py, shown by `status` and `compare`."""

    runtime: str
    image: Optional[str]
    digest: Optional[str]
    image_id: Optional[str]
    base: Optional[str]
    content: Optional[str]
    environment: Optional[str]
    packages: Dict[str, str]
    gpus: List[GpuOfRun]


class FetchNote(TypedDict, total=False):
    """fetched.json of a run. Written by the verb `fetched`, read by holdings and records."""

    t: Optional[float]  # of a complete fetch of the ended run
    at: float
    what: str  # all or some
    stamp: Optional[str]


class _RunRecord(TypedDict):
    id: str
    name: str
    project: Optional[str]  # its name
    owner: Optional[str]
    script: Optional[str]
    args: List[str]
    command: List[str]
    git: Optional[Git]
    state: str  # one of vocabulary.STATES, UNKNOWN, or one that a newer gpurun knows
    reason: Optional[str]
    message: Optional[str]
    next: Optional[str]
    exit_code: Optional[int]
    attempt: int
    attempts: List[AttemptSummary]  # the earlier ones
    resumed: Optional[Checkpoint]
    retries: Retries
    created: Optional[float]
    since: Optional[float]
    started: Optional[float]
    ended: Optional[float]
    service: Optional[Service]
    ports: List[Port]
    gpus: List[GpuOfRun]  # that it has
    gpus_asked: Optional[GpuRequest]
    waiting: Optional[str]
    runtime: Optional[str]
    image: Optional[str]
    digest: Optional[str]
    environment: Optional[Versions]
    disk: Optional[int]  # bytes
    log_bytes: Optional[int]
    progress: Optional[Reported]
    metrics: Reported
    checkpoints: Optional[CheckpointSummary]
    live: bool
    stop_requested: bool
    kill_in: Optional[float]  # seconds
    saving: bool
    stopped: Optional[Reported]
    fetched: Optional[float]
    notes: List[str]
    host_id: Optional[str]
    boot_id: Optional[str]


class RunRecord(_RunRecord, total=False):
    """What the laptop is told of a run. Made by agent/lifecycle/records.py, kept by store/run_store.py, shown by `cli`.

    A record that a laptop has kept from 0.1.0 has none of the following keys.
    """

    problem: Optional[str]  # what keeps this gpurun from looking after the run
    newer: bool  # a newer gpurun's
    moving: Optional[Moving]
    ended_mark: Optional[Mark]
    ran: Optional[float]  # seconds
    step: Optional[Step]
    here: Optional[bool]  # it is of the machine that tells of it
    ready: bool  # of a service that a tunnel leads to: it answers
    left_behind: bool  # made by the laptop (commands/runs.py): the run went on elsewhere, this is of an attempt before

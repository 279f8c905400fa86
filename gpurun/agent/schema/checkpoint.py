"""Checkpoints: as the job's plugin lists them, and as gpurun tells of them."""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict

Reported = Dict[str, object]  # what a job wrote, as an object: whoever shows a value of it looks at that value first


class _LedgerEntry(TypedDict):
    path: str  # as the job calls it, relative to its workspace where it lies in there


class LedgerEntry(_LedgerEntry, total=False):
    """A line of out/checkpoints.jsonl. Written by the plugin, in the job: nothing but `path` is surely of its type.

    Read by agent/ledger.py; a laptop keeps what it was told of them (store/checkpoint_store.py).
    """

    t: float
    attempt: int
    epoch: Optional[int]
    step: Optional[int]
    monitor: Optional[str]
    mode: Optional[str]  # min or max
    value: Optional[float]  # of the monitored metric
    best: bool
    last: bool
    size: int  # bytes
    sha256: str
    mtime_ns: int
    complete: bool
    removed: bool


class FoundEntry(LedgerEntry):
    """An entry whose file is there. Made by agent/state/checkpoints.py."""

    file: str  # its path on the host


class KnownLedger(TypedDict):
    """What was read of a ledger before."""

    offset: int  # bytes
    entries: List[LedgerEntry]


class LedgerCache(KnownLedger):
    """ledger.cache of a run. Written and read by agent/ledger.py."""

    inode: int
    mark: str  # the SHA-256 of what stands before `offset`


class Checkpoint(TypedDict):
    """A checkpoint as a RunRecord tells of it. Made by ledger.brief; what has the wrong type in the ledger is None."""

    path: str
    size: Optional[int]  # bytes
    sha256: Optional[str]
    epoch: Optional[float]
    step: Optional[float]
    value: Optional[float]
    monitor: Optional[str]
    mode: Optional[str]
    attempt: Optional[float]
    t: Optional[float]


class PlacedCheckpoint(Checkpoint):
    """A checkpoint that an attempt begins from. In the event `attempt`, and in the request `resume`."""

    file: str  # relative to the run's folder where it lies in there, else a path of the host


class CheckpointSummary(TypedDict):
    """What a RunRecord tells of all checkpoints. Made by agent/state/checkpoints.py."""

    count: int
    best: Optional[Checkpoint]
    last: Optional[Checkpoint]


class NotedSummary(TypedDict):
    """checkpoints.json of a run that has ended. Written and read by agent/state/checkpoints.py."""

    of: List[int]  # size and mtime_ns of the ledger
    summary: CheckpointSummary


# Bytes `from` to `to` of a ledger, and the entries in them.
LedgerSpan = TypedDict("LedgerSpan", {"from": int, "to": int, "lines": List[LedgerEntry]})


class LedgerPiece(LedgerSpan):
    """What a run's ledger has behind what the laptop has read. Made by agent/state/ledger_sync.py, kept by
    store/checkpoint_store.py.
    """

    host_id: str


Ledgers = Dict[str, LedgerPiece]  # by the run's id

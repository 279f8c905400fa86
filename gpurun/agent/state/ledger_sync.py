"""What a laptop keeps of the ledgers of checkpoints: with its questions it says how far it has read, and gets the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Dict, Iterable, List, cast

from .. import machine
from ..files import open_regular
from ..ledger import parse
from ..paths import HostPaths, RunPaths

if TYPE_CHECKING:
    from ..schema.checkpoint import LedgerEntry, Ledgers, LedgerSpan
    from ..schema.requests import LedgerRequest

MOST = 1 << 18  # bytes of one ledger in one answer; the next contact goes on from there
MOST_IN_ALL = 1 << 22  # bytes of all ledgers in one answer
_KEYS = (
    "t", "attempt", "path", "epoch", "step", "monitor", "mode", "value", "best", "last", "size", "sha256", "complete",
    "removed",
)  # fmt: skip


def ledgers(request: LedgerRequest, host: HostPaths, runs: Iterable[RunPaths]) -> Ledgers:
    """`{run: {host_id, from, to, lines}}`: what their ledgers have behind what the laptop has read; bytes `from` to `to`.

    `ledgers` in the request is `{run: {host_id: bytes}}`, for a run may have gone on on another host. Without it nothing is told.
    """
    known = request.get("ledgers")
    if known is None:
        return {}
    here = machine.host_id(host)
    pieces: Dict[str, LedgerSpan] = {}
    left = MOST_IN_ALL
    for run in runs:
        if left <= 0:
            break
        pieces[run.id] = piece = _piece(run.ledger, int((known.get(run.id) or {}).get(here) or 0))
        left -= piece["to"] - piece["from"]
    return {run: {"host_id": here, **piece} for run, piece in pieces.items() if piece["to"] > piece["from"]}


def _piece(ledger: str, read: int) -> LedgerSpan:
    try:
        with open_regular(ledger) as file:
            if os.fstat(file.fileno()).st_size < read:
                read = 0  # the job began it anew
            file.seek(read)
            data = file.read(MOST)
    except OSError:
        return {"from": read, "to": read, "lines": []}
    end = data.rfind(b"\n") + 1
    if len(data) == MOST and end == 0:  # no line of the plugin's is as long
        end = MOST
    return {"from": read, "to": read + end, "lines": _lines(data[:end])}


def _lines(data: bytes) -> List[LedgerEntry]:
    told = filter(None, map(parse, data.split(b"\n")))
    return [cast("LedgerEntry", {key: entry[key] for key in _KEYS if entry.get(key) is not None}) for entry in told]

"""Send the laptop the new lines of its copies of the ledgers: a request contains how many bytes the laptop has."""

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

MOST = 1 << 18  # bytes of one ledger in one answer; the next answer continues there
MOST_IN_ALL = 1 << 22  # bytes of all ledgers in one answer
_KEYS = (
    "t", "attempt", "path", "epoch", "step", "monitor", "mode", "value", "best", "last", "size", "sha256", "complete",
    "removed",
)  # fmt: skip


def ledgers(request: LedgerRequest, host: HostPaths, runs: Iterable[RunPaths]) -> Ledgers:
    """Return `{run: {host_id, from, to, lines}}`: the lines of each ledger that the laptop lacks, bytes `from` to `to`.

    `ledgers` in the request is `{run: {host_id: bytes}}`, because a run may have continued on another host. Without it,
    the answer is empty.
    """
    read_bytes = request.get("ledgers")
    if read_bytes is None:
        return {}
    here = machine.host_id(host)
    pieces: Dict[str, LedgerSpan] = {}
    left = MOST_IN_ALL
    for run in runs:
        if left <= 0:
            break
        pieces[run.id] = piece = _read_piece(run.ledger, int((read_bytes.get(run.id) or {}).get(here) or 0))
        left -= piece["to"] - piece["from"]
    return {run: {"host_id": here, **piece} for run, piece in pieces.items() if piece["to"] > piece["from"]}


def _read_piece(ledger: str, read: int) -> LedgerSpan:
    try:
        with open_regular(ledger) as file:
            if os.fstat(file.fileno()).st_size < read:
                read = 0  # the job rewrote the file from the start
            file.seek(read)
            data = file.read(MOST)
    except OSError:
        return {"from": read, "to": read, "lines": []}
    end = data.rfind(b"\n") + 1
    if len(data) == MOST and end == 0:  # no line of the plugin is that long
        end = MOST
    return {"from": read, "to": read + end, "lines": _lines(data[:end])}


def _lines(data: bytes) -> List[LedgerEntry]:
    entries = filter(None, map(parse, data.split(b"\n")))
    return [cast("LedgerEntry", {key: entry[key] for key in _KEYS if entry.get(key) is not None}) for entry in entries]

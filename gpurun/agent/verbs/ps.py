"""`ps`: the runs of this host, its GPUs, who waits for them, and its disk."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional, Set, Tuple

from .. import clocks, ledger, machine
from ..errors import AgentError
from ..host import facts
from ..host.gpus import Gpu
from ..lifecycle import reconcile, records
from ..paths import HostPaths, RunPaths
from ..queue import allocation, leases, tickets
from ..state import ledger_sync

if TYPE_CHECKING:
    from ..schema.answers import GpuInUse, OtherRun, PsAnswer, RoomOnDisk
    from ..schema.requests import Place, PsRequest


def answer(request: PsRequest, host: HostPaths) -> PsAnswer:
    """With `all`, ended runs too; with `ids`, those whatever their state.

    With `limit`, so many of the ended ones at most, the newest, beside all that are live; `more` then says where the next page
    begins, which is asked for with `after`.
    """
    after = request.get("after")
    failures = reconcile.reconcile_runs(host) if after is None else {}
    wanted = request.get("ids")
    runs = [
        run
        for run in host.all_runs()
        if run.id in (wanted or []) or (wanted is None and (request.get("all") or not os.path.exists(run.exit)))
    ]
    runs, more = _page(runs, request.get("limit"), after)
    gpus = _gpus(request, host)
    answer: PsAnswer = {
        "now": time.time(),
        "more": more,
        "mark": clocks.mark(),
        "host_id": machine.host_id(host),
        "hostname": machine.hostname(),
        "boot_id": machine.boot_id(),
        "runs": sorted(
            (records.record_of(run, failures.get(run.id)) for run in runs),
            key=lambda record: ledger.number(record["created"]),
        ),
        "ledgers": ledger_sync.ledgers(request, host, runs),
        "queue": _queue(),
        "disk": _disk(host),
        "gpus": gpus.used,
        "others": gpus.others,
    }
    if gpus.error is not None:
        answer["gpu_error"] = gpus.error
    return answer


def _page(runs: List[RunPaths], limit: Optional[int], after: Optional[Place]) -> Tuple[List[RunPaths], Optional[Place]]:
    """One page of the runs, and the place behind it. The first one holds all live runs."""
    if limit is None:
        return runs, None
    live = [run for run in runs if not os.path.exists(run.exit)]
    here = {run.id for run in live}
    ended = sorted(((_made(run), run.id, run) for run in runs if run.id not in here), reverse=True)
    if after is not None:
        ended = [one for one in ended if one[:2] < (after[0], after[1])]
    page = ended[:limit]
    more = page[-1][:2] if len(ended) > len(page) and page else None
    return [*(live if after is None else []), *(run for _, _, run in page)], more


def _made(run: RunPaths) -> int:
    """When the run was made, in nanoseconds, by its file that never changes."""
    try:
        return os.stat(run.job).st_mtime_ns
    except OSError:
        return 0


def _queue() -> List[str]:
    """Who waits for GPUs. A folder of theirs that others have spoilt is told by the runs that wait."""
    try:
        return [ticket.run for ticket in tickets.in_line()]
    except AgentError:
        return []


class _Gpus(NamedTuple):
    used: List[GpuInUse]
    others: List[OtherRun]
    error: Optional[str] = None


def _gpus(request: PsRequest, host: HostPaths) -> _Gpus:
    """Who uses which GPU. Asked only when wanted: nvidia-smi can take seconds."""
    if not request.get("gpus"):
        return _Gpus([], [])
    known = facts.host_facts(host, request.get("engine"))
    try:
        found, used = allocation.look(known["engine"]["argv"] if known["engine"] else None)
    except AgentError as error:
        return _Gpus([], [], error.what)
    mine = {run.id for run in host.all_runs()}
    return _Gpus([_gpu(gpu, used) for gpu in found], _others(found, used, mine))


def _gpu(gpu: Gpu, used: Dict[str, leases.Use]) -> GpuInUse:
    use = used.get(gpu.uuid)
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "memory": gpu.memory,
        "used_by": use.by if use else None,
        "run": use.run if use else None,
    }


def _others(found: List[Gpu], used: Dict[str, leases.Use], mine: Set[str]) -> List[OtherRun]:
    """Runs of other accounts of this host, as far as their GPUs tell."""
    runs: Dict[str, OtherRun] = {}
    for gpu in found:
        use = used.get(gpu.uuid)
        if use is not None and use.run is not None and use.run not in mine:
            owner = use.by.rpartition(" of ")[2] if " of " in use.by else None
            runs.setdefault(use.run, {"run": use.run, "owner": owner, "gpus": []})["gpus"].append(gpu.index)
    return list(runs.values())


def _disk(host: HostPaths) -> RoomOnDisk:
    usage = shutil.disk_usage(host.root if os.path.isdir(host.root) else os.path.expanduser("~"))
    return {"free": usage.free, "total": usage.total}

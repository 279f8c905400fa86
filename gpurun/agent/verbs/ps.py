"""`ps`: list the runs of this host, its GPUs, the runs that wait for them, and its disk."""

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
    """List live runs; with `all`, ended runs too; with `ids`, exactly those, whatever their state.

    With `limit`, at most this many ended runs, the newest, besides all live runs; then `more` is where the next page
    begins, which is requested with `after`.
    """
    after = request.get("after")
    failures = reconcile.reconcile_runs(host) if after is None else {}
    wanted = request.get("ids")
    runs = [
        run
        for run in host.all_runs()
        if run.id in (wanted or []) or (wanted is None and (request.get("all") or not os.path.exists(run.exit)))
    ]
    runs, next_page = _page(runs, request.get("limit"), after)
    gpus = _gpus(request, host)
    answer: PsAnswer = {
        "now": time.time(),
        "more": next_page,
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
    """Return one page of the runs, and the start of the next page. The first page has all live runs."""
    if limit is None:
        return runs, None
    live = [run for run in runs if not os.path.exists(run.exit)]
    live_ids = {run.id for run in live}
    ended = sorted(((_made_at(run), run.id, run) for run in runs if run.id not in live_ids), reverse=True)
    if after is not None:
        ended = [row for row in ended if row[:2] < (after[0], after[1])]
    page = ended[:limit]
    next_page = page[-1][:2] if len(ended) > len(page) and page else None
    return [*(live if after is None else []), *(run for _, _, run in page)], next_page


def _made_at(run: RunPaths) -> int:
    """Return when the run was made, in nanoseconds, from its file that never changes."""
    try:
        return os.stat(run.job).st_mtime_ns
    except OSError:
        return 0


def _queue() -> List[str]:
    """Return the runs that wait for GPUs. When the folder of the queue is unusable, the waiting runs report it."""
    try:
        return [ticket.run for ticket in tickets.in_line()]
    except AgentError:
        return []


class _Gpus(NamedTuple):
    used: List[GpuInUse]
    others: List[OtherRun]
    error: Optional[str] = None


def _gpus(request: PsRequest, host: HostPaths) -> _Gpus:
    """Return who uses which GPU, only on request: nvidia-smi can take seconds."""
    if not request.get("gpus"):
        return _Gpus([], [])
    host_facts = facts.host_facts(host, request.get("engine"))
    try:
        host_gpus, used = allocation.find_gpu_uses(host_facts["engine"]["argv"] if host_facts["engine"] else None)
    except AgentError as error:
        return _Gpus([], [], error.what)
    mine = {run.id for run in host.all_runs()}
    return _Gpus([_gpu(gpu, used) for gpu in host_gpus], _others(host_gpus, used, mine))


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


def _others(host_gpus: List[Gpu], used: Dict[str, leases.Use], mine: Set[str]) -> List[OtherRun]:
    """Return the runs of other accounts of this host, as far as their GPUs show them."""
    runs: Dict[str, OtherRun] = {}
    for gpu in host_gpus:
        use = used.get(gpu.uuid)
        if use is not None and use.run is not None and use.run not in mine:
            owner = use.by.rpartition(" of ")[2] if " of " in use.by else None
            runs.setdefault(use.run, {"run": use.run, "owner": owner, "gpus": []})["gpus"].append(gpu.index)
    return list(runs.values())


def _disk(host: HostPaths) -> RoomOnDisk:
    usage = shutil.disk_usage(host.root if os.path.isdir(host.root) else os.path.expanduser("~"))
    return {"free": usage.free, "total": usage.total}

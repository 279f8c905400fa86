"""`ps`: the runs of this host, its GPUs, who waits for them, and its disk."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any, Dict, List

from .. import allocation, clocks, facts, leases, mirrored, records, tend, tickets
from ..errors import AgentError
from ..gpus import Gpu
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    """With `all`, ended runs too; with `ids`, those whatever their state."""
    failures = tend.tend(host)
    wanted = request.get("ids")
    runs = [
        run
        for run in host.all_runs()
        if run.id in (wanted or []) or (wanted is None and (request.get("all") or not os.path.exists(run.exit)))
    ]
    return {
        "now": time.time(),
        "mark": clocks.mark(),
        "host_id": facts.host_id(host),
        "hostname": facts.hostname(),
        "boot_id": facts.boot_id(),
        "runs": sorted(
            (records.record_of(run, failures.get(run.id)) for run in runs), key=lambda record: record["created"] or 0.0
        ),
        "ledgers": mirrored.ledgers(request, host, runs),
        "queue": _queue(),
        "disk": _disk(host),
        **_gpus(request, host),
    }


def _queue() -> List[str]:
    """Who waits for GPUs. A folder of theirs that others have spoilt is told by the runs that wait."""
    try:
        return [ticket.run for ticket in tickets.in_line()]
    except AgentError:
        return []


def _gpus(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    """Who uses which GPU. Asked only when wanted: nvidia-smi can take seconds."""
    if not request.get("gpus"):
        return {"gpus": [], "others": []}
    known = facts.host_facts(host, request.get("engine"))
    try:
        found, used = allocation.look(known["engine"]["argv"] if known["engine"] else None)
    except AgentError as error:
        return {"gpus": [], "others": [], "gpu_error": error.what}
    mine = {run.id for run in host.all_runs()}
    return {"gpus": [_gpu(gpu, used) for gpu in found], "others": _others(found, used, mine)}


def _gpu(gpu: Gpu, used: Dict[str, leases.Use]) -> Dict[str, Any]:
    use = used.get(gpu.uuid)
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "memory": gpu.memory,
        "used_by": use.by if use else None,
    }


def _others(found: List[Gpu], used: Dict[str, leases.Use], mine: Any) -> List[Dict[str, Any]]:
    """Runs of other accounts of this host, as far as their GPUs tell."""
    runs: Dict[str, Dict[str, Any]] = {}
    for gpu in found:
        use = used.get(gpu.uuid)
        if use is not None and use.run is not None and use.run not in mine:
            owner = use.by.rpartition(" of ")[2] if " of " in use.by else None
            runs.setdefault(use.run, {"run": use.run, "owner": owner, "gpus": []})["gpus"].append(gpu.index)
    return list(runs.values())


def _disk(host: HostPaths) -> Dict[str, int]:
    usage = shutil.disk_usage(host.root if os.path.isdir(host.root) else os.path.expanduser("~"))
    return {"free": usage.free, "total": usage.total}

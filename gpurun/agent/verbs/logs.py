"""`logs`: the bytes of a run's log, from an offset, the last lines, or what came since; followed until the run ends."""

from __future__ import annotations

from typing import Any, Dict

from .. import logs, records, tend
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    run = records.find(host, request["run"])
    tend.tend_run(host, run)
    return {"run": records.record_of(run)}


def stream(request: Dict[str, Any], host: HostPaths, out: Any) -> None:
    run = host.run(request["run"])
    offset, prepare_offset = logs.first_offsets(run, request)
    if request.get("follow"):
        logs.follow(run, out, offset=offset, prepare_offset=prepare_offset, times=bool(request.get("times")))
    else:
        logs.show(run, out, offset=offset, prepare_offset=prepare_offset, times=bool(request.get("times")))

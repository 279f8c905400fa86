"""Ending runs: ask the job to stop, wait out its grace time, and see that container and GPUs are free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.commands import runs, wait
from gpurun.errors import GpurunError, UsageError
from gpurun.remote.records import refuse_unknown
from gpurun.store import run_names, run_questions

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import GpuInUse
    from gpurun.agent.schema.requests import StopRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.store.run_store import RunEntry

ROUND = 2.0  # seconds that one question lasts while a countdown is shown
OVERTIME = 90.0  # seconds that a host may take beyond the grace time before we say that something is wrong
TRIES, PAUSE = 20, 0.5  # until the GPUs of an ended run must be free


@dataclass(frozen=True)
class Asked:
    grace: float | None  # seconds; None: what the job says
    force: bool  # KILL at once
    abandon: bool = False  # nothing is ended: their machine is gone


def only_live_run() -> RunEntry:
    """What `stop` without RUN means: the one live job of this project. Raises UsageError for none and several."""
    from gpurun.config.project import find_project

    project = find_project()
    live, services = _live(str(project.root))
    if len(live) > 1:  # some may have ended since they were last seen
        runs.look(live)
        live, services = _live(str(project.root))
    if len(live) == 1:
        return live[0]
    if not live:
        next_step = (
            f"a service is named: gpurun stop {' '.join(one.id for one in services)}" if services else "gpurun ps"
        )
        raise UsageError(
            f"no run of the project {project.name} is live, as far as is known here",
            "\n".join(filter(None, [run_names.in_a_folder_above(project), next_step])),
        )
    lines = [f"  {entry.id}  {entry.state}  {entry.host}" for entry in live]
    raise UsageError("\n".join(["several runs are live:", *lines]), f"name one: gpurun stop {live[0].id}")


def _live(project_root: str) -> tuple[list[RunEntry], list[RunEntry]]:
    jobs, services = run_names.of_project(project_root)
    return [one for one in jobs if run_names.is_live(one)], [one for one in services if run_names.is_live(one)]


def ask(entries: Sequence[RunEntry], asked: Asked) -> list[RunRecord]:
    """Write down on every host that these are to end; the records. From here on the hosts act by themselves."""
    groups = runs.by_host(entries)

    def tell(host: str) -> list[RunRecord]:
        ids = groups[host]
        request: StopRequest = {
            "runs": ids,
            "grace": asked.grace,
            "force": asked.force,
            "abandon": asked.abandon,
        }
        answer = run_questions.ask(runs.wire_to(host), "stop", request, ids, timeout=30)
        return list(answer["runs"])

    with ThreadPoolExecutor(max_workers=len(groups)) as pool:
        return [record for records in pool.map(tell, groups) for record in records]


def watch(
    entries: Sequence[RunEntry],
    records: Sequence[RunRecord],
    countdown: Callable[[list[tuple[RunRecord, float | None]]], None],
) -> list[RunRecord]:
    """Wait until all have ended; `countdown` gets the live ones, each with the seconds until it is killed.

    Raises HostUnreachable, and GpurunError when one does not end, or is unknown to its host.
    """
    now = {record["id"]: record for record in records}
    hosts, away = {entry.id: entry.host for entry in entries}, dict[str, GpurunError]()
    latest = time.monotonic() + max([_left(record) or 0.0 for record in records], default=0.0)
    one_at_a_time = threading.Lock()

    def live() -> list[RunRecord]:
        return [record for record in now.values() if not words.is_over(record)]

    def count_down() -> None:
        nonlocal latest
        countdown([(record, _left(record)) for record in live()])
        if any(record.get("saving") for record in live()):  # its grace time pauses
            latest = time.monotonic() + max(_left(record) or 0.0 for record in live())

    def seen(record: RunRecord) -> None:
        with one_at_a_time:
            now[record["id"]] = record
            away.pop(hosts[record["id"]], None)
            if live():
                count_down()

    waited_for = [entry for entry in entries if not words.is_over(now[entry.id])]
    for entry in waited_for:
        refuse_unknown(now[entry.id], entry.host)
    if waited_for:
        count_down()
    wait.until_ended(
        waited_for,
        wait.Waiting(left=lambda: latest + OVERTIME - time.monotonic(), round=ROUND, seen=seen, lost=away.__setitem__),
    )
    if live():
        names = [record["id"] for record in live()]
        what = f"{', '.join(names)} has not ended, long after its grace time"
        raise next(iter(away.values()), GpurunError(what, f"gpurun stop --force {' '.join(names)}"))
    return [now[entry.id] for entry in entries]


def _left(record: RunRecord) -> float | None:
    """Seconds until the host kills it, by the host's own clock: the laptop's may be another."""
    return record.get("kill_in")


def still_held(entries: Sequence[RunEntry], *, sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """GPUs that runs which ended hold on to, in words; empty when all are free, as they should be within seconds."""
    held: list[str] = []
    for host, ids in runs.by_host(entries).items():
        wire = runs.wire_to(host)
        for _ in range(TRIES):
            answer = wire.ask("ps", {"ids": ids, "gpus": True}, timeout=30)
            theirs = {gpu["uuid"] for record in answer["runs"] for gpu in record["gpus"]}
            used = [gpu for gpu in answer["gpus"] if gpu["uuid"] in theirs and _is_leftover(gpu, ids)]
            if not used:
                break
            sleep(PAUSE)
        else:
            held += [f"GPU {gpu['index']} of {host} is still used by {gpu['used_by']}" for gpu in used]
    return held


def _is_leftover(gpu: GpuInUse, ids: Sequence[str]) -> bool:
    """True unless the GPU is free or was given to the next run: a process that stayed behind bears no run's name."""
    return gpu["used_by"] is not None and (gpu["run"] is None or gpu["run"] in ids)

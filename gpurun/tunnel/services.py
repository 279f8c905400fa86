"""The services of a tunnel: found where they run already, started where they do not. A service is a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.commands.follow import Listener
    from gpurun.commands.submit import Plan, Report
    from gpurun.config.load import Loaded
    from gpurun.remote.wire import Wire


@dataclass(frozen=True)
class Service:
    """One that is wanted: its kind, the project it is for, and the one run that a TensorBoard is about, if it is one."""

    kind: str
    project: str
    run: str | None = None

    def is_in(self, record: dict[str, Any], owner: str) -> bool:
        """Whether the run of `record` is this service."""
        told = record.get("service") or {}
        return (
            told.get("kind") == self.kind
            and record["project"] == self.project
            and record["owner"] == owner
            and told.get("run") == self.run
            and not record["stop_requested"]
        )


def find(wire: Wire, wanted: Service) -> dict[str, Any] | None:
    """The newest live run that is this service, or None."""
    told = wire.ask("ps", {}, timeout=30)
    # Another machine that shares this home may have one too, which cannot be reached from here.
    here = [record for record in told["runs"] if record["host_id"] == told["host_id"]]
    found = [record for record in here if wanted.is_in(record, wire.owner)]
    run_store.update(found, wire.host)
    return found[-1] if found else None


def start(wire: Wire, wanted: Service, loaded: Loaded, report: Report) -> dict[str, Any]:
    """Submit the service; its record. TensorBoard needs nothing of the project; the others get its code."""
    from gpurun.commands.submit import submit

    def plan() -> Plan:
        return _board_plan(wanted, loaded) if wanted.kind == words.TENSORBOARD else _session_plan(wanted, loaded)

    return submit(wire, plan, report, follow=False).record


def wait_until_running(wire: Wire, record: dict[str, Any], listener: Listener) -> dict[str, Any]:
    """Stay while the host makes image and dependencies and waits for GPUs. Raises GpurunError when it ends before."""
    from gpurun.commands.follow import show_log

    run = record["id"]
    if record["state"] != words.RUNNING:
        over = (words.RUNNING, *words.ENDS)
        record = show_log(wire, {"run": run, "follow": True}, listener, until=lambda at: at["state"] in over)
    if words.is_over(record):
        why = f": {record['message']}" if record.get("message") else ""
        raise GpurunError(f"{run} ended before it was up{why}", f"gpurun logs {run}", where=wire.host)
    return record


def _told(wanted: Service, loaded: Loaded) -> dict[str, Any]:
    """What job.json says of the service."""
    assert loaded.host is not None
    title = f"{wanted.run or wanted.project} on {loaded.host.name}"
    return {"kind": wanted.kind, "run": wanted.run, "title": title, "idle": loaded.spec.idle}


def _board_plan(wanted: Service, loaded: Loaded) -> Plan:
    from gpurun.commands.submit import Plan
    from gpurun.config.schema import JobConfig
    from gpurun.job.files import FileList
    from gpurun.job.spec import make_job

    # gpurun's own image has TensorBoard; the project's settings are for its jobs.
    spec = JobConfig(gpus=0, idle=loaded.spec.idle, runtime=loaded.spec.runtime)
    project = replace(loaded.project, name=wanted.project)
    bare = replace(loaded, spec=spec, project=project, env={}, sources={}, env_files=())
    files = FileList(project.root, ())
    job = make_job(bare, files, now=time.time(), dependencies=None, service=_told(wanted, loaded))
    return Plan(bare, files, job, (), needs_agent=False)


def _session_plan(wanted: Service, loaded: Loaded) -> Plan:
    from gpurun.commands.submit import make_plan

    # It lasts as long as somebody uses it; a job's time limit is not meant, and root's files would not be the user's.
    spec = replace(loaded.spec, max_duration=None, user=None, script=None, module=None, args=())
    return make_plan(replace(loaded, spec=spec), service=_told(wanted, loaded))

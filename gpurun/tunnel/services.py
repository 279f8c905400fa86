"""Find the services of a tunnel on the host, and start those that do not run yet. A service is a run."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.errors import GpurunError
from gpurun.events import Event, Report
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Service as ServiceOfJob
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.follow import Listener
    from gpurun.commands.submit import Plan
    from gpurun.config.load import Loaded
    from gpurun.remote.wire import Wire


@dataclass(frozen=True)
class Service:
    """A service to open: its kind, its project, and the run that a TensorBoard shows (None: all runs of the project)."""

    kind: str
    project: str
    run: str | None = None

    def matches(self, record: RunRecord, owner: str) -> bool:
        """Return whether the run of `record` is this service."""
        service = record.get("service")
        return (
            service is not None
            and service["kind"] == self.kind
            and record["project"] == self.project
            and record["owner"] == owner
            and service.get("run") == self.run
            and not record["stop_requested"]
        )


@dataclass(frozen=True)
class Planned(Event):
    """The event before a service is submitted, with what will be sent. When the callback raises, nothing is sent."""

    plan: Plan


def find(wire: Wire, service: Service) -> RunRecord | None:
    """Return the record of the newest live run that is this service, or None."""
    answer = wire.ask("ps", {}, timeout=30)
    # Another machine that shares this home may run the service too; a tunnel to this host does not reach it.
    here = [record for record in answer["runs"] if record["host_id"] == answer["host_id"]]
    matches = [record for record in here if service.matches(record, wire.owner)]
    run_store.update(matches, wire.host)
    return matches[-1] if matches else None


def start(wire: Wire, service: Service, loaded: Loaded, report: Report) -> RunRecord:
    """Submit the service and return its record. TensorBoard needs no files of the project; Jupyter gets its code."""
    from gpurun.commands.submit import submit

    plan = _board_plan(service, loaded) if service.kind == words.TENSORBOARD else _session_plan(service, loaded)
    report(Planned(plan))
    return submit(wire, plan, report, follow=False).record


def wait_until_running(wire: Wire, record: RunRecord, listener: Listener) -> RunRecord:
    """Wait until the run's process runs; return its record. Raises GpurunError when the run ends before that."""
    from gpurun.commands.follow import show_log

    run = record["id"]
    if record["state"] != words.RUNNING:
        last = (words.RUNNING, *words.ENDS)
        record = show_log(wire, {"run": run, "follow": True}, listener, until=lambda now: now["state"] in last)
    if words.is_over(record):
        reason = f": {record['message']}" if record.get("message") else ""
        raise GpurunError(f"{run} ended before it was ready{reason}", f"gpurun logs {run}", where=wire.host)
    return record


def _service_entry(service: Service, loaded: Loaded) -> ServiceOfJob:
    """Return the service's entry in job.json."""
    assert loaded.host is not None
    title = f"{service.run or service.project} on {loaded.host.name}"
    return {"kind": service.kind, "run": service.run, "title": title, "idle": loaded.spec.idle}


def _board_plan(service: Service, loaded: Loaded) -> Plan:
    from gpurun.commands.submit import Plan
    from gpurun.config.schema import JobConfig
    from gpurun.job.files import FileList
    from gpurun.job.spec import make_job

    # The project's settings are for its jobs. TensorBoard runs in gpurun's own image.
    spec = JobConfig(gpus=0, idle=loaded.spec.idle, runtime=loaded.spec.runtime)
    project = replace(loaded.project, name=service.project)
    bare = replace(loaded, spec=spec, project=project, env={}, sources={}, env_files=())
    files = FileList(project.root, ())
    job = make_job(bare, files, now=time.time(), dependencies=None, service=_service_entry(service, loaded))
    return Plan(bare, files, job, (), needs_agent=False)


def _session_plan(service: Service, loaded: Loaded) -> Plan:
    from gpurun.commands.submit import make_plan

    # A session ends when nobody uses it, so a job's time limit does not apply. As root it would make files of root's.
    spec = replace(loaded.spec, max_duration=None, user=None, script=None, module=None, args=())
    return make_plan(replace(loaded, spec=spec), service=_service_entry(service, loaded))

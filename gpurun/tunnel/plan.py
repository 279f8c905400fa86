"""Plan a tunnel from the command line and the project's settings, then start the services behind it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.errors import UsageError
from gpurun.events import Doing, Report
from gpurun.store import run_names
from gpurun.tunnel import ports
from gpurun.tunnel.link import Target
from gpurun.tunnel.services import Service

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.follow import Listener
    from gpurun.config.load import Loaded
    from gpurun.config.project import Project
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

NAMES = {words.TENSORBOARD: "TensorBoard", words.JUPYTER: "Jupyter"}


@dataclass(frozen=True)
class TunnelOptions:
    """The options of the command line."""

    run: str | None = None
    tensorboard: bool = False
    jupyter: bool = False
    ports: tuple[str, ...] = ()
    gpus: str | None = None
    host: str | None = None


@dataclass(frozen=True)
class Ports:
    """Ports of a run, or of the host itself when `run` is None. Each of `pairs` is (local port or None, remote port)."""

    run: str | None
    pairs: tuple[tuple[int | None, int], ...]
    explicit: bool = True  # the user typed them. Else the settings name them, and a run that has ended is skipped


@dataclass(frozen=True)
class TunnelPlan:
    """The services and ports to open, and their host."""

    wire: Wire
    loaded: Loaded
    services: tuple[Service, ...]
    ports: Ports


@dataclass(frozen=True)
class Route:
    """A listener to open: its target, and the local port to try first."""

    target: Target
    port: int
    what: str  # for messages: "TensorBoard of digits"
    record: RunRecord | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Routes:
    """All routes of a tunnel; their services run."""

    wire: Wire
    routes: tuple[Route, ...]


def make(options: TunnelOptions) -> TunnelPlan:
    """Read the project and the stored runs, without contacting a host. Raises UsageError."""
    from gpurun.commands import runs
    from gpurun.config.load import load
    from gpurun.remote.wire import connect

    entry = runs.resolve(options.run) if options.run is not None else None
    if entry is not None and options.host not in (None, entry.host):
        raise UsageError(f"{entry.id} is on {entry.host}, not on {options.host}", "leave -H out")
    overrides = {"host": entry.host if entry else options.host, "gpus": options.gpus}
    loaded = load(overrides, None, need_script=False)
    assert loaded.host is not None
    if entry is None and not (options.jupyter or options.ports):
        _check_project(loaded.project)
    project = entry.project if entry else loaded.project.name
    return TunnelPlan(
        connect(loaded.host),
        loaded,
        _services(options, entry, project),
        _typed_ports(options, entry) if options.ports else _configured_ports(options, entry, loaded),
    )


def _check_project(project: Project) -> None:
    """Raise UsageError for a folder that has no project file and from which nothing was submitted."""
    from gpurun.store import run_store

    if project.marker == "folder" and not any(run.project_root == str(project.root) for run in run_store.all_runs()):
        raise UsageError(
            "this folder is not a project, so TensorBoard has no runs to show",
            "gpurun tunnel RUN shows one run; gpurun ps -a lists them",
            where=project.root,
        )


def _services(options: TunnelOptions, entry: RunEntry | None, project: str) -> tuple[Service, ...]:
    if entry is not None and entry.service in NAMES:  # the run is itself a service
        return (Service(entry.service, project, entry.shown_run),)
    services = []
    if options.tensorboard or not (options.jupyter or options.ports):
        services.append(Service(words.TENSORBOARD, project, entry.id if entry else None))
    if options.jupyter:
        services.append(Service(words.JUPYTER, project))
    return tuple(services)


def _typed_ports(options: TunnelOptions, entry: RunEntry | None) -> Ports:
    from gpurun.config.problems import read_option
    from gpurun.config.readers import list_of
    from gpurun.config.schema import port

    typed = read_option("-p", options.ports, list_of(port), "-p 8080, or -p 9000:8080") or ()
    return Ports(entry.id if entry else None, tuple((pair.local, pair.remote) for pair in typed))


def _configured_ports(options: TunnelOptions, entry: RunEntry | None, loaded: Loaded) -> Ports:
    """Return the ports in a job's settings: of the run that was named, else of the project's newest live run on the host."""

    if options.tensorboard or options.jupyter:
        return Ports(None, ())
    assert loaded.host is not None
    jobs, _ = run_names.of_project(str(loaded.project.root))
    live = [job for job in jobs if run_names.is_live(job) and job.host == loaded.host.name]
    for job in [entry] if entry is not None else live:
        configured = (job.known_job if job.job else job.known).get("ports")
        if configured:
            return Ports(job.id, tuple((pair["local"], pair["remote"]) for pair in configured), explicit=False)
    return Ports(None, ())


def start_services(plan: TunnelPlan, report: Report, listener: Listener) -> Routes:
    """Find or start every service, and wait until its process runs. Raises the errors of a submit."""
    from gpurun.tunnel import services

    wire, routes = plan.wire, []
    report(Doing(f"asking {wire.host}"))
    records = []
    for service in plan.services:
        record = services.find(wire, service)
        if record is None:
            report(Doing(f"starting {NAMES[service.kind]} on {wire.host}"))
            record = services.start(wire, service, plan.loaded, report)
        records.append((service, record))
    for service, record in records:
        running = services.wait_until_running(wire, record, listener)
        routes.append(_service_route(wire.host, service, running))
    routes += _port_routes(wire, plan.ports, listener)
    return Routes(wire, tuple(routes))


def _port_routes(wire: Wire, ports: Ports, listener: Listener) -> list[Route]:
    from gpurun.tunnel import services

    run = ports.run
    if run is not None:
        record = wire.ask("status", {"run": run})["run"]
        if words.is_over(record):
            if not ports.explicit:
                return []
            raise UsageError(f"{run} has ended, so nothing listens on its ports", f"gpurun logs {run}")
        services.wait_until_running(wire, record, listener)
    pairs = list(dict.fromkeys((local or remote, remote) for local, remote in ports.pairs))
    count = Counter(remote for _, remote in pairs)
    return [_port_route(run, local, remote, wire.host, is_only=count[remote] == 1) for local, remote in pairs]


def _service_route(host: str, service: Service, record: RunRecord) -> Route:
    name, shown = NAMES[service.kind], service.run or service.project
    return Route(
        Target(name, record["id"]),
        ports.stable(host, service.project, service.kind, service.run or ""),
        f"{name} of {shown}",
        record,
    )


def _port_route(run: str | None, local: int, remote: int, host: str, *, is_only: bool) -> Route:
    """Return a route with a unique name, also when another route leads to the same port."""
    name = f"port {remote}" if is_only else f"port {remote} at {local}"
    return Route(Target(name, run, remote), local, f"port {remote} of {run or host}")

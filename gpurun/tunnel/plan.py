"""What a tunnel is to lead to, from what was typed and what the project says; and the services behind it brought up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gpurun.agent import vocabulary as words
from gpurun.errors import UsageError
from gpurun.store import run_names
from gpurun.tunnel import ports
from gpurun.tunnel.link import Target
from gpurun.tunnel.services import Service

if TYPE_CHECKING:
    from gpurun.commands.follow import Listener
    from gpurun.commands.submit import Report
    from gpurun.config.load import Loaded
    from gpurun.config.project import Project
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

NAMES = {words.TENSORBOARD: "TensorBoard", words.JUPYTER: "Jupyter"}


@dataclass(frozen=True)
class Asked:
    """What was typed."""

    run: str | None = None
    tensorboard: bool = False
    jupyter: bool = False
    ports: tuple[str, ...] = ()
    gpus: str | None = None
    host: str | None = None


@dataclass(frozen=True)
class Ports:
    """Ports of a run's program; of the host itself without one. Each is (local or None, remote)."""

    run: str | None
    numbers: tuple[tuple[int | None, int], ...]
    wanted: bool = True  # they were asked for; else the run only names them, and one that has ended is passed over


@dataclass(frozen=True)
class Planned:
    """The services and ports that are wanted, on which host."""

    wire: Wire
    loaded: Loaded
    services: tuple[Service, ...]
    ports: Ports


@dataclass(frozen=True)
class Way:
    """A door to be opened: where it leads, and which local port it wants."""

    target: Target
    port: int
    what: str  # for people: "TensorBoard of digits"
    record: dict[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Found:
    """All that a tunnel leads to; the services run."""

    wire: Wire
    ways: tuple[Way, ...]


def make(asked: Asked) -> Planned:
    """Reads the project and the index; asks no host. Raises UsageError."""
    from gpurun.commands import runs
    from gpurun.config.load import load
    from gpurun.remote.wire import connect

    entry = runs.resolve(asked.run) if asked.run is not None else None
    if entry is not None and asked.host not in (None, entry.host):
        raise UsageError(f"{entry.id} is on {entry.host}, not on {asked.host}", "leave -H out")
    said = {"host": entry.host if entry else asked.host, "gpus": asked.gpus}
    loaded = load(said, None, need_script=False)
    assert loaded.host is not None
    if entry is None and not (asked.jupyter or asked.ports):
        _check_project(loaded.project)
    project = entry.project if entry else loaded.project.name
    return Planned(
        connect(loaded.host),
        loaded,
        _services(asked, entry, project),
        _typed_ports(asked, entry) if asked.ports else _named_ports(asked, entry, loaded),
    )


def _check_project(project: Project) -> None:
    """Raises UsageError for a folder that nothing makes a project, and from which nothing was submitted."""
    from gpurun.store import run_store

    if project.marker == "folder" and not any(one.project_root == str(project.root) for one in run_store.all_runs()):
        raise UsageError(
            "no project is here, whose runs TensorBoard could show",
            "gpurun tunnel RUN shows one run; gpurun ps -a lists them",
            where=project.root,
        )


def _services(asked: Asked, entry: RunEntry | None, project: str) -> tuple[Service, ...]:
    if entry is not None and entry.service in NAMES:  # it is one itself
        told = (entry.job or entry.record or {})["service"]
        return (Service(entry.service or "", project, told.get("run")),)
    wanted = []
    if asked.tensorboard or not (asked.jupyter or asked.ports):
        wanted.append(Service(words.TENSORBOARD, project, entry.id if entry else None))
    if asked.jupyter:
        wanted.append(Service(words.JUPYTER, project))
    return tuple(wanted)


def _typed_ports(asked: Asked, entry: RunEntry | None) -> Ports:
    from gpurun.config.problems import read_option
    from gpurun.config.readers import list_of
    from gpurun.config.schema import port

    found = read_option("-p", asked.ports, list_of(port), "-p 8080, or -p 9000:8080") or ()
    return Ports(entry.id if entry else None, tuple((one.local, one.remote) for one in found))


def _named_ports(asked: Asked, entry: RunEntry | None, loaded: Loaded) -> Ports:
    """Those that the settings of a job name: of the run that is meant, or of the project's newest that lives on the host."""

    if asked.tensorboard or asked.jupyter:
        return Ports(None, ())
    assert loaded.host is not None
    jobs, _ = run_names.of_project(str(loaded.project.root))
    here = [one for one in jobs if run_names.is_live(one) and one.host == loaded.host.name]
    for one in [entry] if entry is not None else here:
        told = (one.job or one.record or {}).get("ports") or []
        if told:
            return Ports(one.id, tuple((each["local"], each["remote"]) for each in told), wanted=False)
    return Ports(None, ())


def bring_up(planned: Planned, report: Report, listener: Listener, say: Callable[[str], None]) -> Found:
    """Find or start every service, and wait until its process runs. Raises what submit raises."""
    from gpurun.tunnel import services

    wire, ways = planned.wire, []
    say(f"asking {wire.host}")
    records = []
    for service in planned.services:
        record = services.find(wire, service)
        if record is None:
            say(f"starting {NAMES[service.kind]} on {wire.host}")
            record = services.start(wire, service, planned.loaded, report)
        records.append((service, record))
    for service, record in records:
        running = services.wait_until_running(wire, record, listener)
        ways.append(_service_way(wire.host, service, running))
    ways += _port_ways(wire, planned.ports, listener)
    return Found(wire, tuple(ways))


def _port_ways(wire: Wire, ports: Ports, listener: Listener) -> list[Way]:
    from gpurun.tunnel import services

    run = ports.run
    if run is not None:
        record = wire.ask("status", {"run": run})["run"]
        if words.is_over(record):
            if not ports.wanted:
                return []
            raise UsageError(f"{run} has ended, and with it what listened on its ports", f"gpurun logs {run}")
        services.wait_until_running(wire, record, listener)
    pairs = list(dict.fromkeys((local or remote, remote) for local, remote in ports.numbers))
    several = Counter(remote for _, remote in pairs)
    return [_port_way(run, local, remote, wire.host, alone=several[remote] == 1) for local, remote in pairs]


def _service_way(host: str, service: Service, record: dict[str, Any]) -> Way:
    name, about = NAMES[service.kind], service.run or service.project
    return Way(
        Target(name, record["id"]),
        ports.stable(host, service.project, service.kind, service.run or ""),
        f"{name} of {about}",
        record,
    )


def _port_way(run: str | None, local: int, remote: int, host: str, *, alone: bool) -> Way:
    """The door's name is its own, also where another one leads to the same port."""
    name = f"port {remote}" if alone else f"port {remote} at {local}"
    return Way(Target(name, run, remote), local, f"port {remote} of {run or host}")

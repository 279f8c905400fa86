"""`host leave`: bring home what a host still has, then take every trace of gpurun off it."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gpurun.commands import stop as stopping
from gpurun.commands import unfetched
from gpurun.config import hosts
from gpurun.config.project import find_project
from gpurun.errors import GpurunError, UsageError
from gpurun.fetch import default_folder
from gpurun.hosts.add import mark
from gpurun.remote.wire import Wire, connect
from gpurun.store import fetched_files, run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import LeaveRequest

WIPE_IN = 900.0  # seconds; a large data folder takes its time
NOT_MADE = "gpurun did not make it"
LOOK_IN = 600.0  # seconds; the host walks its data folders


@dataclass(frozen=True)
class Plan:
    """What stands between us and an empty host. Run ids; `stays` are those of other people, as (owner, run)."""

    live: tuple[str, ...]  # jobs
    services: tuple[str, ...]  # TensorBoards and the like, which are open
    unfetched: Mapping[str, int]  # bytes that a fetch of each of them lists
    all: tuple[str, ...]
    stays: tuple[tuple[str, str], ...] = ()
    stamps: Mapping[str, str | None] = field(
        default_factory=dict
    )  # of the runs that have ended, as they were looked at
    there: frozenset[str] = frozenset()  # every run that the host has, whoever's
    here_in_part: int = 0  # how many of `unfetched` have been fetched before, but not all of them
    uncounted: frozenset[str] = frozenset()  # runs of `unfetched` whose container may hold more than was counted

    @property
    def owners(self) -> str:
        return ", ".join(sorted({owner for owner, _ in self.stays}))


@dataclass(frozen=True)
class Data:
    """A data folder. `stamp` is another one when something in it has changed."""

    files: int
    bytes: int
    stamp: str


@dataclass(frozen=True)
class Stays:
    """A path that is still there, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Beside:
    """What lies beside the runs: data folders by name, the paths that gpurun did not make, which stay, and what else does."""

    data: Mapping[str, Data]
    foreign: tuple[str, ...]
    kept: tuple[Stays, ...] = ()


@dataclass(frozen=True)
class Left:
    """What was done, and what was not: `data` are folders that were kept, `remains` what could not be removed, `kept` what is not gpurun's."""

    removed: tuple[str, ...]
    freed: int
    data: tuple[str, ...]
    remains: tuple[Stays, ...]
    kept: tuple[Stays, ...]
    revoked: bool
    shared: bool  # another machine, or another person, has runs in that home, so that not everything went


def look(wire: Wire, *, owner: str | None = None, also: Sequence[str] = ()) -> Plan:
    """Ask the host for its runs. Those of others than `owner` (default: this user) and `also` stay. Raises HostUnreachable."""
    owner = owner or getpass.getuser()
    answer = wire.ask("ps", {"all": True, "ids": None})
    # One that was given up here is this machine's, though another prepared it.
    here = [r for r in answer["runs"] if r["host_id"] == answer["host_id"] or r.get("here")]
    known = {record["id"] for record in here if run_store.find(record["id"]) is not None}
    # A run of an account that several people share belongs to whoever submitted it; what this laptop submitted is its own.
    ours = [record for record in here if record["owner"] in (owner, *also) or _is_from_here(record["id"])]
    mine = {record["id"] for record in ours}
    run_store.update([record for record in answer["runs"] if record["id"] in mine | known], wire.host)
    ended = [record["id"] for record in ours if not record["live"]]
    seen = unfetched.unfetched_on(wire, ended)
    at_stake = {one.run: one.bytes for one in seen if unfetched.why_not_here(one) is not None}
    return Plan(
        live=tuple(record["id"] for record in ours if record["live"] and not record.get("service")),
        services=tuple(record["id"] for record in ours if record["live"] and record.get("service")),
        unfetched=at_stake,
        all=tuple(record["id"] for record in ours),
        stays=tuple((str(record["owner"]), record["id"]) for record in here if record["id"] not in mine),
        stamps={one.run: one.stamp for one in seen},
        there=frozenset(record["id"] for record in answer["runs"]),
        here_in_part=sum(_has_come_in_part(run) for run in at_stake),
        uncounted=frozenset(one.run for one in seen if one.container and one.run in at_stake),
    )


def _has_come_in_part(run: str) -> bool:
    entry = run_store.find(run)
    return entry is not None and (default_folder(entry, find_project().root) / fetched_files.PRIVATE).exists()


def _is_from_here(run: str) -> bool:
    entry = run_store.find(run)
    return entry is not None and entry.job is not None


def stop(wire: Wire, runs: Sequence[str], say: Callable[[str], None]) -> None:
    """End live runs, with the grace that each of them has. Raises GpurunError when one does not end."""
    entries = [replace(entry, host=wire.host) for entry in map(run_store.find, runs) if entry is not None]
    records = stopping.ask(entries, stopping.Asked(grace=None, force=False))
    say(f"waiting for {', '.join(runs)} to end")
    stopping.watch(entries, records, lambda live: None)


def close_tunnels(host: str) -> None:
    """Close the tunnels of this laptop to `host`, which would send the agent there again."""
    from gpurun.tunnel import registry

    for tunnel in registry.live():
        if tunnel.host == host:
            registry.close(tunnel)


def refuse_live(wire: Wire, runs: Sequence[str]) -> None:
    if runs:
        raise UsageError(
            f"{wire.host} still runs {', '.join(runs)}",
            f"wait for their end, or end them: gpurun host leave {wire.host} --stop",
        )


def refuse_more(wire: Wire, plan: Plan, agreed: Plan) -> None:
    """Nothing is removed when there are runs that were not agreed to go."""
    more = [run for run in plan.all if run not in agreed.all]
    if more:
        raise GpurunError(
            f"{', '.join(more)} came to {wire.host} meanwhile, so nothing was removed",
            f"gpurun host leave {wire.host}",
        )


def refuse_unfetched(wire: Wire, runs: Iterable[str]) -> None:
    """Nothing is removed while these are nowhere else."""
    runs = list(runs)
    if runs:
        raise GpurunError(
            f"{', '.join(runs)} could not be fetched whole, so nothing was removed from {wire.host}",
            f"gpurun fetch {runs[0]} says which files; --no-fetch gives them up",
        )


def wipe(wire: Wire, plan: Plan, *, data: Mapping[str, str] | None) -> Left:
    """Take the runs of `plan`, caches, agent and our key off the host, and forget it. Raises HostError `live`.

    `data`: the stamps of the data folders that go, by name; None keeps them all. While runs of other people stay, so do agent,
    caches and data. A run that the host has besides these has come since we looked: HostError `more_runs`; a run or a data folder
    that was written to since: `changed_since`; a data folder besides `data`: `more_data`; then nothing is removed.
    """
    stays = [run for _, run in plan.stays]
    request: LeaveRequest = {
        "wipe": True,
        "runs": list(plan.all),
        "stays": stays,
        "stamps": dict(plan.stamps),
        "data": dict(data or {}),
        "keep_data": data is None,
        "revoke": mark(wire.host),
    }
    answer = wire.ask("leave", request, timeout=WIPE_IN)
    hosts.remove(wire.host)
    wire.connection.close()
    _forget(wire.host, plan)
    kept = [(path, NOT_MADE) for path in answer["foreign"]] + [(one["path"], one["why"]) for one in answer["kept"]]
    return Left(
        removed=tuple(answer["removed"]),
        freed=answer["freed"],
        data=tuple(answer["data"]),
        remains=tuple(Stays(one["path"], one["why"]) for one in answer["left"]),
        kept=tuple(Stays(path, why) for path, why in kept),
        revoked=answer["revoked"] > 0,
        shared=answer["shared"],
    )


def _forget(host: str, plan: Plan) -> None:
    """Forget what was there, also what an earlier try removed whose answer was lost."""
    for run in plan.all:
        run_store.forget_on(run, host)
    for entry in run_store.all_runs():
        if host in (entry.host, *entry.left_on) and entry.id not in plan.there:
            run_store.forget_on(entry.id, host)


def revoke(name: str) -> bool:
    """Take the key that `host add` installed off the host again; False when there was none."""
    wire = connect(hosts.read().get(name))
    revoked = wire.ask("leave", {"wipe": False, "revoke": mark(name)})["revoked"]
    wire.connection.close()
    return revoked > 0


def look_beside(wire: Wire) -> Beside:
    """Ask for the data folders that would be lost with the host, and for what is not gpurun's."""
    answer = wire.ask("leave", {"wipe": False, "revoke": None}, timeout=LOOK_IN)
    data = {name: Data(one["files"], one["bytes"], one["stamp"]) for name, one in answer["data"].items()}
    kept = tuple(Stays(one["path"], one["why"]) for one in answer["kept"])
    return Beside(data, tuple(answer["foreign"]), kept)

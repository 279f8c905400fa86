"""`gpurun ps`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, removed_run

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord
    from gpurun.commands.runs import HostRuns
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun ps
gpurun ps -a -H box
gpurun ps --json"""


def ps(
    all_runs: Annotated[bool, typer.Option("--all", "-a", help="Runs that have ended, too.")] = False,
    host: options.Host = None,
    all_users: Annotated[bool, typer.Option("--all-users", help="Everybody's runs, and who uses which GPU.")] = False,
    removed: Annotated[
        bool, typer.Option("--removed", help="Runs that were removed from their hosts, as known here; asks no host.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """List your live runs on all hosts.

    Hosts are asked side by side and have 2 seconds each; of a silent one you see what was last known, marked with ?.
    One host alone may ask for a password, and when its open connection is silent for 2 seconds a new one is tried.
    TensorBoards, Jupyters and shells stand apart. On a terminal also: the metric that is monitored, with the best
    checkpoint's value, and the arguments, as far as there is room.
    """
    from gpurun.commands import runs
    from gpurun.config import hosts

    if removed:
        removed_run.show_list(host, in_json=as_json)
        return
    which = [hosts.choose(host)] if host else runs.hosts_of_interest(all_runs=all_runs)
    with output.activity() as say:
        say(f"asking {', '.join(host.name for host in which)}")
        found = runs.list_runs(which, {"all": all_runs, "gpus": all_users})
    shown = [run for one in found for run in _select(one, all_runs=all_runs, all_users=all_users)]
    if as_json:
        output.json({"runs": [_as_json(one) for one in shown], "hosts": [_host_json(one) for one in found]})
    else:
        _show(found, shown, all_runs=all_runs, all_users=all_users)
        if not which:
            output.note("no runs: no host is known here")
            output.next_step("gpurun host add NAME user@address", "or name an alias of your SSH configuration with -H")
        if all_runs or not which:
            removed_run.note_more()
    if found and all(one.failure is not None for one in found):
        assert found[0].failure is not None
        raise found[0].failure


@dataclass(frozen=True)
class _Shown:
    """A run to show; `seen` is when its host told of it."""

    host: str
    record: RunRecord
    seen: float | None


def _select(one: HostRuns, *, all_runs: bool, all_users: bool) -> list[_Shown]:
    """The host's runs to show, the newest first; as they were last known when it is silent."""
    import getpass

    if one.answer is not None:
        found = [_Shown(one.host, record, one.answer["now"]) for record in one.answer["runs"]]
    else:
        found = [
            _Shown(one.host, entry.record or _never_seen(entry), entry.seen)
            for entry in one.known
            if all_runs or not entry.ended
        ]
    mine = getpass.getuser()
    found = [run for run in found if all_users or run.record["owner"] in (mine, None)]
    return sorted(found, key=lambda run: run.record["created"] or 0, reverse=True)


def _never_seen(entry: RunEntry) -> RunRecord:
    """A run whose host has not spoken of it yet: its submit broke off, or is going on right now."""
    known = {
        "id": entry.id,
        "name": entry.name,
        "project": entry.project,
        "owner": None,
        "state": words.SYNCING,
        "created": entry.created,
        "since": entry.created,
    }
    return cast("RunRecord", known)


def _as_json(run: _Shown) -> dict[str, object]:
    return {**run.record, "seen": run.seen, "host": run.host}


def _host_json(one: HostRuns) -> dict[str, object]:
    answer = one.answer
    return {
        "host": one.host,
        "answered": answer is not None,
        "failure": one.failure.what if one.failure else None,
        "gpus": answer["gpus"] if answer else [],
        "queue": answer["queue"] if answer else [],
        "others": answer["others"] if answer else [],
        "disk": answer["disk"] if answer else None,
    }


def _show(found: list[HostRuns], shown: list[_Shown], *, all_runs: bool, all_users: bool) -> None:
    from gpurun.cli import ps_tables

    answered = {one.host: one.answer is not None for one in found}
    listed = [ps_tables.Listed(run.record, run.host, answered[run.host], _now(found, run.host)) for run in shown]
    ps_tables.show(listed, owners=all_users)
    if any(answered.values()) and all(one.service for one in listed):
        output.note("no runs" if all_runs else "no live runs; gpurun ps -a lists those that have ended")
    if all_users:
        _show_gpus(found)
    for one in listed:
        if one.answered and one.record.get("problem"):
            output.warn(f"{one.record['id']}: {one.record['problem']}")
    for host in found if len(found) > 1 else []:
        if host.failure is not None:
            output.warn(f"{host.host} did not answer: {describe.silence(host.failure)}")
    if any(one.is_guess for one in listed):
        output.note("? marks what was last known of a run")


def _now(found: list[HostRuns], host: str) -> float:
    """The host's own clock where it answered: `since` is of that clock."""
    answer = next(one.answer for one in found if one.host == host)
    return float(answer["now"]) if answer else time.time()


def _show_gpus(found: list[HostRuns]) -> None:
    """Who uses which GPU. Two names of one machine, say for two accounts there, are one line."""
    seen: dict[str, list[str]] = {}
    for one in found:
        for gpu in one.answer["gpus"] if one.answer else []:
            row = seen.setdefault(gpu["uuid"], ["", str(gpu["index"]), str(gpu["name"]), gpu["used_by"] or "free"])
            row[0] = ",".join(filter(None, (row[0], one.host)))
    if seen:
        output.out("")
        output.table(["HOST", "GPU", "NAME", "USED BY"], list(seen.values()), shrink=(2, 0, 3))

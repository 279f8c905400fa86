"""`gpurun ps`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, past, training

if TYPE_CHECKING:
    from gpurun.runs import HostRuns

EXAMPLES = """\
gpurun ps
gpurun ps -a -H box
gpurun ps --json"""

HEADER = ["RUN", "STATE", "GPUS", "SINCE", "DISK", "HOST"]
SHRINK = ("HOST", "OWNER", "PROGRESS", "STATE")  # cut where a line is too long; an id never is
PROGRESS = "PROGRESS"  # stands behind SINCE where a run tells of it
BARS = ((10, "epoch "), (6, "epoch "), (0, "epoch "), (0, ""))  # columns, and a word; the first that fits


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
    """
    from gpurun import runs
    from gpurun.config import hosts

    if removed:
        past.show_list(in_json=as_json)
        return
    which = [hosts.choose(host)] if host else runs.hosts_of_interest(all_runs=all_runs)
    with output.activity() as say:
        say(f"asking {', '.join(host.name for host in which)}")
        found = runs.list_runs(which, {"all": all_runs, "gpus": all_users})
    shown = [_select(one, all_runs=all_runs, all_users=all_users) for one in found]
    if as_json:
        output.json(
            {"runs": [_as_json(host, record) for host, records in shown for record in records]}
            | {"hosts": [_host_json(one) for one in found]}
        )
    else:
        _show(found, shown, all_runs=all_runs, all_users=all_users)
        if all_runs:
            past.note_more()
    if found and all(one.failure is not None for one in found):
        assert found[0].failure is not None
        raise found[0].failure


def _select(one: HostRuns, *, all_runs: bool, all_users: bool) -> tuple[str, list[dict[str, Any]]]:
    """The host's name and its records to show, the newest first; last known ones when it is silent."""
    import getpass

    if one.answer is not None:
        records = [{**record, "seen": one.answer["now"]} for record in one.answer["runs"]]
    else:
        records = [
            {**(entry.record or _never_seen(entry)), "seen": entry.seen}
            for entry in one.known
            if all_runs or not entry.ended
        ]
    mine = getpass.getuser()
    records = [record for record in records if all_users or record["owner"] in (mine, None)]
    return one.host, sorted(records, key=lambda record: record["created"] or 0, reverse=True)


def _never_seen(entry: Any) -> dict[str, Any]:
    """A run whose host has not spoken of it yet: its submit broke off, or is going on right now."""
    return {
        "id": entry.id,
        "name": entry.name,
        "project": entry.project,
        "owner": None,
        "state": words.SYNCING,
        "created": entry.created,
        "since": entry.created,
    }


def _as_json(host: str, record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "host": host}


def _host_json(one: HostRuns) -> dict[str, Any]:
    told = one.answer or {}
    return {
        "host": one.host,
        "answered": one.answer is not None,
        "failure": one.failure.what if one.failure else None,
        "gpus": told.get("gpus", []),
        "queue": told.get("queue", []),
        "others": told.get("others", []),
        "disk": told.get("disk"),
    }


def _show(
    found: list[HostRuns], shown: list[tuple[str, list[dict[str, Any]]]], *, all_runs: bool, all_users: bool
) -> None:
    answered = {one.host: one.answer is not None for one in found}
    rows = [
        _row(record, host, answered=answered[host], now=_now(found, host))
        for host, records in shown
        for record in records
    ]
    if rows:
        header = [*HEADER, "OWNER"] if all_users else HEADER
        rows = _with_owner(rows, shown) if all_users else rows
        header, rows = _with_progress(header, rows, [record for _, records in shown for record in records])
        output.table(header, rows, shrink=[header.index(name) for name in SHRINK if name in header])
    elif any(answered.values()):
        output.note("no runs" if all_runs else "no live runs; gpurun ps -a lists those that have ended")
    if all_users:
        _show_gpus(found)
    for host, records in shown:
        for record in records if answered[host] else []:
            if record.get("problem"):
                output.warn(f"{record['id']}: {record['problem']}")
    silent = [one for one in found if one.failure is not None]
    for one in silent if len(found) > 1 else []:
        assert one.failure is not None
        output.warn(f"{one.host} did not answer: {describe.silence(one.failure)}")
    if any(not words.is_over(record) for host, records in shown if not answered[host] for record in records):
        output.note("? marks what was last known of a run")


def _now(found: list[HostRuns], host: str) -> float:
    """The host's own clock where it answered: `since` is of that clock."""
    answer = next(one.answer for one in found if one.host == host)
    return float(answer["now"]) if answer else time.time()


def _row(record: dict[str, Any], host: str, *, answered: bool, now: float) -> list[str]:
    since, disk = record.get("since"), record.get("disk")
    state = describe.styled_state(record, sys.stdout)
    return [
        record["id"],
        state if answered or words.is_over(record) else f"{describe.state(record)}?",
        describe.gpus(record),
        output.ago(since, now) if since else "-",
        output.size(disk) if disk else "-",
        host,
    ]


def _with_owner(rows: list[list[str]], shown: list[tuple[str, list[dict[str, Any]]]]) -> list[list[str]]:
    owners = [record.get("owner") or "-" for _, records in shown for record in records]
    return [[*row, owner] for row, owner in zip(rows, owners, strict=True)]


def _with_progress(
    header: list[str], rows: list[list[str]], records: list[dict[str, Any]]
) -> tuple[list[str], list[list[str]]]:
    """How far each training is, in as many words as the line has room for."""
    at = header.index("SINCE") + 1
    wider = header, rows
    for length, word in BARS:
        bars = [training.progress_bar(record, length, word=word) if record.get("live") else "" for record in records]
        if not any(bars):
            return header, rows
        wider = (
            [*header[:at], PROGRESS, *header[at:]],
            [[*row[:at], bar or "-", *row[at:]] for row, bar in zip(rows, bars, strict=True)],
        )
        if output.table_width(*wider) <= output.width():
            break
    return wider


def _show_gpus(found: list[HostRuns]) -> None:
    """Who uses which GPU. Two names of one machine, say for two accounts there, are one line."""
    seen: dict[str, list[str]] = {}
    for one in found:
        for gpu in (one.answer or {}).get("gpus", []):
            row = seen.setdefault(gpu["uuid"], ["", str(gpu["index"]), str(gpu["name"]), gpu["used_by"] or "free"])
            row[0] = ",".join(filter(None, (row[0], one.host)))
    if seen:
        output.out("")
        output.table(["HOST", "GPU", "NAME", "USED BY"], list(seen.values()), shrink=(2, 0, 3))

"""The tables of `ps`: the jobs, and apart from them the services."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output, training
from gpurun.cli.terminal import harmless_line

if TYPE_CHECKING:
    from gpurun.agent.schema.run import RunRecord

HEADER = ["RUN", "STATE", "GPUS", "SINCE", "DISK", "HOST"]
PROGRESS, METRIC, ARGS, ABOUT = "PROGRESS", "METRIC", "ARGS", "ABOUT"
SHRINK = ("HOST", "OWNER", METRIC, PROGRESS, "STATE")  # cut where a line is too long; an id never is
ARGS_ROOM = 10  # columns for arguments, for which others are made shorter
LEAST_ARGS = 8
STEP_ROOM = 24  # columns for what is being done before the start

Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Form:
    """What is shown of the progress, and which columns are left out."""

    bar: int  # columns
    word: str = "epoch "
    left: bool = True  # the time that is left
    metric: bool = True
    without: tuple[str, ...] = ("DISK",)


# The first that leaves room for arguments is taken.
FORMS = (
    Form(10, without=()), Form(10), Form(6), Form(0), Form(0, ""), Form(0, "", left=False),
    Form(0, "", left=False, without=("DISK", "SINCE")), Form(0, "", left=False, metric=False, without=("DISK", "SINCE")),
)  # fmt: skip
PIPED = (Form(10), Form(6), Form(0), Form(0, ""))


@dataclass(frozen=True)
class Listed:
    """A run of a list: `answered` says whether its host did, `now` is the moment by the clock that its times are of."""

    record: RunRecord
    host: str
    answered: bool
    now: float

    @property
    def service(self) -> str | None:
        service = self.record.get("service")
        return service["kind"] if service else None

    @property
    def is_guess(self) -> bool:
        """Return whether it may be otherwise by now. An end stays what it is."""
        return not (self.answered or words.is_over(self.record))


def show(listed: Sequence[Listed], *, owners: bool) -> None:
    """Jobs, then services: on a terminal two tables, and more of each job; in a pipe one table."""
    jobs, services = [one for one in listed if not one.service], [one for one in listed if one.service]
    if not sys.stdout.isatty():
        if listed:
            _table(_piped([*jobs, *services], owners=owners))
        return
    if jobs:
        _table(_for_a_terminal(jobs, owners=owners))
    if jobs and services:
        output.out("")
    if services:
        columns = {**_common(services, owners=owners), ABOUT: [_about(one) for one in services]}
        _table({"SERVICE": columns.pop("RUN"), **columns})


def _table(columns: Columns) -> None:
    header = list(columns)
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    output.table(header, rows, shrink=[header.index(name) for name in SHRINK if name in header])


def _piped(listed: Sequence[Listed], *, owners: bool) -> Columns:
    """The columns that scripts know."""
    common = columns = _common(listed, owners=owners)
    for form in PIPED:
        columns = dict(_with_progress(common, _progress(listed, form)))
        if _width(columns) <= output.width():
            break
    return columns


def _for_a_terminal(jobs: Sequence[Listed], *, owners: bool) -> Columns:
    common = _common(jobs, owners=owners)
    args = [harmless_line(shlex.join(str(word) for word in one.record.get("args") or [])) for one in jobs]
    longest = max(map(output.visible, args))
    columns: dict[str, Sequence[str]] = {}
    for form in FORMS:
        columns = dict(_with_progress(common, _progress(jobs, form)))
        columns = _with_metric(columns, jobs) if form.metric else columns
        columns = {name: cells for name, cells in columns.items() if name not in form.without}
        if _width(columns) + min(longest, ARGS_ROOM) + 2 <= output.width():
            break
    room = output.width() - _width(columns) - 2
    if longest and room >= LEAST_ARGS:
        columns[ARGS] = [output.cut_end(text, room) for text in args]
    return columns


def _width(columns: Columns) -> int:
    return output.table_width(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def _common(listed: Sequence[Listed], *, owners: bool) -> dict[str, Sequence[str]]:
    columns: dict[str, Sequence[str]] = dict(zip(HEADER, map(list, zip(*map(_row, listed), strict=True)), strict=True))
    return {**columns, "OWNER": [one.record.get("owner") or "-" for one in listed]} if owners else columns


def _row(one: Listed) -> list[str]:
    record = one.record
    since, disk = record.get("since"), record.get("disk")
    return [
        record["id"],
        _state(one),
        "-" if words.is_over(record) else describe.gpus(record),
        output.ago(since, one.now) if since else "-",
        output.size(disk) if disk else "-",
        one.host,
    ]


def _state(one: Listed) -> str:
    behind = f" (attempt {one.record.get('attempt', 1)})" if one.record.get("left_behind") else ""
    shown = f"{describe.state(one.record)}?" if one.is_guess else describe.styled_state(one.record, sys.stdout)
    return shown + behind


def _progress(listed: Sequence[Listed], form: Form) -> list[str]:
    """How far each training is; before that, what is being done for it."""
    return [
        ""
        if not one.record.get("live")
        else harmless_line(describe.step(one.record, STEP_ROOM, short=not form.bar))
        or training.progress_bar(one.record, form.bar, word=form.word, left=form.left)
        for one in listed
    ]


def _with_progress(columns: Columns, bars: Sequence[str]) -> Columns:
    return _inserted(columns, PROGRESS, bars) if any(bars) else columns


def _with_metric(columns: Columns, jobs: Sequence[Listed]) -> dict[str, Sequence[str]]:
    """The monitored metric behind the progress; where all monitor the same one, its name is the column's."""
    found = [training.monitored(one.record) for one in jobs]
    found = [told and (harmless_line(told[0]), told[1]) for told in found]
    names = {told[0] for told in found if told is not None}
    if not names:
        return dict(columns)
    same = len(names) == 1
    cells = ["" if told is None else told[1] if same else " ".join(told) for told in found]
    return dict(_inserted(columns, names.pop() if same else METRIC, cells))


def _inserted(columns: Columns, name: str, cells: Sequence[str]) -> Columns:
    """With a column more, before DISK; a name that a column has already is written in capitals, as METRIC."""
    name = METRIC if name in columns else name
    filled = [cell or "-" for cell in cells]
    return {
        key: value for at in columns for key, value in ([(name, filled)] if at == "DISK" else []) + [(at, columns[at])]
    }


def _about(one: Listed) -> str:
    """The one run that it is for, or the project."""
    service = one.record.get("service")
    return str((service and service.get("run")) or one.record.get("project") or "-")

"""`gpurun status`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, cast

import typer

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, removed_run, status_facts, tracebacks, training
from gpurun.cli.terminal import without_styles
from gpurun.errors import HostError, HostUnreachable
from gpurun.remote import records

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import StatusAnswer
    from gpurun.agent.schema.run import RunRecord
    from gpurun.cli.status_facts import ShownStatus
    from gpurun.store.run_store import RunEntry

EXAMPLES = """\
gpurun status
gpurun status train-7f3k --json
gpurun status train --exit-code && echo it worked"""

LOG_LINES = 12  # of a log's end, when there is no traceback
SCREEN = 24  # lines of the smallest terminal that a status is to fit
LONGEST = 130  # characters of a fact about a run that failed, without -v
LEAST = 3  # lines of a traceback that are shown however little room there is
_COPIED = ("files", "fetched")  # paths are shown whole
# Of a run that failed, and of any other: what a terminal shows only with -v. A pipe has all.
_MORE = ("image", "software", "submitted")
_MORE_OF_A_FAILURE = (*_MORE, "started", "metrics", "project", "gpus", "note")
_FIRST_TO_GO = ("progress", "host", "attempt", "limits")  # where too little room is left for what it printed last


def status(
    run: options.KnownRun = None,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="End with the job's exit code (125 while it is live)."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until the run has ended, over broken connections too.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Image, versions, all times and the whole traceback, too.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Show one run: what it waits for, how far it is, or why it failed and what may help.

    Without -v it fits a terminal of 24 lines, also for a run that failed; a pipe gets all.
    Of a run that was removed from its host: what this laptop knows of it, and what was fetched.
    """
    from gpurun.commands import runs
    from gpurun.store import checkpoint_store

    entry = runs.resolve(run, removed=True)
    try:
        answer = _watched(entry) if watch and entry.removed is None else _asked(entry)
    except HostError as error:
        entry = removed_run.instead(entry, error)
        answer = removed_run.answer(entry)
    except KeyboardInterrupt:
        output.after_interrupt()
        if not entry.ended:
            output.note(f"{entry.id} goes on by itself on {entry.host}")
        return words.EXIT_INTERRUPTED
    except HostUnreachable as error:
        if entry.record is None or as_json:
            raise
        _show_last_known(*_with_twins(entry, runs.twins(entry)))
        raise error from None
    twins = [] if entry.removed is not None else runs.twins(entry)
    entry, silent = _with_twins(entry, twins)
    record = answer["run"]
    if as_json:
        also: list[dict[str, object]] = [{**twin.known, "host": twin.host, "seen": twin.seen} for twin in twins]
        also += [{**told, "host": host, "seen": None} for host, told in entry.ended_on.items()]
        more = {
            "host": entry.host,
            "exit": records.exit_code(record),
            "hint": status_facts.hint(answer),
            "twins": also,
            "limits": describe.limits_set(answer["job"]) if answer["job"] else {},
        }
        gone = {} if entry.removed is None else {"removed": removed_run.as_json(entry)}
        output.json({**answer, **more, **gone, "checkpoints": checkpoint_store.there(entry.id)})
    else:
        _show(answer, entry, silent, verbose=verbose or not sys.stdout.isatty())
    if not exit_code:
        return 0
    code = records.exit_code(record)
    return words.EXIT_FAILED if code is None else code


def _with_twins(entry: RunEntry, twins: Sequence[RunEntry]) -> tuple[RunEntry, frozenset[str]]:
    """The entry with the attempts that are live elsewhere, and which of their hosts do not answer."""
    from gpurun.store import run_store

    known = entry if entry.removed is not None else run_store.find(entry.id) or entry
    silent = frozenset(twin.host for twin in twins if twin.seen is None)
    live = {twin.host: twin.record for twin in twins if twin.record is not None}
    return replace(entry, twins=live, ended_on=known.ended_on), silent


def _asked(entry: RunEntry) -> ShownStatus:
    from gpurun.commands import runs

    if entry.removed is not None:
        return removed_run.answer(entry)
    with output.activity(f"asking {entry.host}"):
        return _shown(runs.status(entry))


def _watched(entry: RunEntry) -> ShownStatus:
    from gpurun.cli.watched import Board
    from gpurun.commands import follow, runs

    with Board(entry.host, lambda answer: _head(_shown(answer), entry)) as board:
        return _shown(follow.watch(runs.wire_to(entry.host), entry.id, board, board.show))


def _shown(answer: StatusAnswer) -> ShownStatus:
    return cast("ShownStatus", {key: value for key, value in answer.items() if key != "ledgers"})


def _show(answer: ShownStatus, entry: RunEntry, silent: frozenset[str], *, verbose: bool) -> None:
    """The run; of one that failed first why, with as much of its traceback as leaves the rest on the screen."""
    facts = _facts(answer, entry, silent, verbose=verbose)
    steps = [] if "removed" in answer or not sys.stdout.isatty() else _next(answer["run"])
    if answer["run"]["state"] in status_facts.FAILURES:
        lines = _of_a_failure(answer, facts, len(steps), verbose=verbose)
    else:
        lines = list(facts.values())
    for line in [_title(answer["run"]), *lines]:
        output.out(line)
    if steps:
        output.say("")
        output.next_steps(*steps)


def _of_a_failure(answer: ShownStatus, facts: dict[str, str], steps: int, *, verbose: bool) -> list[str]:
    """Why, what was printed last, what may help, and the other facts."""
    why = [facts.pop(name) for name, _ in status_facts.why(answer) if name in facts]
    hint = _hint_lines(answer)
    room = max(output.height(), SCREEN) - steps - 5  # the title, three empty lines, and the prompt

    def left() -> int:
        return room - sum(map(_height, (*why, *hint, *facts.values())))

    for name in () if verbose else _FIRST_TO_GO:
        if left() < LEAST:
            facts.pop(name, None)
    said = _said(answer, None if verbose else left())
    blank = [""] if said or hint else []
    return [*why, *blank, *said, *hint, *blank, *facts.values()]


def _head(answer: ShownStatus, entry: RunEntry) -> list[str]:
    """What is looked at while the run goes on."""
    return [_title(answer["run"]), *_facts(answer, entry, frozenset(), verbose=False).values()]


def _title(record: RunRecord) -> str:
    colour = describe.COLOURS.get(record["state"], output.DIM)
    step = describe.step(record)
    now = f"is {describe.state(record)}" + (f": {step}" if step else "")
    clause = describe.outcome(record) if words.is_over(record) else now
    title = f"{output.styled(record['id'], output.BOLD, stream=sys.stdout)} "
    return title + output.styled(clause, colour, stream=sys.stdout)


def _facts(answer: ShownStatus, entry: RunEntry, silent: frozenset[str], *, verbose: bool) -> dict[str, str]:
    """What is known of the run, by its label, with it and folded."""
    failed = answer["run"]["state"] in status_facts.FAILURES
    more = _MORE_OF_A_FAILURE if failed else _MORE
    found: dict[str, str] = {}
    for name, text in status_facts.facts(answer, entry, silent):
        if verbose or name not in more:
            shown = output.cut(text, LONGEST) if failed and not verbose and name not in _COPIED else text
            line = output.labelled(name, shown, 12, output.DIM, lead="  ")
            found[name] = f"{found[name]}\n{line}" if name in found else line  # there may be several notes
    return found


def _height(text: str) -> int:
    """How many lines of the terminal it takes."""
    return sum(max(1, -(-output.visible(line) // output.width())) for line in text.split("\n"))


def _said(answer: ShownStatus, room: int | None) -> list[str]:
    """The end of the last traceback, or of what was printed, in at most `room` lines of the terminal; all of it for None."""
    text = answer.get("traceback") or _tail(answer.get("log_tail")) or _tail(answer.get("prepare_tail"))
    # Its own colours would go on in what comes behind it.
    lines = without_styles(text).rstrip().splitlines() if text else []
    if room is None:
        return lines
    room, wide, kept = max(room, LEAST), output.width(), list[str]()
    for line in reversed([line for line in lines if not tracebacks.is_marks_alone(line, wide)]):
        room -= 1
        if room < 0:
            break
        kept.insert(0, tracebacks.fit(line, wide))
    frames = [at for at, line in enumerate(kept) if line.startswith("  File ")]
    return kept[frames[0] :] if frames and len(kept) < len(lines) else kept  # half a frame says nothing


def _hint_lines(answer: ShownStatus) -> list[str]:
    found = status_facts.hint(answer)
    label = output.styled("hint:", output.CYAN, output.BOLD, stream=sys.stdout)
    return [f"{label} {output.folded(found, 6, sys.stdout)}"] if found else []


def _tail(text: str | None) -> str:
    lines = (text or "").replace("\r", "\n").rstrip().splitlines()
    return "\n".join(lines[-LOG_LINES:])


def _next(record: RunRecord) -> list[tuple[str, str]]:
    run = record["id"]
    if not words.is_over(record):
        return [(f"gpurun logs -f {run}", "follow it"), (f"gpurun stop {run}", "end it")]
    wrote = [(f"gpurun fetch {run}", "what it wrote")] if record.get("started") else []
    return [(f"gpurun logs {run}", "all that it printed"), *wrote, *describe.go_on(record)]


def _show_last_known(entry: RunEntry, silent: frozenset[str]) -> None:
    record = entry.known
    if entry.ended:
        output.out(f"{record['id']} {describe.outcome(record)}; {entry.host} does not answer now")
    else:
        output.out(f"{record['id']} is unknown: {entry.host} does not answer, which changes nothing about the run")
        output.out(f"  last seen {output.ago(entry.seen or 0.0)} ago: {describe.state(record)}")
    known = (("progress", training.progress_line(record)), ("metrics", training.metrics(record)))
    for name, text in (
        *known,
        ("saved", status_facts.checkpoints(record, entry.host)),
        ("elsewhere", status_facts.elsewhere(entry, silent)),
    ):
        if text:
            output.out(output.labelled(name, text, 12, lead="  "))

"""`gpurun status`."""

from __future__ import annotations

import shlex
import sys
import time
from dataclasses import replace
from typing import Annotated, Any

import typer

from gpurun import records
from gpurun.agent import vocabulary as words
from gpurun.cli import describe, options, output, past, training
from gpurun.errors import HostError, HostUnreachable

EXAMPLES = """\
gpurun status
gpurun status train-7f3k --json
gpurun status train --exit-code && echo it worked"""

_MOMENTS = (("submitted", "created"), ("started", "started"), ("ended", "ended"))
LOG_LINES = 12  # of a log's end, when there is no traceback


def status(
    run: options.Run = None,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="End with the job's exit code (125 while it is live)."),
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until the run has ended, over broken connections too.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Show one run in full: what it waits for, what it runs on, or why it failed and what may help.

    Of a run that was removed from its host: what this laptop knows of it, and what was fetched.
    """
    from gpurun import mirror, runs

    entry = runs.resolve(run, removed=True)
    try:
        answer = _watched(entry) if watch and entry.removed is None else _asked(entry)
    except HostError as error:
        entry = past.instead(entry, error)
        answer = past.answer(entry)
    except KeyboardInterrupt:
        output.after_interrupt()
        if not entry.ended:
            output.note(f"{entry.id} goes on by itself on {entry.host}")
        return words.EXIT_INTERRUPTED
    except HostUnreachable as error:
        if entry.record is None or as_json:
            raise
        _show_last_known(_with_twins(entry, runs.twins(entry)))
        raise error from None
    twins = [] if entry.removed is not None else runs.twins(entry)
    entry = _with_twins(entry, twins)
    record = answer["run"]
    answer.pop("ledgers", None)
    if as_json:
        also = [{**(twin.record or {}), "host": twin.host, "seen": twin.seen} for twin in twins]
        more = {"host": entry.host, "exit": records.exit_code(record), "hint": _hint(answer), "twins": also}
        gone = {} if entry.removed is None else {"removed": past.as_json(entry)}
        output.json({**answer, **more, **gone, "checkpoints": mirror.there(entry.id)})
    else:
        _show(answer, entry)
    if not exit_code:
        return 0
    code = records.exit_code(record)
    return words.EXIT_FAILED if code is None else code


def _with_twins(entry: Any, twins: Any) -> Any:
    return replace(entry, twins={twin.host: twin.record for twin in twins if twin.record is not None})


def _asked(entry: Any) -> dict[str, Any]:
    from gpurun import runs

    if entry.removed is not None:
        return past.answer(entry)
    with output.activity(f"asking {entry.host}"):
        return runs.status(entry)


def _watched(entry: Any) -> dict[str, Any]:
    from gpurun import follow, runs
    from gpurun.cli.watched import Board

    with Board(entry.host, lambda answer: _head(answer, entry)) as board:
        return follow.watch(runs.wire_to(entry.host), entry.id, board, board.show)


def _show(answer: dict[str, Any], entry: Any) -> None:
    for line in _head(answer, entry):
        output.out(line)
    _show_failure(answer)
    if "removed" not in answer:
        _show_next(answer["run"])


def _head(answer: dict[str, Any], entry: Any) -> list[str]:
    """The run and all that is known of it, a line each; longer ones go on in the next."""
    record = answer["run"]
    colour = describe.COLOURS.get(record["state"], output.DIM)
    step = describe.step(record)
    now = f"is {describe.state(record)}" + (f": {step}" if step else "")
    clause = describe.outcome(record) if words.is_over(record) else now
    title = f"{output.styled(record['id'], output.BOLD, stream=sys.stdout)} "
    lines = [title + output.styled(clause, colour, stream=sys.stdout)]
    for name, text in _lines(answer, entry):
        lines.append(output.labelled(name, text, 12, output.DIM, lead="  "))
    return lines


def _lines(answer: dict[str, Any], entry: Any) -> list[tuple[str, str]]:
    record, job = answer["run"], answer["job"] or {}
    lines = [
        ("problem", str(record.get("problem") or "")),
        ("because", describe.reason(record) or _raised(answer)),
        ("waits", describe.waiting(record)),
        ("attempt", _attempt(record)),
        ("progress", training.progress_line(record)),
        ("metrics", training.metrics(record)),
        ("saved", _checkpoints(record, entry.host)),
        ("twin", _twins(entry)),
        ("project", _project(job)),
        ("command", shlex.join(job.get("command", []))),
        ("host", ", ".join(filter(None, (entry.host, describe.runtime(record))))),
        ("gpus", _gpus(record)),
        ("image", _image(record)),
        ("software", _environment(record)),
        *_times(record),
        ("files", _files(answer, entry)),
        ("fetched", _fetched(entry, record) if entry.removed is None else ""),
        ("removed", answer.get("removed", "")),
    ]
    lines += [("note", text) for text in record.get("notes") or []]
    return [(name, text) for name, text in lines if text]


def _twins(entry: Any) -> str:
    """Attempts that are live on other hosts: the run went on here while they could not be asked."""
    told = [f"attempt {one.get('attempt', 1)} is {one['state']} on {host}" for host, one in entry.twins.items()]
    return f"{', '.join(told)}; gpurun stop {entry.id} ends all of them" if told else ""


def _project(job: dict[str, Any]) -> str:
    return describe.code(job.get("project", {}).get("name"), job.get("git"))


def _attempt(record: dict[str, Any]) -> str:
    """Which one it is, and how those before it went; empty for a first one."""
    if record.get("attempt", 1) == 1:
        return ""
    earlier = [describe.attempt_ended(told) for told in record["attempts"]]
    return f"{record['attempt']}, {describe.begins_from(record)}; {', '.join(earlier)}"


def _checkpoints(record: dict[str, Any], host: str) -> str:
    from gpurun import mirror

    saved = mirror.saved(record["id"], host, record.get("checkpoints"))
    last, best = saved.last, saved.best
    if not last:
        return ""
    elsewhere = f", on {best['host']}" if best and best.get("host", host) != host else ""
    also = ""
    if best and (elsewhere or best["path"] != last["path"]):
        also = f"; the best {describe.checkpoint(best)}{elsewhere}"
    return f"{output.plural(saved.count, 'checkpoint')}, the last {describe.checkpoint(last)}{also}"


def _gpus(record: dict[str, Any]) -> str:
    if record.get("gpus"):
        return describe.gpu_names(record)
    return f"{record['gpus_asked']} asked for" if record.get("gpus_asked") else "none asked for"


def _image(record: dict[str, Any]) -> str:
    image, digest = record.get("image") or "", record.get("digest") or ""
    if not digest or digest in image:
        return describe.image(image)
    return describe.image(f"{image} {digest}".strip())


def _environment(record: dict[str, Any]) -> str:
    """The versions that a result depends on; `--json` has all packages."""
    names = {
        "torch": "torch",
        "cuda": "CUDA",
        "cudnn": "cuDNN",
        "lightning": "Lightning",
        "python": "Python",
        "driver": "driver",
    }
    found = record.get("environment") or {}
    return ", ".join(f"{shown} {found[name]}" for name, shown in names.items() if found.get(name))


def _times(record: dict[str, Any]) -> list[tuple[str, str]]:
    """On this laptop's clock's zone; how long ago is told for the last one."""
    known = [(name, record[key]) for name, key in _MOMENTS if record.get(key)]
    lines = [(name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))) for name, moment in known]
    if lines:
        name, text = lines[-1]
        lines[-1] = (name, f"{text}, {output.ago(known[-1][1])} ago")
    return lines


def _files(answer: dict[str, Any], entry: Any) -> str:
    size = f" ({output.size(answer['run']['disk'])})" if answer["run"].get("disk") else ""
    return f"{entry.host}:{answer['path']}{size}" if answer.get("path") else ""


def _fetched(entry: Any, record: dict[str, Any]) -> str:
    if entry.fetched:
        return f"{output.ago(entry.fetched)} ago" + (f" to {entry.fetched_to}" if entry.fetched_to else "")
    if record.get("fetched"):
        return f"{output.ago(record['fetched'])} ago, to another laptop"
    if not words.is_over(record) or not record.get("started"):
        return ""
    if entry.fetched_to:
        return f"not since attempt {record['attempt']} began; what came before is in {entry.fetched_to}"
    return "never"


def _show_failure(answer: dict[str, Any]) -> None:
    """The last traceback, or the end of what was said, of a run that did not end well."""
    if answer["run"]["state"] not in (words.FAILED, words.TIMED_OUT, words.LOST):
        return
    text = answer.get("traceback") or _tail(answer.get("log_tail")) or _tail(answer.get("prepare_tail"))
    if text:
        output.out("")
        output.out(text.rstrip())
    found = _hint(answer)
    if found:
        output.out("")
        output.out(
            f"{output.styled('hint:', output.CYAN, output.BOLD, stream=sys.stdout)} {output.folded(found, 6, sys.stdout)}"
        )


def _hint(answer: dict[str, Any]) -> str | None:
    from gpurun import hints

    record = answer["run"]
    if record["state"] not in (words.FAILED, words.TIMED_OUT, words.LOST):
        return None
    if record.get("next"):
        return str(record["next"])
    if record.get("reason") == "oom":
        return "give it more with --memory, or use smaller batches or fewer DataLoader workers"
    said = answer.get("traceback") or answer.get("log_tail") or answer.get("prepare_tail") or ""
    found = hints.hint(said)
    if found is None and _raised(answer):
        again = "the script raised this: mend it here and submit it again"
        resumed = f"; `gpurun resume {record['id']}` goes on with the code as it was sent"
        return again + ("" if "removed" in answer else resumed)
    return found


def _raised(answer: dict[str, Any]) -> str:
    """`ValueError: ...`, when that is what ended the script: Python ends with 1 then."""
    record, text = answer["run"], answer.get("traceback")
    if not text or (record["state"], record.get("reason"), record.get("exit_code")) != (words.FAILED, "exit", 1):
        return ""
    return str(text).rstrip().rpartition("\n")[2]


def _tail(text: str | None) -> str:
    lines = (text or "").replace("\r", "\n").rstrip().splitlines()
    return "\n".join(lines[-LOG_LINES:])


def _show_next(record: dict[str, Any]) -> None:
    if not sys.stdout.isatty():
        return
    run = record["id"]
    output.say("")
    if not words.is_over(record):
        output.next_steps((f"gpurun logs -f {run}", "follow it"), (f"gpurun stop {run}", "end it"))
        return
    wrote = [(f"gpurun fetch {run}", "what it wrote")] if record.get("started") else []
    output.next_steps((f"gpurun logs {run}", "all that it printed"), *wrote, *describe.go_on(record))


def _show_last_known(entry: Any) -> None:
    record = entry.record
    if entry.ended:
        output.out(f"{record['id']} {describe.outcome(record)}; {entry.host} does not answer now")
    else:
        output.out(f"{record['id']} is unknown: {entry.host} does not answer, which changes nothing about the run")
        output.out(f"  last seen {output.ago(entry.seen)} ago: {describe.state(record)}")
    known = (("progress", training.progress_line(record)), ("metrics", training.metrics(record)))
    for name, text in (*known, ("saved", _checkpoints(record, entry.host)), ("twin", _twins(entry))):
        if text:
            output.out(output.labelled(name, text, 12, lead="  "))

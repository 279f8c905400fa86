"""What `status` tells of a run: the facts, each with its label, and what may help where it failed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict, cast

from gpurun.agent import vocabulary as words
from gpurun.cli import describe, output, training
from gpurun.cli.terminal import without_styles

if TYPE_CHECKING:
    from gpurun.agent.schema.job import JobSpec
    from gpurun.agent.schema.run import Environment, Event, Prepared, RunRecord
    from gpurun.store.run_store import RunEntry

FAILURES = (words.FAILED, words.TIMED_OUT, words.LOST)


class ShownStatus(TypedDict, total=False):
    """A host's answer to `status`, or what is known here of a run that was removed from its host."""

    run: RunRecord
    job: JobSpec | None
    events: list[Event]
    prepare_tail: str | None
    log_tail: str | None
    traceback: str | None
    path: str | None
    environment: Environment | None
    prepared: Prepared | None
    removed: str  # a sentence; only of a run that was removed


def why(answer: ShownStatus) -> list[tuple[str, str]]:
    record = answer["run"]
    lines = [
        ("problem", str(record.get("problem") or "")),
        ("because", describe.reason(record) or _raised(answer)),
        ("waits", describe.waiting(record)),
    ]
    return [(name, text) for name, text in lines if text]


def facts(answer: ShownStatus, entry: RunEntry, silent: frozenset[str]) -> list[tuple[str, str]]:
    record, job = answer["run"], answer["job"] or cast("JobSpec", {})
    lines = [
        *why(answer),
        ("attempt", _attempt(record, entry)),
        ("progress", training.progress_line(record)),
        ("metrics", training.metrics(record)),
        ("saved", checkpoints(record, entry.host)),
        ("elsewhere", elsewhere(entry, silent)),
        ("project", _project(job)),
        ("command", shlex.join(job.get("command", []))),
        ("host", ", ".join(filter(None, (entry.host, describe.runtime(record))))),
        ("gpus", _gpus(record)),
        ("limits", describe.limits(job)),
        ("image", _image(record)),
        ("software", _environment(record)),
        *_times(record),
        ("files", _files(answer, entry)),
        ("fetched", _fetched(entry, record) if entry.removed is None else ""),
        ("removed", answer.get("removed", "")),
    ]
    lines += [("note", text) for text in record.get("notes") or []]
    return [(name, text) for name, text in lines if text]


def elsewhere(entry: RunEntry, silent: frozenset[str]) -> str:
    """Attempts that were left behind on other hosts: the run went on here while those could not be asked."""
    live = [
        f"attempt {one.get('attempt', 1)} may still be {one['state']} on {host}, which does not answer"
        if host in silent
        else f"attempt {one.get('attempt', 1)} is {one['state']} on {host}"
        for host, one in entry.twins.items()
    ]
    ends = f"; gpurun stop {entry.id} ends all of them" if live else ""
    over = [
        f"attempt {one.get('attempt', 1)} {describe.how_it_ended(one)} on {host}"
        for host, one in entry.ended_on.items()
    ]
    return ", ".join([*over, *live]) + ends


def _project(job: JobSpec) -> str:
    project = job.get("project")
    return describe.code(project["name"] if project else None, job.get("git"))


def _attempt(record: RunRecord, entry: RunEntry) -> str:
    """Which one it is, and how those before it went, those aside that were left behind; empty for a first one."""
    if record.get("attempt", 1) == 1:
        return ""
    behind = {one.get("attempt", 1) for one in (*entry.twins.values(), *entry.ended_on.values())}
    earlier = [describe.attempt_ended(told) for told in record["attempts"] if told["attempt"] not in behind]
    return "; ".join(filter(None, [f"{record['attempt']}, {describe.begins_from(record)}", ", ".join(earlier)]))


def checkpoints(record: RunRecord, host: str) -> str:
    from gpurun.store import checkpoint_store

    saved = checkpoint_store.saved(record["id"], host, record.get("checkpoints"))
    last, best = saved.last, saved.best
    if not last:
        return ""
    elsewhere = f", on {saved.best_on}" if saved.best_on else ""
    also = ""
    if best and (elsewhere or best["path"] != last["path"]):
        also = f"; the best {describe.checkpoint(best)}{elsewhere}"
    return f"{output.plural(saved.count, 'checkpoint')}, the last {describe.checkpoint(last)}{also}"


def _gpus(record: RunRecord) -> str:
    if record.get("gpus"):
        return describe.gpu_names(record)
    return f"{record['gpus_asked']} asked for" if record.get("gpus_asked") else "none asked for"


def _image(record: RunRecord) -> str:
    image, digest = record.get("image") or "", record.get("digest") or ""
    if not digest or digest in image:
        return describe.image(image)
    return describe.image(f"{image} {digest}".strip())


def _environment(record: RunRecord) -> str:
    """The versions that a result depends on; `--json` has all packages."""
    names = {
        "torch": "torch",
        "cuda": "CUDA",
        "cudnn": "cuDNN",
        "lightning": "Lightning",
        "python": "Python",
        "driver": "driver",
    }
    found: Mapping[str, object] = record.get("environment") or {}
    return ", ".join(f"{shown} {found[name]}" for name, shown in names.items() if found.get(name))


def _times(record: RunRecord) -> list[tuple[str, str]]:
    """On this laptop's clock's zone; how long ago is told for the last one."""
    moments = ("submitted", record.get("created")), ("started", record.get("started")), ("ended", record.get("ended"))
    known = [(name, moment) for name, moment in moments if moment]
    lines = [(name, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))) for name, moment in known]
    if lines:
        name, text = lines[-1]
        lines[-1] = (name, f"{text}, {output.ago(known[-1][1])} ago")
    return lines


def _files(answer: ShownStatus, entry: RunEntry) -> str:
    disk = answer["run"].get("disk")
    size = f" ({output.size(disk)})" if disk else ""
    return f"{entry.host}:{answer['path']}{size}" if answer.get("path") else ""


def _fetched(entry: RunEntry, record: RunRecord) -> str:
    if entry.fetched:
        return f"{output.ago(entry.fetched)} ago" + (f" to {entry.fetched_to}" if entry.fetched_to else "")
    fetched = record.get("fetched")
    if fetched:
        return f"{output.ago(fetched)} ago, to another laptop"
    if not words.is_over(record) or not record.get("started"):
        return ""
    if entry.fetched_to:
        return f"not since attempt {record['attempt']} began; what came before is in {entry.fetched_to}"
    return "never"


def _raised(answer: ShownStatus) -> str:
    """`ValueError: ...`, when that is what ended the script: Python ends with 1 then."""
    record, text = answer["run"], answer.get("traceback")
    if not text or (record["state"], record.get("reason"), record.get("exit_code")) != (words.FAILED, "exit", 1):
        return ""
    return without_styles(str(text)).rstrip().rpartition("\n")[2]


def hint(answer: ShownStatus) -> str | None:
    from gpurun.commands import hints

    record = answer["run"]
    if record["state"] not in FAILURES:
        return None
    if record.get("next"):
        return str(record["next"])
    if record.get("reason") == "oom":
        return "give it more with --memory, or use smaller batches or fewer DataLoader workers"
    said = answer.get("traceback") or answer.get("log_tail") or answer.get("prepare_tail") or ""
    found = hints.hint(without_styles(said))
    if found is None and _raised(answer):
        again = "the script raised this: mend it here and submit it again"
        resumed = f"; `gpurun resume {record['id']}` goes on with the code as it was sent"
        return again + ("" if "removed" in answer else resumed)
    return found

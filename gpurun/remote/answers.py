"""What the answers of a host's agent must hold, verb by verb: a table, and the only place where answers are looked at for it.

A host may run anything, so nothing behind this module meets a missing key, a null or a NaN. Fields that are not in the table pass as
they are, and so does a state that this gpurun does not know: a newer one may send both. What a job itself reports (`progress`,
`metrics`, `stopped`) is an object here and no more: whoever shows it looks at each value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from gpurun.agent import vocabulary as words

if TYPE_CHECKING:
    from gpurun.agent.schema.host import ErrorDocument
    from gpurun.agent.schema.wire import FrameHead

Check = Callable[[Any, str], None]  # of a value, and where it stands; raises Malformed
Document = dict[str, Any]  # what a host sent: its keys are not known before they were looked at
Request = Mapping[str, Any]  # of any verb

LONGEST_ANSWER = 256 << 20  # bytes; a listing of a million files has about 200 MB
LONGEST_HEAD = 4 << 20  # bytes of the line before a frame's data
LARGEST_FRAME = 16 << 20  # bytes of its data; the agent sends a quarter of a MiB
_LAST_MOMENT = 253_402_300_799.0  # unix seconds: the end of the year 9999, behind which no date can be shown
_LARGEST = 1 << 63


class Malformed(ValueError):
    """An answer is not what it should be. `str()` says where in it, and what was to stand there."""


def parse(text: bytes) -> Document:
    """Read one JSON object. Raises Malformed, also for deep nesting. A NaN passes here: a job's loss may be one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise Malformed("it is no JSON object")
    return found


# --- values


def _fail(at: str, wanted: str) -> Malformed:
    return Malformed(f"`{at or 'answer'}` should be {wanted}")


def text(value: Any, at: str) -> None:
    if not isinstance(value, str):
        raise _fail(at, "a text")


def flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        raise _fail(at, "true or false")


def anything(value: Any, at: str) -> None:
    """Accept what the reader looks at itself."""


def number(value: Any, at: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_LARGEST < value < _LARGEST:
        raise _fail(at, "a number")


def real(value: Any, at: str) -> None:
    """A number of a job's, however large."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise _fail(at, "a number")


def integer(least: int, most: int) -> Check:
    def check(value: Any, at: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _fail(at, f"a whole number from {least} to {most}")

    return check


def moment(value: Any, at: str) -> None:
    number(value, at)
    if not 0 <= value <= _LAST_MOMENT:
        raise _fail(at, "a time in unix seconds")


def matching(pattern: str, wanted: str) -> Check:
    compiled = re.compile(pattern)

    def check(value: Any, at: str) -> None:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise _fail(at, wanted)

    return check


def maybe(check: Check) -> Check:
    def null_or(value: Any, at: str) -> None:
        if value is not None:
            check(value, at)

    return null_or


def each(check: Check) -> Check:
    def list_of(value: Any, at: str) -> None:
        if not isinstance(value, list):
            raise _fail(at, "a list")
        for index, one in enumerate(value):
            check(one, f"{at}[{index}]")

    return list_of


def row(*checks: Check) -> Check:
    """A list of so many values."""

    def check(value: Any, at: str) -> None:
        if not isinstance(value, list) or len(value) != len(checks):
            raise _fail(at, f"a list of {len(checks)} values")
        for index, one in enumerate(checks):
            one(value[index], f"{at}[{index}]")

    return check


def by_name(check: Check, name: Check = text) -> Check:
    """An object with any names."""

    def values(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            raise _fail(at, "an object")
        for key, one in value.items():
            name(key, f"{at}: a name in it")
            check(one, f"{at}.{key}")

    return values


def record(may_lack: Mapping[str, Check] | None = None, /, **must_have: Check) -> Check:
    """An object with these fields. Others pass as they are."""
    fields = {**must_have, **(may_lack or {})}

    def check(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            raise _fail(at, "an object")
        for name, one in fields.items():
            where = f"{at}.{name}" if at else name
            if name in value:
                one(value[name], where)
            elif name in must_have:
                raise Malformed(f"`{where}` is missing")

    return check


def either(*checks: Check) -> Check:
    def check(value: Any, at: str) -> None:
        for one in checks[:-1]:
            try:
                one(value, at)
            except Malformed:
                continue
            return
        checks[-1](value, at)

    return check


count = integer(0, _LARGEST)
nanoseconds = integer(-_LARGEST, _LARGEST)
port = integer(1, 65535)
run_id = matching(words.RUN_ID, "the id of a run")
state = matching(r"[a-z_]{1,40}", "a state")  # one of a newer gpurun's too
sha256 = matching(r"[0-9a-f]{64}", "a SHA-256")
place = matching(r"(?s)/[^\0]*", "an absolute path")
host_name = matching(r"[^\s-][^\s\x00-\x1f]*", "the name of a host")  # ssh takes `-o...` for an option
no_nul = matching(r"(?s)[^\0]*", "a text without NUL")
texts = each(text)
an_object = by_name(anything)

# --- what several verbs tell of

CHECKPOINT = record(
    path=no_nul, size=maybe(count), sha256=maybe(text), epoch=maybe(real), step=maybe(real), value=maybe(real),
    t=maybe(moment), attempt=maybe(real), monitor=maybe(text), mode=maybe(text),
)  # fmt: skip
ATTEMPT = record(
    {
        "state": maybe(state), "reason": maybe(text), "exit_code": maybe(integer(-255, 255)), "message": maybe(text),
        "started": maybe(moment), "ended": maybe(moment),
    },
    attempt=integer(1, 1 << 31),
)  # fmt: skip
STEP = record({"since": maybe(moment), "seconds": maybe(number)}, doing=text)
GPU = record({"name": maybe(text), "memory": maybe(number)}, index=count, uuid=text)
GIT = record({"commit": maybe(text), "branch": maybe(text), "dirty": maybe(flag)})
SERVICE = record({"run": maybe(run_id), "title": text, "idle": maybe(number)}, kind=text)
PORT = record(local=maybe(port), remote=port)
MARK = record({"up": maybe(number), "boot": maybe(text)})
RUN = record(
    {
        "script": maybe(text), "args": texts, "command": texts, "git": maybe(GIT),
        "service": maybe(SERVICE), "ports": each(PORT), "retries": record(asked=count, used=count), "digest": maybe(text),
        "environment": maybe(an_object), "disk": maybe(count), "log_bytes": maybe(count), "progress": maybe(an_object),
        "metrics": an_object, "saving": flag, "stopped": maybe(an_object), "fetched": maybe(moment), "boot_id": maybe(text),
        "image": maybe(text), "since": maybe(moment), "waiting": maybe(text), "step": maybe(STEP), "notes": texts, "ready": flag,
        "problem": maybe(text), "newer": flag, "ran": maybe(number), "ended_mark": maybe(MARK), "here": maybe(flag),
        "moving": maybe(record(ask=matching(r"[0-9a-f]{1,64}", "an ask"), to=host_name)),
    },
    id=run_id, name=text, resumed=maybe(CHECKPOINT), kill_in=maybe(number), attempts=each(ATTEMPT),
    state=state, reason=maybe(text), message=maybe(text), exit_code=maybe(integer(-255, 255)), next=maybe(text),
    attempt=integer(1, 1 << 31), created=maybe(moment), started=maybe(moment), ended=maybe(moment), live=maybe(flag),
    stop_requested=flag, owner=maybe(text), project=maybe(text), host_id=maybe(text), runtime=maybe(text), gpus=each(GPU),
    gpus_asked=maybe(either(count, text)), checkpoints=maybe(record(count=count, best=maybe(CHECKPOINT), last=maybe(CHECKPOINT))),
)  # fmt: skip
JOB = record(
    {
        "script": maybe(text), "args": texts, "command": texts, "env": texts, "git": maybe(GIT), "image": maybe(text), "service": maybe(SERVICE),
        "ports": each(PORT), "created": moment, "resources": an_object, "job_file": maybe(text), "name": text,
        "dependencies": maybe(an_object), "owner": maybe(text), "token": text,
    },
    id=run_id, project=record(name=text, root=text),
)  # fmt: skip
LEDGERS = by_name(
    record(host_id=text, **{"from": count}, to=count, lines=each(record({"path": text}))),
    run_id,
)
ERROR = record(code=text, what=text, where=text, next=text, exit=integer(1, 255))
STAYS = record(path=text, why=text)
DISK = record(free=count, total=count)
DISK_OF_FACTS = record(free=count, total=count, inodes=count, inodes_free=count)
ENGINE = record(
    {"version": maybe(text), "root": maybe(text), "toolkit": anything},
    argv=texts, rootless=flag, userns=flag, selinux=flag,
)  # fmt: skip
FACTS = record(
    {"hostname": maybe(text), "host_id": maybe(text), "machine_id": maybe(text), "boot_id": maybe(text), "home": text},
    python=record(path=text, version=text), user=text, root=place, container=flag, clock=moment, disk=DISK_OF_FACTS, driver=maybe(text),
    gpus=each(record({"memory": maybe(number), "uuid": text, "index": count}, name=text)),
    gpus_error=maybe(ERROR), engine=maybe(ENGINE), engine_error=maybe(ERROR),
)  # fmt: skip
FILE = {
    "as": no_nul, "path": maybe(no_nul), "size": count, "mtime_ns": nanoseconds, "ctime_ns": nanoseconds, "inode": count,
    "link": maybe(no_nul), "rank": count, "grows": flag, "writing": maybe(text),
}  # fmt: skip
SKIPPED = record({"lost": flag}, path=text, why=text)
HASH = record(
    {"cut": flag}, sha256=maybe(sha256), size=maybe(count), whole=flag, why=maybe(text), gone=flag, prefix_sha256=maybe(sha256),
)  # fmt: skip
HOLDINGS = record(
    {"shells": each(text)},
    live=flag, container=flag, files=count, bytes=count, stamp=maybe(text), elsewhere=maybe(moment),
)  # fmt: skip
LEFT = record({"run": maybe(run_id), "bytes": count, "why": text}, path=text)

# --- the answers

ANSWERS: dict[str, Check] = {
    "prepare": record(created=flag, run=RUN, snapshot=place, link_dest=each(text), facts=an_object),
    "start": record(run=RUN),
    "resume": record(run=RUN),
    "logs": record(run=RUN),
    "ps": record(
        {"boot_id": maybe(text), "hostname": maybe(text), "gpu_error": text, "more": maybe(row(count, run_id)), "mark": maybe(MARK)},
        now=moment, host_id=maybe(text), runs=each(RUN), ledgers=LEDGERS, queue=texts, disk=DISK,
        gpus=each(record({"memory": maybe(number)}, index=count, uuid=text, name=text, used_by=maybe(text), run=maybe(text))),
        others=each(record({"owner": maybe(text)}, run=text, gpus=each(count))),
    ),
    "status": record(
        run=RUN, job=maybe(JOB), ledgers=LEDGERS, path=place,
        events=each(record({"t": moment}, event=text)), prepare_tail=maybe(text), log_tail=maybe(text), traceback=maybe(text),
        environment=maybe(an_object), prepared=maybe(an_object),
    ),
    "wait": record(runs=each(RUN), ledgers=LEDGERS),
    "stop": record(runs=each(RUN)),
    "rm": record({"left": each(LEFT)}, removed=each(run_id), freed=count),
    "unfetched": record(runs=each(RUN), held=by_name(HOLDINGS, run_id), ledgers=LEDGERS),
    "shell": record({"ended": flag}, argv=each(no_nul), path=place),
    "outputs": record(
        {"stamp": maybe(text)},
        run=run_id, record=RUN, ledgers=LEDGERS, root=place, live=flag, now=moment,
        # One file that is told wrongly is left out and named by fetch/plan.py; it does not cost the others.
        files=each(record()), skipped=each(SKIPPED), caches=texts, bytes=count, container=flag,
    ),
    "hash": record(hashes=by_name(HASH)),
    "fetched": record(counts=flag),
    "checkpoint": record(
        run=RUN, ledgers=LEDGERS, count=count,
        checkpoint=maybe(
            record(
                path=no_nul, size=count, sha256=sha256, folder=place, name=no_nul, mtime_ns=nanoseconds,
                ctime_ns=nanoseconds, inode=count, **{"as": no_nul},
            )
        ),
    ),
    "migrate": record(
        {
            "run": maybe(RUN), "begun": flag, "job": JOB, "root": place,
            "snapshot": each(row(no_nul, text, count, nanoseconds, text)),
            "checkpoint": maybe(record(path=no_nul, size=count, sha256=sha256, folder=place, name=no_nul)),
        }
    ),
    "data": record(path=place, empty=flag, free=count),
    "data_folders": record(
        folders=each(
            record(
                name=text, path=place, bytes=count, files=count, counted=flag, began=maybe(moment), pushed=maybe(moment),
                used_by=each(run_id),
            )
        ),
        freed=count, left=texts,
    ),
    "facts": FACTS,
    "check": record(
        facts=FACTS, rsync=maybe(text), toolkit=maybe(text), engine_free=maybe(count), ends_at_logout=flag,
        pythons=each(record(path=text, version=text, torch=maybe(text))),
        disks=each(record({"type": text, "total": count}, path=text, free=count)),
        home=record(type=text, machines=count), echo=record(port=port, socket=place),
    ),
    "leave": record(
        revoked=count, removed=each(run_id), freed=count, left=each(STAYS), kept=each(STAYS), foreign=texts, shared=flag,
        data=by_name(record(files=count, bytes=count, stamp=text)),
    ),
    "warm": record(name=text, started=flag, engine=flag),
    "tunnel": record(
        probe=maybe(either(port, place)), runs=each(RUN),
        listeners=each(record(name=text, socket=maybe(place), port=maybe(port), token=maybe(text))),
    ),
}  # fmt: skip


def check(verb: str, request: Request, answer: Any) -> Document:
    """Return the answer to `verb`. Raises Malformed, also when it tells of other runs than the request asks for."""
    if verb == "ps":
        _set_aside(answer)
    ANSWERS.get(verb, an_object)(answer, "")
    _check_ids(verb, request, answer)
    found: Document = answer
    return found


def _set_aside(answer: Any) -> None:
    """Replace a run of a list that is told wrongly by one that tells its id alone: it takes no other run along."""
    runs = answer.get("runs") if isinstance(answer, dict) else None
    for index, one in enumerate(runs if isinstance(runs, list) else ()):
        try:
            RUN(one, "")
        except Malformed as wrong:
            run_id(one.get("id") if isinstance(one, dict) else None, f"runs[{index}].id")
            answer["runs"][index] = _unread(one["id"], f"what the host tells of it cannot be read: {wrong}")


def _unread(run: str, problem: str) -> Document:
    nothing = (
        "reason", "message", "exit_code", "next", "created", "started", "ended", "live", "owner", "project", "host_id", "runtime",
        "gpus_asked", "checkpoints", "resumed", "kill_in",
    )  # fmt: skip
    known = {"id": run, "name": run, "state": words.UNKNOWN, "attempt": 1, "stop_requested": False, "problem": problem}
    return {**dict.fromkeys(nothing), **known, "gpus": [], "attempts": [], "metrics": {}}


def error(document: Any) -> ErrorDocument:
    """Return what stands in a refusal. Raises Malformed; `exit: 0` is one: a failure never looks like a success."""
    ERROR(document, "error")
    found: ErrorDocument = document
    return found


def _check_ids(verb: str, request: Request, answer: Document) -> None:
    """Who is asked for one run must not tell of another: by its id things are stopped, fetched and removed."""
    one = request["job"]["id"] if verb == "prepare" else request.get("run")
    told = answer.get("record") or answer.get("run")
    if one is not None and isinstance(told, dict) and told["id"] != one:
        raise Malformed(f"it tells of run {told['id']}, and {one} was asked for")
    if verb in ("wait", "stop"):
        ids = [each["id"] for each in answer["runs"]]
        if sorted(ids) != sorted(set(request["runs"])):
            raise Malformed("it tells of other runs than were asked for")
    elif verb in ("ps", "unfetched"):
        asked = request.get("ids") if verb == "ps" else request["runs"]
        ids = [each["id"] for each in answer["runs"]]
        if len(set(ids)) != len(ids) or (asked is not None and not set(ids) <= set(asked)):
            raise Malformed("it tells of a run twice, or of one that was not asked for")
        if not set(answer.get("held", ())) <= set(ids):
            raise Malformed("it tells what other runs hold")
    elif verb in ("rm", "leave") and not set(answer["removed"]) <= set(request.get("runs") or ()):
        raise Malformed("it removed runs that were not to be removed")
    elif verb == "hash" and not set(answer["hashes"]) <= set(request["paths"]):
        raise Malformed("it tells of files that were not asked for")
    elif verb == "migrate" and not (request.get("to") or request.get("back")):
        _check_carry(request, answer)
    elif verb == "tunnel" and len(answer["listeners"]) != len(request["listeners"]):
        raise Malformed("it has other listeners than the request")


def _check_carry(request: Request, answer: Document) -> None:
    needed = {"begun", "run"} if request.get("settle") else {"run", "job", "root", "snapshot", "checkpoint"}
    if not needed <= set(answer) or (answer["run"] is None and answer.get("begun") is not False):
        raise Malformed("it does not tell what is to be carried, or whether the run has begun")


# --- frames

HEAD = record(
    {
        "stream": matching("log|prepare", "log or prepare"), "offset": count, "size": integer(0, LARGEST_FRAME),
        "attempt": integer(1, 1 << 31), "beat": anything, "state": RUN, "error": ERROR,
    }
)  # fmt: skip
_MADE = record(
    {"image": maybe(text), "digest": maybe(text), "id": maybe(text), "seconds": number, "what": text, "next": text},
    ok=flag,
)


def frame(verb: str, request: Request, line: bytes) -> FrameHead:
    """Return the head of a frame of the stream behind `verb`. Raises Malformed."""
    head = parse(line)
    HEAD(head, "")
    if "end" in head:
        {"warm": _end_of_warm, "check": an_object}.get(verb, RUN)(head["end"], "end")
    asked = {request.get("run"), *(each["run"] for each in request.get("listeners", ()))} - {None}
    for told in (head.get("state"), head.get("end") if verb not in ("warm", "check") else None):
        if told is not None and asked and told["id"] not in asked:
            raise Malformed(f"it tells of run {told['id']}, which was not asked for")
    return cast("FrameHead", head)


def _end_of_warm(value: Any, at: str) -> None:
    _MADE(value, at)
    needed = ("image", "digest", "id", "seconds") if value["ok"] else ("what", "next")
    if missing := [name for name in needed if name not in value]:
        raise Malformed(f"`{at}.{missing[0]}` is missing")

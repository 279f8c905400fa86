"""A run in words: its state, its GPUs, how it ended. Used by every verb that speaks of runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO, TypedDict, cast

from gpurun.agent import vocabulary as words
from gpurun.cli import output
from gpurun.cli.training import number
from gpurun.errors import GpurunError
from gpurun.store.checkpoint_store import is_number

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Git, GpuRequest, JobSpec
    from gpurun.agent.schema.run import AttemptSummary, RunRecord
    from gpurun.store.checkpoint_store import Commit

COLOURS = {
    words.SYNCING: output.BLUE,
    words.QUEUED: output.YELLOW,
    words.PREPARING: output.BLUE,
    words.RUNNING: output.CYAN,
    words.SUCCEEDED: output.GREEN,
    words.FAILED: output.RED,
    words.TIMED_OUT: output.RED,
    words.LOST: output.RED,
    words.STOPPED: output.YELLOW,
    words.UNKNOWN: output.DIM,
}


class Limits(TypedDict, total=False):
    """What a job spec limits: seconds, bytes, counts."""

    max_duration: float
    memory: int
    shm: int
    cpus: float
    gpus: GpuRequest
    retries: int
    grace: float


GRACE = 60.0  # seconds; the default of a job's `grace`


def state(record: RunRecord | AttemptSummary) -> str:
    """One word, or two where the word alone would mislead."""
    word = str(record["state"]).replace("_", " ")
    if record.get("stop_requested") and not words.is_over(record):
        return "stopping"
    if record["state"] == words.FAILED:
        code, reason = record.get("exit_code"), record.get("reason")
        return f"{word} ({reason if reason not in ('exit', None) or code is None else code})"
    if record["state"] == words.LOST and record.get("reason"):
        return f"{word} ({record['reason']})"
    return word


def styled_state(record: RunRecord, stream: TextIO) -> str:
    return output.styled(state(record), COLOURS.get(record["state"], output.DIM), stream=stream)


def outcome(record: RunRecord) -> str:
    """A clause such as `failed with exit code 3 after 2m 10s in 2 attempts`: all of them together."""
    seconds = words.seconds_ran(record)
    if seconds is None or record.get("started") is None:
        return how_it_ended(record)
    after = f"after {output.duration(seconds)}" if seconds >= 1 else "at once"
    count = sum(1 for told in record.get("attempts") or [] if told.get("started") is not None) + 1
    return f"{how_it_ended(record)} {after}" + (f" in {count} attempts" if count > 1 else "")


def how_it_ended(record: RunRecord | AttemptSummary) -> str:
    name, code = record["state"], record.get("exit_code")
    if name == words.FAILED:
        if record.get("reason") == "oom":
            return "ran out of memory"
        if record.get("reason") == "signal" and code:
            return f"was killed by signal {code - 128 if code > 128 else code}"
        if record.get("reason") == "signal":
            return "was stopped from outside"
        return f"failed with exit code {code}" if code is not None else "failed before it ran"
    if name == words.TIMED_OUT:
        return "was ended: its time was over"
    return {
        words.SUCCEEDED: "succeeded",
        words.STOPPED: "was stopped",
        words.LOST: "was lost",
    }.get(name or "", f"is {state(record)}")


# Reasons that `how_it_ended` has told already.
_SAID_BY_THE_END = ("exit", "oom", "signal", "stop", "duration")


def reason(record: RunRecord) -> str:
    """Why it is not a success, in a sentence; empty when there is nothing to say."""
    said = str(record.get("message") or "")
    if said or not words.is_over(record) or record.get("reason") in _SAID_BY_THE_END:
        return said
    return words.REASONS.get(record.get("reason") or "", "")


def attempt_ended(told: AttemptSummary) -> str:
    """`attempt 1 failed with exit code 3`."""
    if told.get("state") and words.is_over(told):
        return f"attempt {told['attempt']} {how_it_ended(told)}"
    return f"how attempt {told['attempt']} ended is not known"


def limits(job: JobSpec) -> str:
    """`12h, 32 GB memory, 8 CPUs, 2 GPUs, 3 retries, 5m to stop`: what the job spec limits, as far as it does."""
    told = limits_set(job)
    gpus = told.get("gpus", 0)
    shown = {
        "max_duration": f"{output.duration(told.get('max_duration', 0))} at most",
        "memory": f"{output.size(told.get('memory', 0))} memory",
        "shm": f"{output.size(told.get('shm', 0))} shared memory",
        "cpus": f"{told.get('cpus', 0):g} CPUs",
        "gpus": "all GPUs" if gpus == "all" else output.plural(int(gpus), "GPU"),
        "retries": output.plural(told.get("retries", 0), "retry", "retries"),
        "grace": f"{output.duration(told.get('grace', 0))} to stop",
    }
    return ", ".join(text for name, text in shown.items() if name in told)


def limits_set(job: JobSpec) -> Limits:
    """The limits that the job spec sets: seconds, bytes, counts. Left out: what is not set, and is the default."""
    resources = job.get("resources")
    told = {
        "max_duration": job.get("max_duration"),
        **({name: resources.get(name) for name in ("memory", "shm", "cpus", "gpus")} if resources else {}),
        "retries": job.get("retries"),
        "grace": job.get("grace") if job.get("grace") != GRACE else None,
    }
    there = {name: value for name, value in told.items() if (is_number(value) and value > 0) or value == "all"}
    return cast("Limits", there)


def begins_from(record: RunRecord) -> str:
    """Where the present attempt began."""
    told = record.get("resumed")
    return f"from {checkpoint(told)}" if told else "from the beginning"


def go_on(record: RunRecord) -> list[tuple[str, str]]:
    """The next step of a run that did not get through and has saved something."""
    known = record.get("checkpoints")
    if not words.is_over(record) or record["state"] == words.SUCCEEDED or not (known and known["last"]):
        return []
    return [(f"gpurun resume {record['id']}", "go on from its last checkpoint")]


def saved(record: RunRecord) -> str:
    """What a job that was stopped has saved, and what is lost, in a sentence; empty when its plugin told nothing."""
    told = record.get("stopped")
    if not told or not words.is_over(record):
        return ""
    if not told.get("checkpoint"):
        return f"no checkpoint was saved: {told.get('why') or 'there was nothing to save yet'}"
    lost = "the batch that was in work is lost" if told.get("lost_batches") else "nothing is lost"
    return f"saved {told['checkpoint']}{_place(told)}; {lost}"


def checkpoint(told: Mapping[str, object]) -> str:
    """`checkpoints/last.ckpt (epoch 3, step 120, val_loss 0.0123)`."""
    return f"{told['path']}{_place(told)}"


def _place(told: Mapping[str, object]) -> str:
    known = [f"{name} {told[name]}" for name in ("epoch", "step") if told.get(name) is not None]
    value = told.get("value")
    if told.get("monitor") and is_number(value):
        known.append(f"{told['monitor']} {number(value)}")
    return f" ({', '.join(known)})" if known else ""


def code(project: str | None, git: Git | Commit | None) -> str:
    """`vision at c0ffee1234 (main, with uncommitted changes)`."""
    commit = git.get("commit") if git else None
    if not git or not commit:
        return project or ""
    changes = ", with uncommitted changes" if git.get("dirty") else ""
    return f"{project} at {commit[:10]} ({git.get('branch') or 'no branch'}{changes})"


def gpus(record: RunRecord) -> str:
    """`GPU 0,1`, as nvidia-smi counts them; `wants 2` while it has none."""
    held = record.get("gpus") or []
    if held:
        return f"GPU {','.join(str(gpu['index']) for gpu in held)}"
    asked = record.get("gpus_asked")
    return "none" if not asked else f"wants {asked}"


def gpu_names(record: RunRecord) -> str:
    """`GPU 0,1 (NVIDIA A100)`."""
    held = record.get("gpus") or []
    names = list(dict.fromkeys(str(gpu.get("name") or "") for gpu in held))
    return f"{gpus(record)} ({', '.join(names)})" if held and names != [""] else gpus(record)


def runtime(record: RunRecord) -> str:
    """How it runs; empty while that is not chosen."""
    name = record.get("runtime") or ""
    return f"without a container ({name})" if name == "bare" else f"in a container ({name})" if name else ""


def silence(failure: GpurunError) -> str:
    """Why a host did not answer, in few words: ssh names itself, and its own words for the host."""
    said = re.sub(r"^ssh: (?:connect to host (\S+) port (\d+): )?", "", failure.what.strip())
    named = re.fullmatch(r"Could not resolve hostname ([^\s:]+): .*", said)
    return f"no machine is known by the name `{named[1]}`" if named else said[:1].lower() + said[1:]


def image(text: str) -> str:
    """For stdout: whole in a pipe; on a terminal the beginning of a digest is enough to tell two apart."""
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]+", r"\1…", text) if sys.stdout.isatty() else text


def doing(record: RunRecord) -> str:
    """What is being done before the job starts; empty once it runs, and while the run waits for something."""
    told = record.get("step")
    return "" if not told or words.is_over(record) or waiting(record) else str(told["doing"])


def step(record: RunRecord, room: int | None = None, *, short: bool = False) -> str:
    """`pulling python:3.11, 1m 20s`: the same, cut to `room` columns, or its first word, and for how long by now."""
    told = doing(record).split(" ")[0] if short else doing(record)
    told = told if room is None else output.cut_end(told, room)
    now = record.get("step")
    seconds = now.get("seconds") if now else None
    return f"{told}, {output.duration(seconds)}" if told and is_number(seconds) else told


def waiting(record: RunRecord) -> str:
    """What a run that does not run yet waits for."""
    return str(record.get("waiting") or "")

"""A run that has ended goes on as its next attempt: the same code, image and arguments, from a checkpoint."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.commands import runs
from gpurun.commands.submit import Started
from gpurun.errors import GpurunError, UsageError
from gpurun.secret import Secret
from gpurun.store import run_store

if TYPE_CHECKING:
    from gpurun.agent.schema.job import JobSpec
    from gpurun.agent.schema.requests import ResumeRequest
    from gpurun.config.load import Loaded
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import RunEntry

# To read a checkpoint of many gigabytes, whose hash must fit, takes its time.
CHOOSING = 600.0  # seconds


@dataclass(frozen=True)
class Asked:
    """What the person said, as typed; None where nothing was said."""

    checkpoint: str | None = None  # best, last or a path
    gpus: str | None = None
    env: Sequence[str] | None = None  # K=V, or K for the shell's value
    env_file: str | None = None


def job_of(entry: RunEntry) -> JobSpec:
    """The run's job.json; asked of its host when this laptop did not submit it. Raises GpurunError when that has none."""
    if entry.job is not None:
        return entry.job
    told = runs.status(entry)["job"]
    if told is None:
        what = f"the host no longer has the job.json of {entry.id}, and this laptop did not submit it"
        raise GpurunError(what, "submit the job again", where=entry.host)
    return told


def resume(wire: Wire, job: JobSpec, asked: Asked, *, follow: bool) -> Started:
    """Begin the run's next attempt on the host that has it. Raises UsageError, and what the host refuses."""
    loaded = load(job, asked, wire.host)
    env = environment(job, loaded, {line.partition("=")[0] for line in asked.env or ()})
    started = ask(wire, question(job, asked, loaded, env), follow=follow)
    run_store.update([started.record], wire.host)
    return started


def question(job: JobSpec, asked: Asked, loaded: Loaded, env: Mapping[str, Secret]) -> ResumeRequest:
    """The request of `resume`. To send it twice begins one attempt."""
    return {
        "run": job["id"],
        "ask": secrets.token_hex(8),
        "from": asked.checkpoint,
        "gpus": None if asked.gpus is None else loaded.spec.gpus,
        "env": {name: value.reveal() for name, value in env.items()},
    }


def ask(wire: Wire, request: ResumeRequest, *, follow: bool) -> Started:
    """Send a `question`; with `follow` its log comes on the same channel."""
    if not follow:
        record = wire.ask("resume", {**request, "stream": False}, timeout=CHOOSING)["run"]
        return Started(record, None, earlier=False, fetch=False)
    stream = wire.stream("resume", {**request, "follow": True}, timeout=CHOOSING)
    return Started(stream.answer["run"], stream, earlier=False, fetch=False)


def load(job: JobSpec, asked: Asked, host: str) -> Loaded:
    """The configuration that the run was submitted with, as it is now, for the values of its variables."""
    from gpurun.config import load as config

    root, file = Path(job["project"]["root"]), job.get("job_file")
    target = file if file and Path(file).is_file() else None
    flags = {"gpus": asked.gpus, "env": list(asked.env or ()) or None, "env_file": asked.env_file, "host": host}
    # From elsewhere, the project's files are not here: the shell's variables and those said now have to do.
    here = root if root.is_dir() else Path(root.anchor)
    return config.load(flags, target, here, need_script=False)


def environment(job: JobSpec, loaded: Loaded, said: set[str]) -> dict[str, Secret]:
    """The values of the job's variables, which its host wiped at its end. Raises UsageError that names what is missing."""
    wanted = [*dict.fromkeys([*job.get("env", ()), *sorted(said)])]
    found = {name: loaded.env[name] for name in wanted if name in loaded.env}
    found |= {name: Secret(os.environ[name]) for name in wanted if name not in found and name in os.environ}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UsageError(
            f"{job['id']} was started with {', '.join(missing)}; such values are wiped at a run's end, and none is known here",
            f"say it again: gpurun resume {job['id']} " + " ".join(f"-e {name}=..." for name in missing),
        )
    return found

"""Starting a job on a host: plan, then act. `--dry-run` shows the plan that a submit carries out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpurun import locked
from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words
from gpurun.agent.paths import RunPaths
from gpurun.errors import NO_ANSWER, ContactLost, HostError, HostUnreachable
from gpurun.events import Doing, Event, Moved, Report
from gpurun.store import pending_submits, run_store
from gpurun.sync import upload

if TYPE_CHECKING:
    from gpurun.agent.schema.answers import PrepareAnswer, RunAnswer
    from gpurun.agent.schema.job import JobSpec
    from gpurun.agent.schema.job import Service as ServiceOfJob
    from gpurun.agent.schema.requests import StartRequest
    from gpurun.agent.schema.run import RunRecord
    from gpurun.config.load import Loaded
    from gpurun.job.files import FileList
    from gpurun.remote.wire import Stream, Wire
    from gpurun.store.pending_submits import PendingSubmit
    from gpurun.sync.rsync import Progress

SYNC_AGAIN = 3  # times, when files change while they are sent
DRAWS = 5  # of an id; the host may have a run of another laptop's under the one that was drawn
# Codes of a HostError that leaves open how far the agent had come.
OPEN = (NO_ANSWER, error_codes.INTERNAL)


@dataclass(frozen=True)
class Plan:
    """What a submit sends and runs."""

    loaded: Loaded
    files: FileList
    job: JobSpec  # job.json, less what the host adds
    notes: tuple[str, ...]  # for the person
    needs_agent: bool  # a dependency comes over git+ssh: the host needs the user's SSH agent


@dataclass(frozen=True)
class Prepared(Event):
    """The host has made room for the run: its answer to `prepare`."""

    answer: PrepareAnswer


@dataclass(frozen=True)
class Started:
    """A run that its host has taken over."""

    record: RunRecord
    stream: Stream[RunAnswer, RunRecord] | None  # its log, when that was asked for
    earlier: bool  # it had been started already, by the submit that this one repeats
    fetch: bool  # the job wants to be fetched when it has ended


@dataclass(frozen=True)
class Begun(Event):
    """The host has taken over. Until this event was handled, repeating a killed submit resumes it."""

    started: Started


def make_plan(
    loaded: Loaded, *, run_id: str | None = None, now: float | None = None, service: ServiceOfJob | None = None
) -> Plan:
    """List the project's files and write the job. Reads the project alone. `service`: one that has the project's code."""
    from gpurun.config.project import git_facts
    from gpurun.job.dependencies import find_dependencies
    from gpurun.job.spec import make_job, module_note
    from gpurun.notebook import of_job

    notebook = None if service else of_job.read(loaded)
    files = list_code(loaded)
    git = git_facts(loaded.project.root, files.has)
    found = find_dependencies(files, loaded.spec.dependencies, own_image=_own_image(loaded))
    now = time.time() if now is None else now
    told, notes = None, [*loaded.notes, *files.notes, found.note, module_note(loaded.spec.module, files)]
    if notebook is not None:
        found = of_job.with_requirements(found, loaded, notebook)
        told = of_job.of_job(loaded, notebook)
        notes += of_job.notes(loaded, notebook)
    job = make_job(
        loaded, files, now=now, dependencies=found.job, git=git, run_id=run_id, service=service, notebook=told
    )
    return Plan(loaded, files, job, tuple(filter(None, notes)), found.needs_agent)


def submit(wire: Wire, plan: Plan, report: Report, *, follow: bool) -> Started:
    """Start a job and return once its supervisor stands on the host. Repeating a submit that broke off resumes its run.

    Raises what the host refuses, HostUnreachable, RsyncError.
    """
    claim, prepared = _prepare(wire, plan, report)
    try:
        report(Prepared(prepared))
        if prepared["run"]["state"] in (words.CREATED, words.SYNCING):
            started = _sync_and_start(wire, plan, prepared, report, claim.job, follow=follow)
        else:
            started = Started(prepared["run"], None, earlier=True, fetch=plan.loaded.spec.fetch)
        run_store.update([started.record], wire.host)
        report(Begun(started))
    except BaseException as error:
        _give_up(claim, error, on_host=True)
        raise
    claim.settle()
    return started


def _prepare(wire: Wire, plan: Plan, report: Report) -> tuple[PendingSubmit, PrepareAnswer]:
    """Return the claim to a run, and the host's answer to `prepare`: the host has the run from then on.

    Draws another id where the host has another run under that one, and begins anew where what was taken over is past.
    """
    refused: list[str] = []  # ids
    while True:
        claim = _claim(wire, plan, refused)
        report(Doing(f"asking {wire.host}"))
        try:
            prepared = wire.ask("prepare", {"job": claim.job, "total_bytes": plan.files.bytes}, timeout=60)
        except BaseException as error:
            _give_up(claim, error, on_host=claim.taken_over)
            if not (isinstance(error, HostError) and error.code == error_codes.ID_TAKEN) or len(refused) == DRAWS:
                raise
            refused.append(claim.job["id"])
            continue
        run_store.update([prepared["run"]], wire.host)
        if not _is_past(claim, prepared["run"]):
            return claim, prepared
        claim.settle()


def _claim(wire: Wire, plan: Plan, refused: Sequence[str]) -> PendingSubmit:
    """Take an id for the run. From here on this laptop lists it, whatever becomes of this process."""
    files = plan.files.manifest()
    with locked.state():
        claim = pending_submits.take(
            {**plan.job},
            files,
            wire.host,
            plan.loaded.env,
            is_taken=lambda run_id: run_id in refused or run_store.is_taken(run_id),
        )
        run_store.add(claim.job, wire.host, files)
    return claim


def _is_past(claim: PendingSubmit, record: RunRecord) -> bool:
    """Return whether the run was given up meanwhile, or is a service of an earlier process that has ended.

    A check or a session that has ended tells nothing of now.
    """
    old_service = claim.taken_over and claim.job["service"] is not None
    return words.is_over(record) and (record["started"] is None or old_service)


def _give_up(claim: PendingSubmit, error: BaseException, *, on_host: bool) -> None:
    """Keep the claim for whoever repeats the submit, unless the host surely has no such run, or never will start it.

    A refusal is no proof that nothing has begun: only the host's own word about this id is.
    """
    never_got_in = isinstance(error, HostUnreachable) and not isinstance(error, ContactLost)
    if not on_host and (isinstance(error, HostError) or never_got_in):
        run_store.remove(claim.job["id"])  # without a `start` nothing of it runs
        if never_got_in or (isinstance(error, HostError) and error.code in OPEN):
            claim.release()  # the host may have heard the question all the same: the same submit takes that run
        else:
            claim.settle()
    elif isinstance(error, HostError) and error.code in (error_codes.ID_TAKEN, error_codes.ELSEWHERE):
        claim.settle()
    else:
        claim.release()


def _sync_and_start(
    wire: Wire, plan: Plan, prepared: PrepareAnswer, report: Report, job: JobSpec, *, follow: bool
) -> Started:
    """Sync, then start; once more when files changed on the way."""
    files, link_dest = plan.files, list(prepared["link_dest"])
    if plan.needs_agent:
        wire = replace(wire, connection=wire.connection.with_agent())
    for attempt in range(1, SYNC_AGAIN + 1):
        report(Doing(f"sending to {wire.host}"))
        _sync(wire, plan.loaded, files, prepared["snapshot"], link_dest, report)
        report(Doing(f"starting {job['id']}"))
        try:
            return _start(wire, plan, files, job, follow=follow)
        except HostError as error:
            if error.code in OPEN:
                again = f"submit again: that goes on with {job['id']}, whether it has begun or not"
                error.next_step = f"{again}\n{error.next_step}"
            if error.code != error_codes.SNAPSHOT_DIFFERS or attempt == SYNC_AGAIN:
                raise
        files = list_code(plan.loaded)
        run_store.note_manifest(job["id"], files.manifest())
        link_dest = [*prepared["link_dest"], RunPaths.of_snapshot(prepared["snapshot"]).snapshot_before]
    raise AssertionError("unreachable")


def _sync(wire: Wire, loaded: Loaded, files: FileList, snapshot: str, link_dest: Sequence[str], report: Report) -> None:
    def sent(at: Progress) -> None:
        report(Moved(at.bytes, fraction=max(at.fraction, at.bytes / max(files.bytes, 1)), rate=at.rate))

    for part in _parts(loaded, files):
        upload.push(wire.connection, part, snapshot, link_dest, progress=sent)


def _start(wire: Wire, plan: Plan, files: FileList, job: JobSpec, *, follow: bool) -> Started:
    # While dependencies come over git+ssh, the SSH agent reaches the host through this very connection.
    follow = follow or plan.needs_agent
    request: StartRequest = {
        "run": job["id"],
        "token": job["token"],
        "manifest": files.manifest(),
        "env": {name: secret.reveal() for name, secret in plan.loaded.env.items()},
        "agent_socket": plan.needs_agent,
        "follow": follow,
    }
    if not follow:
        record = wire.ask("start", {**request, "stream": False}, timeout=60)["run"]
        return Started(record, None, earlier=False, fetch=plan.loaded.spec.fetch)
    stream = wire.stream("start", request, timeout=60)
    return Started(stream.answer["run"], stream, earlier=False, fetch=plan.loaded.spec.fetch)


def _own_image(loaded: Loaded) -> bool:
    """Return whether the job brings an image that is not gpurun's."""
    from gpurun.job import images

    spec = loaded.spec
    return spec.dockerfile is not None or images.wanted(spec.image, loaded.host)["image"] is not None


def list_code(loaded: Loaded) -> FileList:
    """What of the project travels."""
    from gpurun.job.files import list_files

    files = list_files(loaded.project, exclude=loaded.spec.exclude, env_files=loaded.env_files)
    if loaded.session is None:
        return files
    from gpurun.commands import notebook_session

    return notebook_session.laid_over(files, loaded.session)


def _parts(loaded: Loaded, files: FileList) -> list[FileList]:
    """What one rsync can send, each from a folder of its own; none when nothing is to be sent."""
    if loaded.session is None:
        return [files] if files.count else []
    from gpurun.commands import notebook_session

    return notebook_session.parts(files, loaded.session)

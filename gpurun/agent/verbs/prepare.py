"""`prepare`: make the directory of a run, before its project is sent."""

from __future__ import annotations

import os
import secrets
import shutil
from typing import TYPE_CHECKING, List, Tuple

from .. import error_codes, runtimes
from .. import vocabulary as words
from ..errors import AgentError
from ..files import sync_folder, write_json
from ..host import facts
from ..images import preflight
from ..lifecycle import reconcile, records
from ..paths import HostPaths, RunPaths
from ..sizes import size
from ..state import jobs, journal, origin, snapshots

if TYPE_CHECKING:
    from ..schema.answers import PrepareAnswer
    from ..schema.host import HostFacts
    from ..schema.job import GpuRequest, HostOfJob, Job, JobSpec
    from ..schema.requests import PrepareRequest

MARGIN = 1 << 30  # bytes that stay free on the host's disk


def answer(request: PrepareRequest, host: HostPaths) -> PrepareAnswer:
    """Make the run's directory. Its rename is the idempotency key, so that the same submit sent twice makes one run."""
    job = request["job"]
    reconcile.reconcile_runs(host)
    host_facts = facts.host_facts(host, request.get("engine"))
    run = host.run(job["id"])
    if not os.path.isdir(run.root):
        check_gpus(job["resources"]["gpus"], host_facts)
        _check_disk(request["total_bytes"], host_facts)
        check_data(job)
    runtime, notes = _choose_runtime(job, host_facts)
    if runtime == "docker" and not os.path.isdir(run.root):
        preflight.check(job.get("base"), host_facts, gpus=job["resources"]["gpus"] != 0)
    of_host: HostOfJob = {
        "id": host_facts["host_id"],
        **origin.identity(host),
        "runtime": runtime,
        "engine": host_facts["engine"]["argv"] if host_facts["engine"] and runtime == "docker" else None,
        "facts": {"engine": host_facts["engine"], "memory": host_facts["memory"]},
    }
    created = _make(host, run, {**job, "host": of_host}, notes)
    return {
        "created": created,
        "run": records.record_of(run),
        "snapshot": run.snapshot,
        "link_dest": snapshots.newest(host, job["project"]["name"], run),
        "facts": host_facts,
    }


def _make(host: HostPaths, run: RunPaths, job: Job, notes: List[str]) -> bool:
    """Return True when this call made the run, False when an earlier call of the same submit did."""
    os.makedirs(host.runs, mode=0o700, exist_ok=True)
    half = host.half_run(secrets.token_hex(8))
    for folder in (half.root, half.snapshot, half.ro, half.out):
        os.mkdir(folder)
    write_json(half.job, job)
    journal.keep_reserve(half)
    journal.record(half, words.CREATED)
    for note in notes:
        journal.record(half, "note", message=note)
    journal.record(half, words.SYNCING)
    _reuse_failed_upload(run, half, job)
    try:
        os.rename(half.root, run.root)
    except OSError:  # a directory of that name that is not empty
        shutil.rmtree(half.root)
        if jobs.read_or_empty(run).get("token") != job["token"]:
            raise AgentError(
                error_codes.ID_TAKEN, "another run on this host has the id " + run.id, "submit again"
            ) from None
        return False
    sync_folder(host.runs)
    snapshots.note_partial(host, job["project"]["name"], run)
    return True


def _reuse_failed_upload(run: RunPaths, half: RunPaths, job: Job) -> None:
    """Reuse the files of a run whose upload failed for good and is sent again: the run begins again, with what had
    arrived.
    """
    state = journal.fold(run)
    if state.live or state.reason != "sync" or jobs.read_or_empty(run).get("token") != job["token"]:
        return
    if os.path.isdir(run.snapshot):
        os.rmdir(half.snapshot)
        os.rename(run.snapshot, half.snapshot)
    shutil.rmtree(run.root)


def check_gpus(requested: GpuRequest, host_facts: HostFacts) -> None:
    """Raise AgentError when the host can never give the requested GPUs."""
    available, error = host_facts["gpus"], host_facts["gpus_error"]
    if requested != 0 and error:
        raise AgentError(error["code"], error["what"], error["next"] + ", or --gpus 0 to run on the CPU")
    if requested != 0 and not available:
        raise AgentError(
            error_codes.TOO_MANY_GPUS,
            "the job requests %s GPU(s), but this host has none (nvidia-smi lists none)" % requested,
            "--gpus 0 runs it on the CPU",
            exit_code=words.EXIT_USAGE,
        )
    if requested != "all" and int(requested) > len(available):
        names = ", ".join("%d: %s" % (gpu["index"], gpu["name"]) for gpu in available)
        raise AgentError(
            error_codes.TOO_MANY_GPUS,
            "the job requests %s GPUs, but this host has %d (%s)" % (requested, len(available), names),
            "--gpus %d, or --gpus all" % len(available),
            exit_code=words.EXIT_USAGE,
        )


def check_data(job: JobSpec) -> None:
    """Raise AgentError when data that the job names is not where the laptop expects it."""
    for mount in job["mounts"]:
        name = mount.get("name")
        if name and not os.path.exists(os.path.expanduser(mount["source"])):
            what = "the host has no data called %s: %s does not exist there" % (name, mount["source"])
            raise AgentError(error_codes.NO_DATA, what, "gpurun push DIR HOST:%s" % name, exit_code=words.EXIT_USAGE)


def _check_disk(total: int, host_facts: HostFacts) -> None:
    # Unchanged files cost nothing in the snapshot, but everything is copied into the workspace.
    free = host_facts["disk"]["free"]
    if total + MARGIN > free:
        raise AgentError(
            error_codes.DISK_FULL,
            "the host's disk has %s free, but the run needs %s: %s for the project, and %s that stay free"
            % (size(free), size(total + MARGIN), size(total), size(MARGIN)),
            "gpurun prune --fetched, or name a roomier root for the host",
            where=host_facts["root"],
        )


def _choose_runtime(job: JobSpec, host_facts: HostFacts) -> Tuple[str, List[str]]:
    """Return the requested runtime, or the one that follows from the host's facts, and what it cannot enforce."""
    requested, error = job["runtime"], host_facts["engine_error"]
    if requested == "docker" or requested is None:
        if host_facts["engine"]:
            return _with_notes("docker", job, host_facts)
        if requested == "docker" or error:
            what = error["what"] if error else "the host has no Docker engine"
            next_step = error["next"] if error else "--runtime bare"
            raise AgentError(error_codes.NO_RUNTIME, what, next_step + ", or --runtime bare to run without a container")
    base = job.get("base")
    image = job["image"] or job.get("dockerfile") or (base["name"] if base and base.get("asked") else None)
    if image:
        raise AgentError(
            error_codes.NO_RUNTIME,
            "this host has no Docker engine, so the job cannot run in the image %s" % image,
            "omit the image to run in the host's own Python",
            exit_code=words.EXIT_USAGE,
        )
    return _with_notes("bare", job, host_facts)


def _with_notes(name: str, job: JobSpec, host_facts: HostFacts) -> Tuple[str, List[str]]:
    engine = host_facts["engine"]["argv"] if host_facts["engine"] else None
    return name, runtimes.load(name, engine).notes(job)

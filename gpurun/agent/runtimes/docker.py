"""Run jobs on hosts with a Docker engine."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Set, Tuple

from .. import error_codes, machine, programs
from .. import vocabulary as words
from ..errors import AgentError, ImageGone, JobLost, RunFailed
from ..files import read_json, write_atomically, write_json
from ..host import engine_events, facts
from ..host.engine import Engine, EngineError, Kind
from ..host.gpus import Gpu
from ..host.identity import identity, login
from ..images import docker_layers, image, inventory
from ..paths import RunPaths
from ..setup import notebooks, plugin_files, secret_files, services, wrapper
from ..setup.mounts import bind
from ..state import journal
from . import Presence, Say, keeper
from .container import (
    Container,
    create,
    device_files,
    fresh_shell,
    gpu_options,
    name_of,
    places_of,
    relay,
    shell_beside,
)
from .engine_watch import MADE_UP, EngineWatch

if TYPE_CHECKING:
    from ..schema.host import CachedFacts, EngineFacts, Inspected
    from ..schema.job import AttemptJob, JobSpec
    from ..schema.run import Inventory, Prepared

PATIENCE = 20.0  # seconds for which a step waits for an engine that does not answer; after that the supervisor waits, and reports it
SHORT_PATIENCE = 10.0
ABOUT_IN = 180.0  # seconds for the inventory of an image, on a disk that is busy


def parse_state(state: Inspected) -> Presence:
    """Convert `.State` of `docker inspect` into a presence."""
    status = state["Status"]
    times = (unix_time(state.get("StartedAt", "")), unix_time(state.get("FinishedAt", "")))
    # "restarting": the container got another restart policy from outside, and waits for its next start.
    if status in ("exited", "dead", "restarting"):
        code = state["ExitCode"]
        # The engine also sets this when only a child of the job was killed for its memory.
        return Presence("exited", code, bool(state.get("OOMKilled")) and code == 137, *times)
    if status == "created":
        return Presence("created")
    if status == "removing":  # soon absent; unknown until then
        return Presence("no_answer")
    return Presence("running", started_at=times[0])


def unix_time(text: str) -> Optional[float]:
    """Convert `2026-01-31T12:00:00.123456789Z` to unix seconds; None for the year 1, which the engine writes for never."""
    parts = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if parts is None or text.startswith("0001-"):
        return None
    zone = "+00:00" if parts.group(3) == "Z" else parts.group(3)
    seconds = datetime.datetime.fromisoformat(parts.group(1) + zone).timestamp()
    return seconds + float(parts.group(2) or 0)


class Docker:
    name = "docker"

    def __init__(self, argv: Sequence[str]):
        self.engine = Engine(argv)
        self._facts: Optional[EngineFacts] = None
        self._watch = EngineWatch()
        self._watched_jobs: Set[Tuple[str, int]] = set()  # jobs that this process started, or saw running
        self._waiter: Optional[subprocess.Popen[bytes]] = None  # a client under sudo, which this process cannot kill
        self._ids: Dict[Tuple[str, int], str] = {}  # (run, attempt) -> the id of its container, once it was inspected

    def prepare(self, run: RunPaths, job: AttemptJob, say: Say) -> Prepared:
        for left in (1, 0):
            try:
                base = self._image(run, job, say)
                layer = docker_layers.ensure(self.engine, lambda: self._engine_facts(run), run, job, base, say)
                break
            except EngineError as error:
                pruned = (
                    error.kind == Kind.IMAGE_ABSENT
                )  # between two of these steps: what a registry refuses is RunFailed
                if error.is_away:
                    raise
                if not (pruned and left):
                    raise failed(error, "image") from error
        prepared: Prepared = {
            "image": base.reference,
            "digest": base.digest,
            "base": base.base,
            "content": base.content,
            "base_id": base.id,
            "image_id": layer.id if layer else base.id,
            "environment": layer.tag if layer else None,
        }
        write_json(run.prepared, prepared)
        return prepared

    def _image(self, run: RunPaths, job: AttemptJob, say: Say) -> image.Image:
        """Return the image of the earlier attempts, even when its name has another meaning now; for a first attempt,
        provide it.
        """
        earlier: Optional[Prepared] = read_json(run.prepared) if job["attempt"] > 1 else None
        existing = image.find_image(self.engine, earlier["base_id"]) if earlier and earlier.get("base_id") else None
        if earlier and existing is not None:
            origin = (earlier.get("base"), earlier.get("content"))
            return image.Image(str(earlier["image"]), str(earlier["digest"]), existing.id, *origin)
        wanted = image.wanted_by(job)
        if wanted.image:
            wanted = wanted._replace(image=image.pinned(wanted.image, earlier))
        return image.ensure(self.engine, wanted, run.snapshot, say, step=lambda doing: journal.record_step(run, doing))

    def create_and_start(
        self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], leases: List[int]
    ) -> None:
        try:
            if wrapper.was_started(run, job) and self._container_of_attempt(job, PATIENCE) is None:
                raise JobLost("removed", "the job was started before, and its container was removed")
            container = self._container(run, job, _image_id(prepared), gpus)
            with wrapper.disk_errors_as_failure():
                _lay_out(container)
            try:
                self._bring_up(container)
            except EngineError as error:
                if error.kind != Kind.RLIMIT:
                    raise
                # An engine that may not raise limits, because it runs in a container: use the engine's own limits.
                write_json(run.host.engine_limits, {"boot_id": machine.boot_id(), "engine": self.engine.argv})
                self._replace_container(self._container(run, job, _image_id(prepared), gpus))
        except EngineError as error:
            if error.is_away:
                self._note_engine_down(run, job)
                raise
            if wrapper.was_started(run, job):
                self._end_orphans(run, job)
                raise lost_at_start(error) from error
            raise failed(error, "start") from error
        except JobLost:
            self._end_orphans(run, job)
            raise

    def _end_orphans(self, run: RunPaths, job: AttemptJob) -> None:
        """End the processes of a job that a killed engine has started and has no record of: the engine cannot reach them.

        The processes of a job that runs as root are out of reach here too.
        """
        deadline = time.monotonic() + SHORT_PATIENCE
        while time.monotonic() < deadline:
            mark = machine.root_mark(run.host)
            left = self._processes(run, job) & keeper.carriers(mark, mark, keeper.ROOT_MARK)
            if not left:
                return
            for pid in left:
                keeper.kill(pid)
            time.sleep(0.05)

    def _bring_up(self, container: Container) -> None:
        try:
            self._create_and_start(container)
        except EngineError as error:
            # `docker container prune` removes containers that were not started yet, and an engine that was killed
            # during a start cannot start that container again. The wrapper has not run, so make another container.
            if error.kind not in (Kind.ABSENT, Kind.HALF_STARTED) or wrapper.was_started(container.run, container.job):
                raise
            self._replace_container(container)

    def _replace_container(self, container: Container) -> None:
        """Start the job in another container, unless the one that could not be started runs after all."""
        try:
            self.remove(container.run, container.job, unstarted=True)
        except EngineError as error:
            if error.kind == Kind.RUNNING:
                return
            raise
        self._create_and_start(container)

    def _create_and_start(self, container: Container) -> None:
        made: Optional[str] = None
        try:
            made = self.engine.ask(*create(container), timeout=300.0, patience=PATIENCE).text.strip()
        except EngineError as error:
            if error.kind != Kind.NAME_TAKEN:
                raise
            # An earlier supervisor made the container and was killed before it could record that. Starting an exited
            # container would run the job a second time: `_start` checks first.
        self._start(container, made)

    def _start(self, container: Container, made: Optional[str]) -> None:
        """Start the container `made`, or the existing one if it was never started.

        A start whose answer was lost may have succeeded: it is repeated only while the job has not begun. Raises JobLost
        when the job has begun, and the engine that was killed meanwhile has no record of that.
        """
        deadline = time.monotonic() + PATIENCE
        broke_off: Optional[EngineError] = None
        while True:
            if made is None:
                record = self._find_own(container)
                if record["State"]["Status"] != "created":
                    return
                if broke_off and wrapper.was_started(container.run, container.job):
                    raise lost_at_start(broke_off)
                made = str(record["Id"])
            self._ids[_key(container.job)] = made
            try:
                self.engine.ask("start", made, timeout=300.0)
                self._watched_jobs.add(_key(container.job))
                self._watch = EngineWatch()
                return
            except EngineError as error:
                if not error.is_away or time.monotonic() > deadline:
                    raise
                made, broke_off = None, error
                self._note_engine_down(container.run, container.job)
                time.sleep(1.0)

    def _find_own(self, container: Container) -> Inspected:
        """Return the engine's record of the container of this attempt.

        Raises RunFailed when it is missing, or not gpurun's.
        """
        record = self._container_of_attempt(container.job, PATIENCE)
        if record is not None:
            return record
        if self.engine.inspect("container", name_of(container.run), patience=PATIENCE) is None:
            what = "the job's container was removed during its start"
            raise (JobLost if wrapper.was_started(container.run, container.job) else RunFailed)("removed", what)
        raise RunFailed(
            "start",
            "the host has a container %s that this run did not make" % name_of(container.run),
            "remove it there: docker rm " + name_of(container.run),
        )

    def _containers(self, job: AttemptJob, patience: float = 0.0) -> List[Optional[Inspected]]:
        """Return the engine's record of each container of this run; None for one that has just been removed.

        Raises EngineError.

        Containers are found by label, because every user of the engine can change a name; and by `ps`, because
        `inspect` fails in the same way for a missing container and for an engine that is down.
        """
        label = "label=%s=%s" % (words.LABEL_RUN, job["id"])
        question = ("ps", "--all", "--no-trunc", "--filter", label, "--format", "{{.ID}}")
        records = [
            self.engine.inspect("container", container_id, patience=patience)
            for container_id in self.engine.ask(*question, patience=patience).text.split()
        ]
        return [record for record in records if record is None or is_ours(record, job)]

    def _container_of_attempt(self, job: AttemptJob, patience: float = 0.0) -> Optional[Inspected]:
        """Return the engine's record of the container of exactly this attempt. Raises EngineError."""
        records = [record for record in self._containers(job, patience) if record is not None]
        own = next((record for record in records if attempt_of(record) == job["attempt"]), None)
        if own is not None:
            self._ids[_key(job)] = str(own["Id"])
        return own

    def _id(self, job: AttemptJob, patience: float = 0.0) -> Optional[str]:
        """Return the id of the container of this attempt, or None. Raises EngineError."""
        if _key(job) not in self._ids:
            self._container_of_attempt(job, patience)
        return self._ids.get(_key(job))

    def _container(self, run: RunPaths, job: AttemptJob, image_id: str, gpus: Sequence[Gpu]) -> Container:
        who = identity(login(), self._engine_facts(run), job["user"])
        if read_json(run.host.engine_limits) == {"boot_id": machine.boot_id(), "engine": self.engine.argv}:
            who = replace(who, may_raise_limits=False)
        return Container(image_id, who, facts.memory(), run, job, gpus, device_files(gpus))

    def _engine_facts(self, run: RunPaths) -> EngineFacts:
        """Return facts cached by this process or by an earlier one: the question takes longer than a container's start."""
        if self._facts is None:
            host_facts: Optional[CachedFacts] = read_json(run.host.facts)
            cached = host_facts.get("engine") if host_facts and host_facts.get("boot_id") == machine.boot_id() else None
            fresh = cached is not None and cached.get("argv") == self.engine.argv
            self._facts = cached if cached is not None and fresh else self.engine.facts(patience=PATIENCE)
        return self._facts

    def about(self, run: RunPaths, job: AttemptJob, prepared: Prepared) -> Optional[Inventory]:
        return inspect_image(self.engine, _image_id(prepared))

    def presence(self, run: RunPaths, job: AttemptJob) -> Presence:
        try:
            records = self._containers(job)
            # A container of another attempt counts as absent for this one, and is not touched.
            own = [record for record in records if record is not None and attempt_of(record) == job["attempt"]]
            if not own:  # a container that was removed in between may be this one: the next check decides
                # Or this engine is not the one that runs the job: DOCKER_HOST, a context, rootless beside the system's
                # engine.
                lives = None in records or self._processes(run, job)
                return Presence("no_answer" if lives else "absent")
            self._ids[_key(job)] = str(own[0]["Id"])
            presence = parse_state(own[0]["State"])
            if presence.kind == "running":  # the engine was back before the job ended
                self._watch.note_that_the_job_runs()
                self._watched_jobs.add(_key(job))
            if presence.kind == "exited" and job["user"] == "root":
                self._hand_over(run, job, own[0]["Image"])
            return presence
        except EngineError as error:
            if error.is_away:
                self._watch.note_silence()
                self._note_engine_down(run, job)
            return Presence("no_answer")
        except ValueError:
            return Presence("no_answer")

    def ended(self, run: RunPaths, job: AttemptJob, presence: Presence, started: Optional[float]) -> Presence:
        was_restarted = presence.exit_code == wrapper.STARTED_BEFORE and _is_later(presence.started_at, started)
        if presence.exit_code not in (0, MADE_UP) and not was_restarted:  # not a success, so the signal does not matter
            return presence
        try:
            container = self._id(job)
            now = time.time()
            since = min(moment for moment in (started, presence.started_at, now) if moment is not None) - 1.0
            events = self.engine.ask(*engine_events.ask(str(container), since, now)).text
        except EngineError as error:
            if error.is_away:
                self._note_engine_down(run, job)
                return Presence("no_answer")
            events = ""
        end = engine_events.end_of_the_job(engine_events.parse(events), wrapper.STARTED_BEFORE)
        watched = _key(job) in self._watched_jobs
        if end is not None and (end.exit_code != MADE_UP or end.from_start or self._watch.is_unbroken(watched)):
            oom = presence.oom and not was_restarted
            return replace(presence, exit_code=end.exit_code, oom=oom, finished_at=end.t, signalled=end.signalled)
        return self._watch.judge(presence, started_again=was_restarted, saw_the_job_run=watched)

    def _hand_over(self, run: RunPaths, job: AttemptJob, image_id: str) -> None:
        """Give the files that a job wrote as root to the user, who could otherwise neither fetch nor remove them."""
        who = login()
        if not identity(who, self._engine_facts(run), "root").hand_over:
            return
        # Not `home` itself: the job may have replaced it by a link, which the engine would follow.
        own = [run.workspace, run.out, run.host.data(job["project"]["name"])]
        places = [*own, run.host.home]
        bound = [word for place in (*own, run.host.job_cache) for word in ("--mount", bind(place, place))]
        confined = ["--network", "none", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE"]
        owner = "%d:%d" % (who.uid, who.gid)
        try:
            self.engine.ask(
                "run", "--rm", "--user", "0:0", *confined, *bound, "--entrypoint", "chown", image_id, "-Rh", owner, *places,
                timeout=600.0,
            )  # fmt: skip
        except EngineError:
            pass  # an image without `chown`, for example: the run's end must be recorded all the same

    def wait(self, run: RunPaths, job: AttemptJob, seconds: float) -> None:
        started = time.monotonic()
        try:
            container = self._id(job)
        except EngineError:  # sleep, so that the caller's loop does not spin
            time.sleep(min(1.0, seconds))
            return
        if container is None:
            return
        client = self._waiter or subprocess.Popen(
            self.engine.command("wait", container),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._waiter = None
        try:
            code = client.wait(seconds)
        except subprocess.TimeoutExpired:
            if self.engine.can_be_killed:
                programs.kill(client)
            else:  # the next wait uses this client; it ends with the job
                self._waiter = client
            return
        output = client.communicate()[0]
        if code == 0:
            self._watch.note_report(output, saw_the_job_run=_key(job) in self._watched_jobs)
        else:  # the engine went down: sleep, so that the caller's loop does not spin
            self._note_engine_down(run, job)
            time.sleep(max(0.0, min(1.0, seconds - (time.monotonic() - started))))

    def _note_engine_down(self, run: RunPaths, job: AttemptJob) -> None:
        root = job["user"] == "root"  # this user may not inspect root's processes
        self._watch.note_that_it_went(lambda: root or bool(self._processes(run, job)))

    def _processes(self, run: RunPaths, job: AttemptJob) -> Set[int]:
        return keeper.of_job(run.id, machine.root_mark(run.host), job["attempt"])

    def signal(self, run: RunPaths, job: AttemptJob, name: str) -> None:
        # The default is KILL. TERM reaches init, which passes it to its only child, the job's main process.
        which = ["--signal", "TERM"] if name == "TERM" else []
        try:
            container = self._id(job, SHORT_PATIENCE)
            if container is not None:
                self.engine.ask("kill", *which, container, patience=SHORT_PATIENCE)
        except EngineError as error:
            if error.kind not in (Kind.ABSENT, Kind.NOT_RUNNING):
                raise

    def find(self, run: RunPaths, job: AttemptJob, patience: float = 0.0) -> Optional[Inspected]:
        """Return the engine's record of the container of this attempt, or of the last attempt before it.

        Raises EngineError.
        """
        return max(self._containers_until_now(job, patience), key=attempt_of, default=None)

    def _containers_until_now(self, job: AttemptJob, patience: float) -> List[Inspected]:
        """Return the engine's records of the containers of this attempt and earlier ones. Raises EngineError."""
        records = [record for record in self._containers(job, patience) if record is not None]
        return [record for record in records if attempt_of(record) <= job["attempt"]]

    def remove(self, run: RunPaths, job: AttemptJob, *, unstarted: bool = False) -> None:
        self._ids.pop(_key(job), None)
        for record in self._containers_until_now(job, SHORT_PATIENCE):
            force = [] if record["State"]["Status"] == "created" else ["--force"]
            if unstarted and force and attempt_of(record) == job["attempt"]:
                raise EngineError(Kind.RUNNING, "", self.engine.argv[-1])
            try:
                self.engine.ask("rm", *force, "--volumes", record["Id"], timeout=120.0, patience=SHORT_PATIENCE)
            except EngineError as error:
                if error.kind != Kind.ABSENT:
                    raise

    def notes(self, job: JobSpec) -> List[str]:
        return []

    def relay(self, run: RunPaths, job: AttemptJob, socket: str, port: int) -> Optional[List[str]]:
        services.copy_programs(run)
        user: List[str] = []
        if job.get("user") == "root":  # the user, who is outside the container, could not open root's socket
            who = login()
            if identity(who, self._engine_facts(run), "root").hand_over:
                user = ["--user", "%d:%d" % (who.uid, who.gid)]
        return self.engine.command(*relay(self._id(job) or name_of(run), socket, port, user))

    def shell(self, run: RunPaths, job: AttemptJob, command: Sequence[str], tty: bool) -> List[str]:
        if self.presence(run, job).kind == "running":
            holder = services.holder(job, wrapper.IN_CONTAINER.ro, command)
            return self.engine.command(*shell_beside(self._ids[_key(job)], command, tty=tty, holder=holder))
        prepared: Optional[Prepared] = read_json(run.prepared)
        if prepared is None or not os.path.exists(run.wrapper):
            raise AgentError(
                error_codes.NOT_STARTED, "run %s has not been started yet" % run.id, "wait until it is running"
            )
        if self.engine.inspect("image", _image_id(prepared)) is None:
            raise AgentError(
                error_codes.IMAGE_GONE, "the image of run %s is gone from the host" % run.id, "submit it again"
            )
        container = self._container(run, job, _image_id(prepared), [])
        secret_files.make_folder(run)  # a mounted folder must exist
        return self.engine.command(*fresh_shell(container, command, tty=tty))

    def shells(self, run: RunPaths, job: AttemptJob) -> List[str]:
        wanted = {words.LABEL_SHELL: job["id"], words.LABEL_TOKEN: wrapper.token_label(job)}
        filters = [word for pair in wanted.items() for word in ("--filter", "label=%s=%s" % pair)]
        container_ids = self.engine.ask("ps", *filters, "--format", "{{.ID}}", patience=SHORT_PATIENCE).text.split()
        pids = (
            [] if container_ids else keeper.shells(run.id, machine.root_mark(run.host))
        )  # a shell of an earlier gpurun has no label
        return ["%s kill %s" % (" ".join(self.engine.argv), container_id) for container_id in container_ids] + [
            "kill -HUP %d" % pid for pid in pids
        ]


def inspect_image(engine: Engine, image_id: str) -> Optional[Inventory]:
    """Return the inventory of an image's Python, from a container of its own without network, mounts and capabilities."""
    confined = [
        "--network",
        "none",
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "65534:65534",
    ]
    command = ["run", "--rm", "--interactive", *confined, *gpu_options([], []), "--entrypoint", "/bin/sh", image_id]
    answer = programs.run(engine.command(*command, *inventory.command()), timeout=ABOUT_IN, stdin=inventory.program())
    return inventory.parse(answer)


def _lay_out(container: Container) -> None:
    """Write the files that are mounted: gpurun's folders, the wrapper, and the user database."""
    run, job, places = container.run, container.job, places_of(container.job)
    wrapper.make_folders(run, job["project"]["name"])
    last = {**wrapper.last_settings(places, job), keeper.ROOT_MARK: machine.root_mark(run.host)}
    wrapper.write(run, places, wrapper.settings(places, container.who.name, job), last)
    services.lay_out(run, job, places)
    notebooks.lay_out(run, job)
    plugin_files.lay_out(run, job)
    write_atomically(run.passwd, container.who.passwd())
    write_atomically(run.group, container.who.group())


def _image_id(prepared: Prepared) -> str:
    return str(prepared["image_id"])  # None is only where there is no engine


def _key(job: AttemptJob) -> Tuple[str, int]:
    return str(job["id"]), job["attempt"]


def is_ours(record: Inspected, job: AttemptJob) -> bool:
    """Return whether this run made the container: another user's run, or a foreign container, may have the same name."""
    labels = (record.get("Config") or {}).get("Labels") or {}
    return labels.get(words.LABEL_RUN) == job["id"] and labels.get(words.LABEL_TOKEN) == wrapper.token_label(job)


def attempt_of(record: Inspected) -> int:
    """Return the attempt for which one of gpurun's containers was made.

    An earlier one only waits to be removed. A later one was made by another account of the same engine, where the run
    continued.
    """
    labels = (record.get("Config") or {}).get("Labels") or {}
    return int(labels.get(words.LABEL_ATTEMPT, 1))


def _is_later(moment: Optional[float], other: Optional[float]) -> bool:
    return moment is None or other is None or moment > other


# The kinds of refusals that end a run for a reason of their own, whatever the step.
_REASONS = {Kind.NO_SPACE: "disk", Kind.IMAGE_ABSENT: "image", Kind.GPU: "start", Kind.DRIVER: "start"}


def lost_at_start(error: EngineError) -> JobLost:
    """Return the end of a run whose job had begun when the engine failed to start it."""
    if error.kind == Kind.ABSENT:
        return JobLost("removed", "the job's container was removed during its start")
    return JobLost(
        "engine", "the engine was killed during the job's start and lost the job; how the job ended is unknown"
    )


def failed(error: EngineError, reason: str) -> RunFailed:
    """Return the failure of a run whose engine refused a step; `ImageGone` when another try may succeed."""
    if error.kind == Kind.IMAGE_ABSENT and reason == "start":
        return ImageGone("image", error.what, error.next_step)
    return RunFailed(_REASONS.get(error.kind, reason), error.what, error.next_step)

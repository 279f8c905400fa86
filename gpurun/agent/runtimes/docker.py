"""The runtime for hosts with a Docker engine."""

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
from ..errors import AgentError, ImageGone, RunFailed
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

if TYPE_CHECKING:
    from ..schema.host import CachedFacts, EngineFacts, Inspected
    from ..schema.job import AttemptJob, JobSpec
    from ..schema.run import Inventory, Prepared

PATIENCE = 20.0  # seconds that an engine may be away within a step: behind them the supervisor waits, and says so
SHORT_PATIENCE = 10.0
LOST_TRACK = 255  # the exit code that an engine makes up for a container that went while it was away itself
ABOUT_IN = 180.0  # seconds for an image to tell what it has, on a disk that is busy


def parse_state(state: Inspected) -> Presence:
    """`.State` of `docker inspect` -> presence."""
    status = state["Status"]
    times = (unix_time(state.get("StartedAt", "")), unix_time(state.get("FinishedAt", "")))
    # "restarting": somebody has given it another restart policy, and it waits for its next start.
    if status in ("exited", "dead", "restarting"):
        code = state["ExitCode"]
        # The engine also says so when only a child of the job was killed for its memory.
        return Presence("exited", code, bool(state.get("OOMKilled")) and code == 137, *times)
    if status == "created":
        return Presence("created")
    if status == "removing":  # soon absent; nothing is known until then
        return Presence("no_answer")
    return Presence("running", started_at=times[0])


def unix_time(text: str) -> Optional[float]:
    """`2026-01-31T12:00:00.123456789Z` -> unix seconds; None for the year 1, which is the engine's never."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$", text)
    if found is None or text.startswith("0001-"):
        return None
    zone = "+00:00" if found.group(3) == "Z" else found.group(3)
    whole = datetime.datetime.fromisoformat(found.group(1) + zone).timestamp()
    return whole + float(found.group(2) or 0)


class Docker:
    name = "docker"

    def __init__(self, argv: Sequence[str]):
        self.engine = Engine(argv)
        self._facts: Optional[EngineFacts] = None
        self._told_of_the_end = False  # to whoever waited for it
        self._left_behind_it = False  # and then the engine did not answer any more
        self._broke_off: Optional[float] = None  # when the engine went away while the job was waited for, unix seconds
        self._lived_then = True  # the job did, as /proc shows
        self._seen: Set[Tuple[str, int]] = set()  # jobs that this process started, or saw running
        self._waiter: Optional[subprocess.Popen[bytes]] = None  # one under sudo, which cannot be killed
        self._ids: Dict[Tuple[str, int], str] = {}  # (run, attempt) -> the id of its container, as far as it was met

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
        """A later attempt has the image of the earlier ones, whatever its name means by now."""
        earlier: Optional[Prepared] = read_json(run.prepared) if job["attempt"] > 1 else None
        found = image.look(self.engine, earlier["base_id"]) if earlier and earlier.get("base_id") else None
        if earlier and found is not None:
            known = (earlier.get("base"), earlier.get("content"))
            return image.Image(str(earlier["image"]), str(earlier["digest"]), found.id, *known)
        wanted = image.wanted_by(job)
        if wanted.image:
            wanted = wanted._replace(image=image.pinned(wanted.image, earlier))
        return image.ensure(self.engine, wanted, run.snapshot, say, step=lambda doing: journal.record_step(run, doing))

    def create_and_start(
        self, run: RunPaths, job: AttemptJob, prepared: Prepared, gpus: List[Gpu], leases: List[int]
    ) -> None:
        try:
            if wrapper.was_started(run, job) and self._of_attempt(job, PATIENCE) is None:
                raise RunFailed("removed", "the job was started before, and its container was removed since")
            container = self._container(run, job, _image_id(prepared), gpus)
            with wrapper.telling_the_run():
                _lay_out(container)
            try:
                self._bring_up(container)
            except EngineError as error:
                if error.kind != Kind.RLIMIT:
                    raise
                # An engine without the right to raise limits, in a container itself: its own limits have to do.
                write_json(run.host.engine_limits, {"boot_id": machine.boot_id(), "engine": self.engine.argv})
                self._make_anew(self._container(run, job, _image_id(prepared), gpus))
        except EngineError as error:
            if error.is_away:
                self._broke_off = self._broke_off or time.time()
                raise
            raise failed(error, "start") from error

    def _bring_up(self, container: Container) -> None:
        try:
            self._create_and_start(container)
        except EngineError as error:
            # `docker container prune` takes away what was created and not started yet; and an engine that was killed in
            # the middle of a start cannot start that container any more. The wrapper has not run: another one is made.
            if error.kind not in (Kind.ABSENT, Kind.HALF_STARTED) or wrapper.was_started(container.run, container.job):
                raise
            self._make_anew(container)

    def _make_anew(self, container: Container) -> None:
        """Start the job in another container than the one that could not be started, unless that runs after all."""
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
            # An earlier supervisor made it, and did not live to see that. To start one that has exited would run the
            # job a second time: `_start` looks first.
        self._start(container, made)

    def _start(self, container: Container, made: Optional[str]) -> None:
        """Start the container that was `made` just now, or the one that is there if it was never started.

        A start whose answer was lost may have been done: it is asked again only while the job has not begun.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            if made is None:
                found = self._made(container)
                if found["State"]["Status"] != "created":
                    return
                made = str(found["Id"])
            self._ids[_key(container.job)] = made
            try:
                self.engine.ask("start", made, timeout=300.0)
                self._seen.add(_key(container.job))
                return
            except EngineError as error:
                if not error.is_away or time.monotonic() > deadline:
                    raise
                made = None
                time.sleep(1.0)

    def _made(self, container: Container) -> Inspected:
        """What the engine tells of the container of this attempt. Raises RunFailed where there is none, or a stranger's."""
        found = self._of_attempt(container.job, PATIENCE)
        if found is not None:
            return found
        if self.engine.inspect("container", name_of(container.run), patience=PATIENCE) is None:
            raise RunFailed("removed", "the job's container was removed while it was started")
        raise RunFailed(
            "start",
            "the host has a container %s that this run did not make" % name_of(container.run),
            "remove it there: docker rm " + name_of(container.run),
        )

    def _containers(self, job: AttemptJob, patience: float = 0.0) -> List[Optional[Inspected]]:
        """What the engine tells of each container of this run; None for one that went just now. Raises EngineError.

        By label: a name can be changed by everybody who may use the engine. And by `ps`: `inspect` fails in the same way
        for a container that is not there and for an engine that is down.
        """
        label = "label=%s=%s" % (words.LABEL_RUN, job["id"])
        asked = ("ps", "--all", "--no-trunc", "--filter", label, "--format", "{{.ID}}")
        found = [
            self.engine.inspect("container", one, patience=patience)
            for one in self.engine.ask(*asked, patience=patience).text.split()
        ]
        return [one for one in found if one is None or is_ours(one, job)]

    def _of_attempt(self, job: AttemptJob, patience: float = 0.0) -> Optional[Inspected]:
        """What the engine tells of the container of this very attempt. Raises EngineError."""
        there = [one for one in self._containers(job, patience) if one is not None]
        found = next((one for one in there if attempt_of(one) == job["attempt"]), None)
        if found is not None:
            self._ids[_key(job)] = str(found["Id"])
        return found

    def _id(self, job: AttemptJob, patience: float = 0.0) -> Optional[str]:
        """The id of the container of this attempt; None where there is none. Raises EngineError."""
        if _key(job) not in self._ids:
            self._of_attempt(job, patience)
        return self._ids.get(_key(job))

    def _container(self, run: RunPaths, job: AttemptJob, image_id: str, gpus: Sequence[Gpu]) -> Container:
        who = identity(login(), self._engine_facts(run), job["user"])
        if read_json(run.host.engine_limits) == {"boot_id": machine.boot_id(), "engine": self.engine.argv}:
            who = replace(who, may_raise_limits=False)
        return Container(image_id, who, facts.memory(), run, job, gpus, device_files(gpus))

    def _engine_facts(self, run: RunPaths) -> EngineFacts:
        """Asked once by this process, or by an earlier one: the question takes longer than a container's start."""
        if self._facts is None:
            known: Optional[CachedFacts] = read_json(run.host.facts)
            cached = known.get("engine") if known and known.get("boot_id") == machine.boot_id() else None
            fresh = cached is not None and cached.get("argv") == self.engine.argv
            self._facts = cached if cached is not None and fresh else self.engine.facts(patience=PATIENCE)
        return self._facts

    def about(self, run: RunPaths, job: AttemptJob, prepared: Prepared) -> Optional[Inventory]:
        return inspect_image(self.engine, _image_id(prepared))

    def presence(self, run: RunPaths, job: AttemptJob) -> Presence:
        try:
            there = self._containers(job)
            # One of another attempt is absent for this one, and nothing is done to it.
            own = [one for one in there if one is not None and attempt_of(one) == job["attempt"]]
            if not own:  # one that was removed in between may be this: the next question will tell
                # Or this engine is another than the one that runs it: DOCKER_HOST, a context, rootless beside the system's.
                lives = None in there or keeper.of_job(run.id, machine.root_mark(run.host), job["attempt"])
                return Presence("no_answer" if lives else "absent")
            self._ids[_key(job)] = str(own[0]["Id"])
            presence = parse_state(own[0]["State"])
            if presence.kind == "running":  # it was back before the job ended
                self._broke_off = None
                self._seen.add(_key(job))
            if presence.kind == "exited" and job["user"] == "root":
                self._hand_over(run, job, own[0]["Image"])
            return presence
        except EngineError as error:
            self._left_behind_it = self._left_behind_it or (self._told_of_the_end and error.is_away)
            return Presence("no_answer")
        except ValueError:
            return Presence("no_answer")

    def ended(self, run: RunPaths, job: AttemptJob, presence: Presence, started: Optional[float]) -> Presence:
        again = presence.exit_code == wrapper.STARTED_BEFORE and _is_later(presence.started_at, started)
        if presence.exit_code not in (0, LOST_TRACK) and not again:  # no success, whoever sent a signal
            return presence
        try:
            container = self._id(job)
            now = time.time()
            since = min(one for one in (started, presence.started_at, now) if one is not None) - 1.0
            told = self.engine.ask(*engine_events.ask(str(container), since, now)).text
        except EngineError as error:
            if error.is_away:
                return Presence("no_answer")
            told = ""
        end = engine_events.end_of_the_job(engine_events.parse(told), wrapper.STARTED_BEFORE)
        if end is not None:
            oom = presence.oom and not again
            return replace(presence, exit_code=end.exit_code, oom=oom, finished_at=end.t, signalled=end.signalled)
        if again:
            return replace(presence, exit_code=None, restarted=True)
        # One that is killed when it has seen the end and not yet written it down says 0, at the time when it is back. A job
        # that it has not seen the end of yet was still there when the engine went, or ended before that. And of one that is
        # not there any more when the engine is back, and whose end nobody told, it says 255.
        dated_behind = self._broke_off is not None and _is_later(presence.finished_at, self._broke_off)
        if dated_behind and (presence.exit_code == LOST_TRACK or not self._lived_then):
            return replace(presence, exit_code=None, made_up=True)
        # An engine that is shut down answers no more questions, ends its containers, tells whoever waits for them, and
        # forgets it. One that was killed tells nobody; what it ends when it is back, it remembers.
        if presence.exit_code == 0 and self._left_behind_it:
            return replace(presence, signalled=True)
        # An engine that was shut down meanwhile, or had much to tell, has forgotten whether it sent a signal.
        return replace(presence, unseen=presence.exit_code == 0 and _key(job) not in self._seen)

    def _hand_over(self, run: RunPaths, job: AttemptJob, image_id: str) -> None:
        """Give what a job wrote as root to the user, who could neither fetch nor remove it else."""
        who = login()
        if not identity(who, self._engine_facts(run), "root").hand_over:
            return
        # Not `home` itself: the job may have put a link in its place, which the engine would follow.
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
            pass  # an image without `chown`, say: no reason to keep the run's end from being told

    def wait(self, run: RunPaths, job: AttemptJob, seconds: float) -> None:
        started = time.monotonic()
        try:
            container = self._id(job)
        except EngineError:  # whoever asks again at once would spin
            time.sleep(min(1.0, seconds))
            return
        if container is None:
            return
        client = self._waiter or subprocess.Popen(
            self.engine.command("wait", container),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._waiter = None
        try:
            code = client.wait(seconds)
        except subprocess.TimeoutExpired:
            if self.engine.can_be_killed:
                programs.kill(client)
            else:  # the next wait goes on with it; it ends with the job
                self._waiter = client
            return
        self._told_of_the_end = code == 0
        if code != 0:  # the engine went away: whoever asks again at once would spin
            self._note_that_it_broke_off(run, job)
            time.sleep(max(0.0, min(1.0, seconds - (time.monotonic() - started))))

    def _note_that_it_broke_off(self, run: RunPaths, job: AttemptJob) -> None:
        if self._broke_off is None and job.get("user") != "root":  # root's processes are not ours to look at
            self._broke_off = time.time()
            self._lived_then = bool(keeper.of_job(run.id, machine.root_mark(run.host), job["attempt"]))

    def signal(self, run: RunPaths, job: AttemptJob, name: str) -> None:
        # Without a name it is KILL. TERM reaches init, which passes it to its only child, the job's main process.
        which = ["--signal", "TERM"] if name == "TERM" else []
        try:
            container = self._id(job, SHORT_PATIENCE)
            if container is not None:
                self.engine.ask("kill", *which, container, patience=SHORT_PATIENCE)
        except EngineError as error:
            if error.kind not in (Kind.ABSENT, Kind.NOT_RUNNING):
                raise

    def find(self, run: RunPaths, job: AttemptJob, patience: float = 0.0) -> Optional[Inspected]:
        """What the engine tells of the container of this attempt, or of the last one before it. Raises EngineError."""
        return max(self._until_this(job, patience), key=attempt_of, default=None)

    def _until_this(self, job: AttemptJob, patience: float) -> List[Inspected]:
        """What the engine tells of the containers of this attempt and earlier ones. Raises EngineError."""
        there = [one for one in self._containers(job, patience) if one is not None]
        return [one for one in there if attempt_of(one) <= job["attempt"]]

    def remove(self, run: RunPaths, job: AttemptJob, *, unstarted: bool = False) -> None:
        self._ids.pop(_key(job), None)
        for found in self._until_this(job, SHORT_PATIENCE):
            force = [] if found["State"]["Status"] == "created" else ["--force"]
            if unstarted and force and attempt_of(found) == job["attempt"]:
                raise EngineError(Kind.RUNNING, "", self.engine.argv[-1])
            try:
                self.engine.ask("rm", *force, "--volumes", found["Id"], timeout=120.0, patience=SHORT_PATIENCE)
            except EngineError as error:
                if error.kind != Kind.ABSENT:
                    raise

    def notes(self, job: JobSpec) -> List[str]:
        return []

    def relay(self, run: RunPaths, job: AttemptJob, socket: str, port: int) -> Optional[List[str]]:
        services.copy_programs(run)
        user: List[str] = []
        if job.get("user") == "root":  # whose socket would be closed to the user, who is outside
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
            raise AgentError(error_codes.NOT_STARTED, "run %s was not started yet" % run.id, "wait until it is running")
        if self.engine.inspect("image", _image_id(prepared)) is None:
            raise AgentError(
                error_codes.IMAGE_GONE, "the image of run %s is gone from the host" % run.id, "submit it again"
            )
        container = self._container(run, job, _image_id(prepared), [])
        secret_files.make_folder(run)  # what is mounted must be there
        return self.engine.command(*fresh_shell(container, command, tty=tty))

    def shells(self, run: RunPaths, job: AttemptJob) -> List[str]:
        wanted = {words.LABEL_SHELL: job["id"], words.LABEL_TOKEN: wrapper.token_label(job)}
        filters = [word for pair in wanted.items() for word in ("--filter", "label=%s=%s" % pair)]
        found = self.engine.ask("ps", *filters, "--format", "{{.ID}}", patience=SHORT_PATIENCE).text.split()
        pids = (
            [] if found else keeper.shells(run.id, machine.root_mark(run.host))
        )  # one of an earlier gpurun has no label
        return ["%s kill %s" % (" ".join(self.engine.argv), one) for one in found] + [
            "kill -HUP %d" % pid for pid in pids
        ]


def inspect_image(engine: Engine, image_id: str) -> Optional[Inventory]:
    """What an image's Python has, asked in a container of its own without network, mounts and rights."""
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
    """What is mounted: folders of ours, the wrapper, and who the job is."""
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


def is_ours(found: Inspected, job: AttemptJob) -> bool:
    """Whether this run made the container: another user's run, or a stranger's container, may have the same name."""
    labels = (found.get("Config") or {}).get("Labels") or {}
    return labels.get(words.LABEL_RUN) == job["id"] and labels.get(words.LABEL_TOKEN) == wrapper.token_label(job)


def attempt_of(found: Inspected) -> int:
    """The attempt that one of our containers was made for.

    An earlier one is only waiting to be removed. A later one is another account's of the same engine, where the run went on.
    """
    labels = (found.get("Config") or {}).get("Labels") or {}
    return int(labels.get(words.LABEL_ATTEMPT, 1))


def _is_later(one: Optional[float], other: Optional[float]) -> bool:
    return one is None or other is None or one > other


# The kinds of refusals that end a run for another reason than the step that met them.
_REASONS = {Kind.NO_SPACE: "disk", Kind.IMAGE_ABSENT: "image", Kind.GPU: "start", Kind.DRIVER: "start"}


def failed(error: EngineError, reason: str) -> RunFailed:
    """Return the end of a run whose engine refused a step; `ImageGone` where another try may mend it."""
    if error.kind == Kind.IMAGE_ABSENT and reason == "start":
        return ImageGone("image", error.what, error.next_step)
    return RunFailed(_REASONS.get(error.kind, reason), error.what, error.next_step)

"""What a job wrote in its container, but outside its workspace and mounts: copied to the run's `outside/`.

The supervisor does so once the job has ended, and removes the container when all of it is in `outside/` and on the disk;
a container that could not be copied whole is kept, and the next fetch tries again. `gathered.json` says up to which attempt
no container holds anything that is not in `outside/` too. Paths and contents come from the job and are trusted in nothing:
only regular files are taken, and each lands below `outside/`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, List, Optional

from .. import error_codes, programs
from .. import vocabulary as words
from ..errors import AgentError
from ..file_names import from_wire, to_wire
from ..files import read_json, sync_disk, write_json
from ..host import locks
from ..host.engine import Engine
from ..paths import RunPaths
from ..runtimes.docker import Docker, attempt_of
from ..state import completeness, jobs, journal, origin
from . import container_diff

if TYPE_CHECKING:
    from ..schema.files import Skipped
    from ..schema.host import Inspected
    from ..schema.job import AttemptJob


_LITTLE = 512 << 20  # bytes that are left free on a host's disk
_DIFF_SECONDS = 300.0  # some storage drivers compare the whole image file by file
_BLOCK = 1 << 20
_PATIENCE = 20.0  # seconds for another process that copies out of the same container


def may_hold_more(run: RunPaths, job: AttemptJob) -> bool:
    """Whether there is, or was, a container, of any attempt, whose files `collect` should look at. Asks nobody."""
    ran = _last_that_ran(run)
    return _engine(job) is not None and ran is not None and ran > _gathered(run)


def _last_that_ran(run: RunPaths) -> Optional[int]:
    """Return the number of the last attempt whose job was started on this host, or None."""
    number, ran = 1, None
    for event in journal.read(run):
        if event["event"] == "attempt":
            number = int(event["number"])
        elif event["event"] == words.RUNNING:
            ran = number
    return ran


def _gathered(run: RunPaths) -> int:
    return int((read_json(run.gathered) or {}).get("attempt") or 0)


def remarks(run: RunPaths) -> List[Skipped]:
    """Return what was skipped when the container was gathered, and is no loss; a fetch shows it."""
    return list((read_json(run.gathered) or {}).get("skipped") or [])


def collect(run: RunPaths, job: AttemptJob, live: bool) -> List[Skipped]:
    """Bring the run's `outside/` up to date. What could not be copied, and why. May take as long as a copy takes."""
    engine = _engine(job)
    if engine is None or not may_hold_more(run, job):
        return []
    if not origin.is_of_this_host(run):
        if journal.schema_of(job) > words.JOB_SCHEMA:
            return [_skip(b"", "the run is a newer gpurun's; " + words.UPDATE)]
        return [_skip(b"", "the container is on another machine, %s" % job["host"].get("hostname"))]
    try:
        return gather(run, job, live) if live else gather_all(run, job, ended=True)
    except AgentError as error:
        return [_skip(b"", "the engine did not tell what was written outside the workspace: %s" % error)]


def gather_at_end(run: RunPaths, run_lock: locks.Held) -> None:
    """Copy what the container of a job that has ended alone holds, and let the container go.

    A person, or another program, may remove exited containers at any time, so that this does not wait for a fetch. Takes the
    supervisor's lock of the run and releases it: a copy may take long, and holds up no next attempt before that needs the
    container's name.
    """
    try:
        job = jobs.of_attempt_or_empty(run)
        if not (os.path.exists(run.exit) and may_hold_more(run, job) and origin.is_of_this_host(run)):
            return
        ran = _last_that_ran(run)
        held = locks.acquire(locks.gather_lock(run.id))  # before the run's lock goes: `rm` must not slip in between
        if held is None:
            return  # a fetch does it
        try:
            run_lock.release()
            skipped = _gather_alone(run, job, ran, ended=True)
            if any(one["lost"] for one in skipped):
                print("not gathered: %s" % skipped, file=sys.stderr)
            else:
                forget(run, job)
        finally:
            held.release()
    except Exception:  # noqa: BLE001 (the run has ended; the container stays, and the next fetch tries again)
        traceback.print_exc()


def gather_all(run: RunPaths, job: AttemptJob, *, ended: bool = False) -> List[Skipped]:
    """Copy what the container of an ended attempt alone holds; when nothing is lost, note that it holds nothing more.

    Returns what was skipped. When that has no `lost`, everything is on the disk, and the container may go. Raises AgentError
    when the engine does not answer, `gathering` when another process is copying, and, with `ended`, for a container that runs.
    """
    held = hold(run)
    try:
        return _gather_alone(run, job, _last_that_ran(run), ended=ended)
    finally:
        held.release()


def hold(run: RunPaths) -> locks.Held:
    """Keep everybody else from copying out of the run's container. Raises AgentError `gathering`."""
    held = locks.acquire_within(locks.gather_lock(run.id), _PATIENCE)
    if held is None:
        what = "what the job of %s wrote outside its workspace is still being copied" % run.id
        raise AgentError(error_codes.GATHERING, what, "try again in a minute")
    return held


def _gather_alone(run: RunPaths, job: AttemptJob, ran: Optional[int], *, ended: bool) -> List[Skipped]:
    if ended and ran is not None and ran <= _gathered(run):  # somebody else has done it while we waited for the lock
        return remarks(run)
    skipped = gather(run, job, ended=ended)
    if ran is not None and not any(one["lost"] for one in skipped):
        if os.path.isdir(run.outside):
            sync_disk(run.outside)  # before the original may go
        if ran > _gathered(run):
            write_json(run.gathered, {"attempt": ran, "t": time.time(), "skipped": skipped})
    return skipped


def gather(run: RunPaths, job: AttemptJob, live: bool = False, *, ended: bool = False) -> List[Skipped]:
    """What `collect` does, also for the container of an earlier attempt. Raises AgentError when the engine does not answer."""
    engine = _engine(job)
    if engine is None:
        return []
    name = words.CONTAINER_PREFIX + run.id
    found = Docker(engine.argv).find(run, job)
    if found is not None and not live and attempt_of(found) <= _gathered(run):
        return []
    if found is not None and ended and (found.get("State") or {}).get("Running"):
        raise AgentError(
            error_codes.CONTAINER_RUNS,
            "the container %s still runs, though its run has ended" % name,
            "docker stop " + name,
        )
    if found is None:
        gone = "the container is gone, and with it what was written outside the workspace"
        return [_skip(b"", gone, lost=False)]
    name = str(found["Id"])  # a name can be changed by others
    diff = container_diff.parse_diff(engine.ask("diff", name, timeout=_DIFF_SECONDS).out)
    mounts = _mounts(job, found)
    copy = _Copy(engine, name, run, mounts, live, [])
    for kind, source in container_diff.to_copy(diff, mounts):
        copy.take(kind, source)
    return copy.skipped


def _mounts(job: AttemptJob, container: Inspected) -> List[str]:
    """Where the container has something mounted: the job's own mounts, and all that gpurun itself gave it."""
    targets = [str(mount["target"]) for mount in job.get("mounts") or []]
    given = [str(mount["Destination"]) for mount in container.get("Mounts") or [] if mount.get("Destination")]
    return list(dict.fromkeys(targets + given))


def forget(run: RunPaths, job: AttemptJob) -> None:
    """Let the container go: all that it held is in `outside/`. One that cannot be removed now goes with the run."""
    engine = _engine(job)
    if engine is not None:
        with contextlib.suppress(AgentError, OSError):
            Docker(engine.argv).remove(run, job)


def _engine(job: AttemptJob) -> Optional[Engine]:
    host = job.get("host")
    if host is None or host.get("runtime") != "docker" or not host.get("engine"):
        return None
    return Engine([str(word) for word in host["engine"] or ()])


def _skip(path: bytes, why: str, *, lost: bool = True) -> Skipped:
    return {"path": "outside" + to_wire(path or b"/"), "why": why, "lost": lost}


@dataclass
class _Copy:
    """From one container into one run's `outside/`."""

    engine: Engine
    container: str
    run: RunPaths
    mounts: List[str]
    live: bool
    skipped: List[Skipped]

    def take(self, kind: str, source: bytes) -> None:
        """One `docker cp` to a tar stream, of which the regular files are taken."""
        argv = [os.fsencode(word) for word in self.engine.command("cp", self.container + ":")]
        argv[-1] += source
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen([*argv, b"-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
            assert process.stdout is not None
            failure = None
            try:
                well = self._extract(process.stdout, kind, posixpath.dirname(source))
            except (tarfile.TarError, OSError) as error:
                well, failure = True, str(error)
            finally:
                process.stdout.close()  # an engine that still has something to say ends by this
                code = process.wait()
            said.seek(0)
            if failure is not None or (well and code != 0):
                told = programs.last_lines(said.read(), 1)
                self.skipped.append(_skip(source, told[0] if told else failure or "docker cp failed"))

    def _extract(self, stream: IO[bytes], kind: str, base: bytes) -> bool:
        """False when it was let go: an old folder, whose mode alone was changed."""
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                if kind == "C" and member.isdir():
                    return False
                inside = posixpath.normpath(posixpath.join(base, from_wire(member.name)))
                if (member.isreg() or member.islnk()) and container_diff.is_wanted(inside, self.mounts):
                    self._take_member(archive, member, base, inside)
        while stream.read(_BLOCK):  # the padding behind the end, so that the engine ends well
            pass
        return True

    def _take_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, base: bytes, inside: bytes) -> None:
        why = self._why_not(member)
        if why is None:
            try:
                self._place(archive, member, base, inside)
            except OSError as error:
                why = os.strerror(error.errno or 0)
        if why is not None:
            self.skipped.append(_skip(inside, why))

    def _why_not(self, member: tarfile.TarInfo) -> Optional[str]:
        if self.live and abs(time.time() - member.mtime) < completeness.QUIET_SECONDS:
            return "it was written a moment ago"
        if shutil.disk_usage(self.run.root).free < member.size + _LITTLE:
            return "the host's disk is nearly full"
        return None

    def _place(self, archive: tarfile.TarFile, member: tarfile.TarInfo, base: bytes, inside: bytes) -> None:
        """Write one file, whole or not at all. No links are ever made in there, so none can lead out."""
        top = os.fsencode(self.run.outside)
        target = _below(top, inside)
        if _is_there(target, member):
            return
        with contextlib.ExitStack() as stack:
            if member.islnk():  # another name of a file that came before it in this archive
                first = posixpath.normpath(posixpath.join(base, from_wire(member.linkname)))
                source: Optional[IO[bytes]] = stack.enter_context(open(_below(top, first), "rb"))
            else:
                source = archive.extractfile(member)
            assert source is not None
            os.makedirs(os.path.dirname(target), exist_ok=True)
            fd, temporary = tempfile.mkstemp(dir=os.fsencode(self.run.root), prefix=b".new-")
            try:
                with os.fdopen(fd, "wb") as file:
                    shutil.copyfileobj(source, file, _BLOCK)
                os.utime(temporary, (member.mtime, member.mtime))
                os.rename(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise


def _is_there(target: bytes, member: tarfile.TarInfo) -> bool:
    """Copied earlier and not written since: what is younger than a clock's tick was not copied."""
    try:
        found = os.lstat(target)
    except OSError:
        return False
    return member.isreg() and (found.st_size, int(found.st_mtime)) == (member.size, int(member.mtime))


def _below(top: bytes, inside: bytes) -> bytes:
    parts = [part for part in inside.split(b"/") if part]
    if not parts or b".." in parts:
        raise PermissionError(1, "leads out")
    return os.path.join(top, *parts)

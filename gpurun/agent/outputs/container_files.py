"""Copy what a job wrote in its container, outside its workspace and mounts, to the run's `outside/`.

The supervisor does this once the job has ended, and removes the container when all its files are in `outside/` and
flushed to the disk. A container that could not be copied completely is kept, and the next fetch tries again.
`gathered.json` has the last attempt N of which this is true: all files of the containers of attempts 1 to N are in
`outside/`. Paths and contents come from the job and are not trusted: only regular files are copied, and each is written below `outside/`.
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


_LITTLE = 512 << 20  # bytes that stay free on a host's disk
_DIFF_SECONDS = 300.0  # some storage drivers compare the whole image, file by file
_BLOCK = 1 << 20
_PATIENCE = 20.0  # seconds to wait for another process that copies out of the same container


def may_hold_more(run: RunPaths, job: AttemptJob) -> bool:
    """Return whether a container of any attempt has, or had, files for `collect`. Runs no command."""
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
    """Return what was skipped without loss when the container was gathered; a fetch shows it."""
    return list((read_json(run.gathered) or {}).get("skipped") or [])


def collect(run: RunPaths, job: AttemptJob, live: bool) -> List[Skipped]:
    """Bring the run's `outside/` up to date. Return what could not be copied, and why. Takes as long as the copy."""
    engine = _engine(job)
    if engine is None or not may_hold_more(run, job):
        return []
    if not origin.is_of_this_host(run):
        if journal.schema_of(job) > words.JOB_SCHEMA:
            return [_skip(b"", "a newer gpurun made the run; " + words.UPDATE)]
        return [_skip(b"", "the container is on another host, %s" % job["host"].get("hostname"))]
    try:
        return gather(run, job, live) if live else gather_all(run, job, ended=True)
    except AgentError as error:
        return [_skip(b"", "the engine did not list what was written outside the workspace: %s" % error)]


def gather_at_end(run: RunPaths, run_lock: locks.Held) -> None:
    """Copy the files that only the container of an ended job has, and remove the container.

    A person or another program may remove exited containers at any time, so this does not wait for a fetch. Takes the
    supervisor's lock of the run and releases it: a copy may take long, and must not delay a next attempt before that
    needs the container's name.
    """
    try:
        job = jobs.of_attempt_or_empty(run)
        if not (os.path.exists(run.exit) and may_hold_more(run, job) and origin.is_of_this_host(run)):
            return
        ran = _last_that_ran(run)
        held = locks.acquire(
            locks.gather_lock(run.id)
        )  # before the run's lock is released, so that `rm` cannot run in between
        if held is None:
            return  # a fetch is copying
        try:
            run_lock.release()
            skipped = _gather_alone(run, job, ran, ended=True)
            if any(entry["lost"] for entry in skipped):
                print("not gathered: %s" % skipped, file=sys.stderr)
            else:
                forget(run, job)
        finally:
            held.release()
    except Exception:  # noqa: BLE001 (the run has ended; the container stays, and the next fetch tries again)
        traceback.print_exc()


def gather_all(run: RunPaths, job: AttemptJob, *, ended: bool = False) -> List[Skipped]:
    """Copy the files that only the container of an ended attempt has.

    When no file is lost, record that the container has no more.

    Returns what was skipped. When no entry is `lost`, all files are on the disk, and the container may be removed.
    Raises AgentError when the engine does not answer, `gathering` when another process is copying, and, with `ended`,
    for a container that runs.
    """
    held = hold(run)
    try:
        return _gather_alone(run, job, _last_that_ran(run), ended=ended)
    finally:
        held.release()


def hold(run: RunPaths) -> locks.Held:
    """Prevent other processes from copying out of the run's container. Raises AgentError `gathering`."""
    held = locks.acquire_within(locks.gather_lock(run.id), _PATIENCE)
    if held is None:
        what = "another process is still copying what the job of %s wrote outside its workspace" % run.id
        raise AgentError(error_codes.GATHERING, what, "try again in a minute")
    return held


def _gather_alone(run: RunPaths, job: AttemptJob, ran: Optional[int], *, ended: bool) -> List[Skipped]:
    if ended and ran is not None and ran <= _gathered(run):  # another process has done it while we waited for the lock
        return remarks(run)
    skipped = gather(run, job, ended=ended)
    if ran is not None and not any(entry["lost"] for entry in skipped):
        if os.path.isdir(run.outside):
            sync_disk(run.outside)  # before the original may be removed
        if ran > _gathered(run):
            write_json(run.gathered, {"attempt": ran, "t": time.time(), "skipped": skipped})
    return skipped


def gather(run: RunPaths, job: AttemptJob, live: bool = False, *, ended: bool = False) -> List[Skipped]:
    """Do what `collect` does, also for the container of an earlier attempt.

    Raises AgentError when the engine does not answer.
    """
    engine = _engine(job)
    if engine is None:
        return []
    name = words.CONTAINER_PREFIX + run.id
    container = Docker(engine.argv).find(run, job)
    if container is not None and not live and attempt_of(container) <= _gathered(run):
        return []
    if container is not None and ended and (container.get("State") or {}).get("Running"):
        raise AgentError(
            error_codes.CONTAINER_RUNS,
            "the container %s still runs, though its run has ended" % name,
            "docker stop " + name,
        )
    if container is None:
        gone = "the container is gone, and with it what was written outside the workspace"
        return [_skip(b"", gone, lost=False)]
    name = str(container["Id"])  # others can change a name
    diff = container_diff.parse_diff(engine.ask("diff", name, timeout=_DIFF_SECONDS).out)
    mounts = _mounts(job, container)
    copy = _Copy(engine, name, run, mounts, live, [])
    for kind, source in container_diff.to_copy(diff, mounts):
        copy.take(kind, source)
    return copy.skipped


def _mounts(job: AttemptJob, container: Inspected) -> List[str]:
    """Return the paths of the container's mounts: the job's own mounts, and those that gpurun added."""
    targets = [str(mount["target"]) for mount in job.get("mounts") or []]
    given = [str(mount["Destination"]) for mount in container.get("Mounts") or [] if mount.get("Destination")]
    return list(dict.fromkeys(targets + given))


def forget(run: RunPaths, job: AttemptJob) -> None:
    """Remove the container: all its files are in `outside/`.

    A container that cannot be removed now is removed with the run.
    """
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
    """Copy from one container into one run's `outside/`."""

    engine: Engine
    container: str
    run: RunPaths
    mounts: List[str]
    live: bool
    skipped: List[Skipped]

    def take(self, kind: str, source: bytes) -> None:
        """Run one `docker cp` that writes a tar stream, and copy the regular files of the stream."""
        argv = [os.fsencode(word) for word in self.engine.command("cp", self.container + ":")]
        argv[-1] += source
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen([*argv, b"-"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            failure = None
            try:
                is_read = self._extract(process.stdout, kind, posixpath.dirname(source))
            except (tarfile.TarError, OSError) as error:
                is_read, failure = True, str(error)
            finally:
                process.stdout.close()  # an engine that still writes ends by this
                code = process.wait()
            errors.seek(0)
            if failure is not None or (is_read and code != 0):
                error_lines = programs.last_lines(errors.read(), 1)
                self.skipped.append(_skip(source, error_lines[0] if error_lines else failure or "docker cp failed"))

    def _extract(self, stream: IO[bytes], kind: str, base: bytes) -> bool:
        """Copy the members of the stream. Return False for an old folder of which only the mode was changed."""
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as archive:
            for member in archive:
                if kind == "C" and member.isdir():
                    return False
                inside = posixpath.normpath(posixpath.join(base, from_wire(member.name)))
                if (member.isreg() or member.islnk()) and container_diff.is_wanted(inside, self.mounts):
                    self._take_member(archive, member, base, inside)
        while stream.read(_BLOCK):  # read the padding after the end, so that the engine exits with 0
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
        """Write one file, completely or not at all. No link is ever made there, so no link can point outside."""
        top = os.fsencode(self.run.outside)
        target = _below(top, inside)
        if _is_copied(target, member):
            return
        with contextlib.ExitStack() as stack:
            if member.islnk():  # another name of an earlier file of this archive
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


def _is_copied(target: bytes, member: tarfile.TarInfo) -> bool:
    """Return whether the file was copied earlier and not written since. A file that was just written was not copied."""
    try:
        status = os.lstat(target)
    except OSError:
        return False
    return member.isreg() and (status.st_size, int(status.st_mtime)) == (member.size, int(member.mtime))


def _below(top: bytes, inside: bytes) -> bytes:
    parts = [part for part in inside.split(b"/") if part]
    if not parts or b".." in parts:
        raise PermissionError(1, "the path leaves the folder")
    return os.path.join(top, *parts)

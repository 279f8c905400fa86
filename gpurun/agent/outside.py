"""What a job wrote in its container, but outside its workspace and mounts: copied to the run's `outside/`.

The container is kept until that was fetched. Paths and contents come from the job and are trusted in nothing:
only regular files are taken, and each lands below `outside/`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Any, Dict, List, Optional

from . import changes, journal, programs, wholeness
from . import vocabulary as words
from .engine import Engine
from .errors import AgentError
from .files import read_json
from .outputs import from_wire, to_wire
from .paths import RunPaths
from .runtimes.docker import Docker
from .tend import is_of_this_host

Skipped = Dict[str, Any]

_LITTLE = 512 << 20  # bytes that are left free on a host's disk
_DIFF_SECONDS = 300.0  # some storage drivers compare the whole image file by file
_BLOCK = 1 << 20


def may_hold_more(run: RunPaths, job: Dict[str, Any]) -> bool:
    """Whether there is, or was, a container whose files `collect` should look at. Asks nobody."""
    return (
        _engine(job) is not None
        and journal.fold(run).started is not None
        and not (read_json(run.fetched) or {}).get("t")  # then it was let go, with all that it held in `outside/`
    )


def collect(run: RunPaths, job: Dict[str, Any], live: bool) -> List[Skipped]:
    """Bring the run's `outside/` up to date. What could not be copied, and why. May take as long as a copy takes."""
    engine = _engine(job)
    if engine is None or not may_hold_more(run, job):
        return []
    if not is_of_this_host(run):
        return [_skip(b"", "the container is on another machine, %s" % job["host"].get("hostname"))]
    try:
        return gather(run, job, live)
    except AgentError as error:
        return [_skip(b"", "the engine did not tell what was written outside the workspace: %s" % error)]


def gather(run: RunPaths, job: Dict[str, Any], live: bool = False) -> List[Skipped]:
    """What `collect` does, also for the container of an earlier attempt. Raises AgentError when the engine does not answer."""
    engine = _engine(job)
    if engine is None:
        return []
    name = words.CONTAINER_PREFIX + run.id
    if Docker(engine.argv).find(run, job) is None:
        gone = "the container is gone, and with it what was written outside the workspace"
        return [_skip(b"", gone, lost=False)]
    diff = changes.parse_diff(engine.ask("diff", name, timeout=_DIFF_SECONDS).out)
    mounts = [str(mount["target"]) for mount in job.get("mounts") or []]
    copy = _Copy(engine, name, run, mounts, live, [])
    for kind, source in changes.to_copy(diff, mounts):
        copy.take(kind, source)
    return copy.skipped


def forget(run: RunPaths, job: Dict[str, Any]) -> None:
    """Let the container go: all that it held is fetched. One that cannot be removed now goes with the run."""
    engine = _engine(job)
    if engine is not None:
        with contextlib.suppress(AgentError, OSError):
            Docker(engine.argv).remove(run, job)


def _engine(job: Dict[str, Any]) -> Optional[Engine]:
    host = job.get("host") or {}
    if host.get("runtime") != "docker" or not host.get("engine"):
        return None
    return Engine([str(word) for word in host["engine"]])


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
                if (member.isreg() or member.islnk()) and changes.is_wanted(inside, self.mounts):
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
        if self.live and abs(time.time() - member.mtime) < wholeness.QUIET_SECONDS:
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

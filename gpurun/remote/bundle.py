"""The archive that gpurun brings to a host: the agent with the pinned image's recipe in it.

It is named by its content: a host gets it once for each version of gpurun, and two versions live side by side.
In it: `__main__.py`, `gpurun/__init__.py` (empty), `gpurun/agent/**` and, from docker/, `gpurun/agent/image/**`.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from gpurun.agent import vocabulary as words
from gpurun.ssh.openssh import quote

NO_AGENT = 90  # our own exit code for a host that has no agent of this version
PACKAGE = Path(__file__).resolve().parents[1]
_LEFT_OUT = {"__pycache__", ".DS_Store"}


@dataclass(frozen=True)
class Bundle:
    """A packed agent: `hash` names its content, `path` is the archive (tar.gz) on the laptop."""

    hash: str
    path: Path
    data: bytes | None = None  # the archive itself, where it could not be kept

    def read(self) -> bytes:
        return self.path.read_bytes() if self.data is None else self.data


def loader() -> str:
    """The Python text that unpacks the archive on a host."""
    return (PACKAGE / "agent" / "loader.py").read_text(encoding="utf-8")


def image_folder() -> Path:
    """The folder of the pinned image: beside the package in a checkout, inside it when installed."""
    checkout = PACKAGE.parent / "docker"
    return checkout if (checkout / "Dockerfile").is_file() else PACKAGE / "docker"


def current(agent: Path = PACKAGE / "agent", image: Path | None = None, cache: Path | None = None) -> Bundle:
    """The bundle of the gpurun that runs. Packed once; later calls only stat the files (under 5 ms)."""
    cache = cache or Path(platformdirs.user_cache_dir("gpurun")) / "agent"
    files = [
        *_files(agent, "gpurun/agent"),
        *_files(image or image_folder(), "gpurun/agent/image"),
        *((name, path, found) for name, path, found in _files(agent, "") if name == "__main__.py"),
    ]
    key = hashlib.sha256()
    for name, path, found in files:
        key.update(f"{name}\0{path}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_mode}\n".encode())
    known = cache / f"{key.hexdigest()[:16]}.hash"
    try:
        digest = known.read_text()
        archive = cache / f"{digest}.tar.gz"
        if archive.is_file():
            return Bundle(digest, archive)
    except OSError:
        pass
    return _pack(files, cache, known)


def _pack(files: list[tuple[str, Path, os.stat_result]], cache: Path, known: Path) -> Bundle:
    import gzip  # these three cost more than the whole of a later call
    import io
    import tarfile

    packed = io.BytesIO()
    content = hashlib.sha256()
    # Nothing of this machine goes in, neither times nor owners: equal content is an equal archive.
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, filename="") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, path, found in files:
            data = path.read_bytes()
            executable = bool(found.st_mode & 0o100)
            content.update(f"{name}\0{len(data)}\0{executable}\n".encode() + data)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755 if executable else 0o644
            archive.addfile(entry, io.BytesIO(data))
        archive.addfile(tarfile.TarInfo("gpurun/__init__.py"))
    digest = content.hexdigest()[:16]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _write(cache / f"{digest}.tar.gz", packed.getvalue())
        _write(known, digest.encode())
    except OSError:  # a full disk: the next call packs it again
        return Bundle(digest, cache / f"{digest}.tar.gz", packed.getvalue())
    return Bundle(digest, cache / f"{digest}.tar.gz")


def _write(path: Path, data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            Path(file.name).unlink()
            raise
    Path(file.name).rename(path)


def _files(folder: Path, prefix: str) -> Iterator[tuple[str, Path, os.stat_result]]:
    """(name in the archive, path, stat) of every file below `folder`, sorted by name."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name in _LEFT_OUT:
            continue
        name = f"{prefix}/{entry.name}" if prefix else entry.name
        if entry.is_dir():
            yield from _files(Path(entry.path), name)
        elif entry.is_file():
            yield name, Path(entry.path), entry.stat()


def question_command(python: str | None, root: str | None, digest: str, verb: str) -> str:
    """The line for the host's shell that asks the agent. Any login shell hands it to `sh` as it stands."""
    place = quote(_place(root, digest))
    script = f"[ -f {place}/__main__.py ] || exit {NO_AGENT}; exec {quote(python or 'python3')} -I -S {place} {verb}"
    return "exec sh -c " + shlex.quote(script)


def bootstrap_command(python: str | None, root: str | None, digest: str, verb: str, size: int) -> str:
    """The line that unpacks an archive of `size` bytes from stdin and then asks the agent."""
    place = quote(_place(root, digest))
    read_loader = shlex.quote("import sys; exec(eval(sys.stdin.buffer.raw.readline()))")
    script = f"exec {quote(python or 'python3')} -I -S -c {read_loader} {place} {verb} {size}"
    return "exec sh -c " + shlex.quote(script)


def _place(root: str | None, digest: str) -> str:
    """Return the agent's folder on a host whose profile names `root`. What is in `root` itself is the user's."""
    folder = (root or f"~/{words.HOME}").rstrip("/")
    if folder.rpartition("/")[2] != words.HOME:
        folder += f"/{words.HOME}"
    return f"{folder}/agent/{digest}"

"""Sending a project to a host and bringing files back, by the laptop's own rsync over the shared SSH connection.

Builders make the argv and the parsers read what rsync says; `push` and `pull` run it. Every trap that the options
avoid is in a test: equal size within the same second, names of any kind, uploads that broke off, hosts not trusted.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from gpurun import process
from gpurun.job.files import FileList
from gpurun.sync.rsync_errors import DISK_FULL, PARTIAL, Connection, RsyncError, check_local

__all__ = ["DISK_FULL", "PARTIAL", "Progress", "RsyncError", "check_local"]

SECONDS_TO_END = 10.0  # after TERM; rsync then keeps what it has of the file at hand

# Suffixes of what does not shrink. Compressing it costs time and gains nothing.
_DENSE = frozenset(
    b"ckpt pt pth bin safetensors onnx npz h5 hdf5 parquet arrow zip gz xz bz2 zst 7z whl jar png jpg jpeg webp gif "
    b"mp3 mp4 ogg flac avi mkv webm pdf tgz tif tiff".split()
)


@dataclass(frozen=True)
class Progress:
    """How far a transfer is: bytes sent or got, their rate in bytes/s, files looked at of all files.

    `eta` in seconds, None while nothing can be said.
    """

    bytes: int
    rate: float
    eta: float | None
    checked: int
    files: int

    @property
    def fraction(self) -> float:
        return self.checked / self.files if self.files else 0.0


def push_argv(
    connection: Connection,
    root: Path,
    snapshot: str,
    link_dest: Sequence[str] = (),
    *,
    compress: bool = False,
) -> list[str]:
    """Send the files named on stdin (NUL-ended, relative to `root`) into `snapshot`, linking what is unchanged.

    Files of `link_dest` (absolute, at most 20) count as unchanged when size, mode and time to the nanosecond are equal.
    What is named but not there any more is passed over. (`--delete-missing-args` fails in rsync 3.2.7.)
    """
    return [
        *_common(connection),
        "-p",
        # The agent must be able to copy and remove what a read-only folder or file holds.
        "--chmod=Du+rwx,Fu+rw",
        "--modify-window=-1",
        *(f"--link-dest={folder}" for folder in link_dest),
        # Outside the snapshot: what is left of a broken upload is no file of the project.
        f"--partial-dir={PurePosixPath(snapshot).parent / 'partial'}",
        # Folders' times and modes matter to nobody, and setting them costs a round trip.
        "--no-implied-dirs",
        "--ignore-missing-args",
        *(["-z"] if compress else []),
        "--",
        f"{root}/",
        f"{connection.destination}:{snapshot}/",
    ]


def pull_argv(connection: Connection, source: str, staging: Path, *, code: bool = False) -> list[str]:
    """Bring the files named on stdin (NUL-ended, relative to the host's folder `source`) into `staging`.

    The host is not trusted: no links, no devices, no owners, no modes. Of `code` come links that stay inside, and whether
    a file is executable. What has vanished is passed over.
    """
    return [
        *_common(connection),
        "--safe-links" if code else "--no-links",
        "--no-devices",
        "--no-specials",
        "--no-owner",
        "--no-group",
        *(["-p", "--chmod=D755,Fu=rwX,Fgo=rX"] if code else ["--chmod=D755,F644"]),
        "--partial-dir=.gpurun-partial",
        "--ignore-missing-args",
        "--",
        f"{connection.destination}:{source}/",
        f"{staging}/",
    ]


def _common(connection: Connection) -> list[str]:
    return [
        "rsync",
        "-lt",
        "-s",
        "--files-from=-",
        "--from0",
        *transport(connection),
    ]


def transport(connection: Connection) -> list[str]:
    """How every transfer goes: over the shared connection, with progress that can be read, given up when nothing moves."""
    return ["--timeout=60", "--info=progress2", "--no-human-readable", "--outbuf=N", "-e", connection.rsh()]


def listed(names: Iterable[bytes]) -> bytes:
    """Relative paths as `--files-from=- --from0` reads them.

    Without the `./`, rsync takes names that begin with `#` or `;` for comments and passes them over, with exit 0.
    """
    return b"".join(b"./" + name + b"\0" for name in names)


def shrinks(files: FileList) -> bool:
    """Whether most of the bytes are of a kind that compression makes smaller."""
    dense = sum(entry.size for entry in files.entries if entry.path.rpartition(b".")[2].lower() in _DENSE)
    return dense * 2 < files.bytes


def transfer(argv: Sequence[str], stdin: bytes, progress: Callable[[Progress], None] | None = None) -> tuple[int, str]:
    """Run rsync to its end: its exit code, and what it wrote to stderr. Interrupted, it is ended by TERM.

    KILL would throw away what has come of the file at hand.
    """
    with process.scratch() as names, process.scratch() as errors:
        names.write(stdin)
        names.seek(0)
        running = process.start(argv, stdin=names, stderr=errors)
        try:
            assert running.stdout is not None
            for seen in parse_progress(_chunks(running.stdout)):
                if progress is not None:
                    progress(seen)
            code = running.wait()
        except BaseException:
            _end(running)
            raise
        errors.seek(0)
        return code, errors.read().decode("utf-8", "replace").strip()


def _chunks(pipe: IO[bytes]) -> Iterator[bytes]:
    while chunk := os.read(pipe.fileno(), 65536):
        yield chunk


def _end(running: process.Process) -> None:
    running.terminate()
    deadline = time.monotonic() + SECONDS_TO_END
    while running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if running.stdout is not None:
        running.stdout.close()


_PROGRESS = re.compile(
    rb"\s*(?P<bytes>[\d,.]+)\s+\d+%\s+(?P<rate>[\d.,]+)(?P<unit>[kMGT]?)B/s\s+(?P<time>[\d:?]+)"
    rb"(?:.*?(?:to|ir)-chk=(?P<left>\d+)/(?P<files>\d+))?"
)
_UNITS = {b"": 1, b"k": 1 << 10, b"M": 1 << 20, b"G": 1 << 30, b"T": 1 << 40}


def parse_progress(chunks: Iterator[bytes]) -> Iterator[Progress]:
    """The reports in what `--info=progress2` prints: lines parted by `\\r`, which may break anywhere."""
    rest = b""
    files = left = 0
    for chunk in chunks:
        *lines, rest = re.split(rb"[\r\n]", rest + chunk)
        for line in lines:
            match = _PROGRESS.match(line)
            if not match:
                continue
            if match["files"]:
                left, files = int(match["left"]), int(match["files"])
            rate = float(match["rate"].replace(b",", b".")) * _UNITS[match["unit"]]
            sent = int(re.sub(rb"\D", b"", match["bytes"]))
            yield Progress(sent, rate, _seconds(match["time"]), files - left, files)


def _seconds(text: bytes) -> float | None:
    parts = text.split(b":")
    if not all(part.isdigit() for part in parts):
        return None
    return float(functools.reduce(lambda total, part: total * 60 + int(part), parts, 0))

"""Send files to a host and fetch files from it, by the laptop's own rsync over the shared SSH connection.

The builders return argv, and the parsers read rsync's output. A test covers each problem that the options avoid: equal size
within the same second, unusual names, interrupted uploads, hosts that are not trusted.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from gpurun import process
from gpurun.agent.paths import RunPaths
from gpurun.job.files import FileList
from gpurun.sync.rsync_errors import DISK_FULL, PARTIAL, Connection, RsyncError, check_local

__all__ = ["DISK_FULL", "PARTIAL", "Progress", "RsyncError", "check_local"]

TERMINATION_TIMEOUT = 10.0  # seconds after TERM, in which rsync saves the incomplete file

# Suffixes of files that compression does not make smaller.
_INCOMPRESSIBLE = frozenset(
    b"ckpt pt pth bin safetensors onnx npz h5 hdf5 parquet arrow zip gz xz bz2 zst 7z whl jar png jpg jpeg webp gif "
    b"mp3 mp4 ogg flac avi mkv webm pdf tgz tif tiff".split()
)


@dataclass(frozen=True)
class Progress:
    """The progress of a transfer: bytes transferred, rate in bytes/s, files checked of all files.

    `eta`: seconds left, None while unknown.
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
    """Send the files named on stdin (NUL-ended, relative to `root`) into `snapshot`; hard-link unchanged files.

    A file is unchanged when its size, mode and time in nanoseconds equal those in a folder of `link_dest` (absolute, at most
    20). A named file that has disappeared is skipped. (`--delete-missing-args` fails in rsync 3.2.7.)
    """
    return [
        *_common(connection),
        "-p",
        # The agent must be able to copy and remove read-only folders and files.
        "--chmod=Du+rwx,Fu+rw",
        "--modify-window=-1",
        *(f"--link-dest={folder}" for folder in link_dest),
        f"--partial-dir={RunPaths.of_snapshot(snapshot).partial}",
        # Nothing uses the times and modes of folders, and setting them costs a round trip.
        "--no-implied-dirs",
        "--ignore-missing-args",
        *(["-z"] if compress else []),
        "--",
        f"{root}/",
        f"{connection.destination}:{snapshot}/",
    ]


def pull_argv(connection: Connection, source: str, staging: Path, *, code: bool = False) -> list[str]:
    """Fetch the files named on stdin (NUL-ended, relative to the host's folder `source`) into `staging`.

    The host is not trusted: no links, devices, owners or modes are copied. With `code`, links that stay inside and the
    executable bit are copied. A file that has disappeared is skipped.
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
    """Return the options of every transfer: the shared connection, progress that can be parsed, a timeout without data."""
    return ["--timeout=60", "--info=progress2", "--no-human-readable", "--outbuf=N", "-e", connection.rsh()]


def file_list(names: Iterable[bytes]) -> bytes:
    """Return relative paths in the format of `--files-from=- --from0`.

    Without the `./`, rsync reads names that begin with `#` or `;` as comments and skips them, with exit code 0.
    """
    return b"".join(b"./" + name + b"\0" for name in names)


def is_compressible(files: FileList) -> bool:
    """Return whether compression makes most of the bytes smaller."""
    incompressible = sum(
        entry.size for entry in files.entries if entry.path.rpartition(b".")[2].lower() in _INCOMPRESSIBLE
    )
    return incompressible * 2 < files.bytes


def run_rsync(argv: Sequence[str], stdin: bytes, progress: Callable[[Progress], None] | None = None) -> tuple[int, str]:
    """Run rsync to its end; return its exit code and its stderr. An exception in between ends rsync by TERM.

    KILL would discard the received part of the current file.
    """
    with process.scratch() as names, process.scratch() as errors:
        names.write(stdin)
        names.seek(0)
        running = process.start(argv, stdin=names, stderr=errors)
        try:
            assert running.stdout is not None
            for now in parse_progress(_chunks(running.stdout)):
                if progress is not None:
                    progress(now)
            code = running.wait()
        except BaseException:
            _terminate(running)
            raise
        errors.seek(0)
        return code, errors.read().decode("utf-8", "replace").strip()


def _chunks(pipe: IO[bytes]) -> Iterator[bytes]:
    while chunk := os.read(pipe.fileno(), 65536):
        yield chunk


def _terminate(running: process.Process) -> None:
    running.terminate()
    deadline = time.monotonic() + TERMINATION_TIMEOUT
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
    """Parse the output of `--info=progress2`: lines separated by `\\r`, which the chunks may cut anywhere."""
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

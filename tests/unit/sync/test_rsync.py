"""The arguments of rsync, and the parsers of its output."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from gpurun import process
from gpurun.config.project import find_project
from gpurun.job.files import FileList, list_files
from gpurun.sync import rsync, rsync_errors
from gpurun.sync.rsync import Progress, RsyncError


@dataclass
class LocalShell:
    """This machine as a host: its shell runs `line`, with the command in $*."""

    script: Path
    destination: str = "box"

    def says(self, line: str) -> None:
        self.script.write_text(f"#!/bin/sh\nshift\n{line}\n")
        self.script.chmod(0o755)

    def rsh(self) -> str:
        return shlex.quote(str(self.script))

    def run(self, command: str, *, stdin: bytes = b"", timeout: float | None = None) -> process.Completed:
        return process.run([str(self.script), self.destination, command], stdin=stdin, timeout=timeout)


@pytest.fixture
def host(tmp_path: Path) -> LocalShell:
    shell = LocalShell(tmp_path / "rsh")
    shell.says('exec sh -c "$*"')
    return shell


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "my project"
    (root / "deep").mkdir(parents=True)
    (root / "gpurun.toml").touch()
    (root / "train.py").write_text("print(1)")
    (root / "deep/er.py").write_text("x")
    return root


def listing(root: Path) -> FileList:
    return list_files(find_project(root))


def test_push_argv(host: LocalShell) -> None:
    argv = rsync.push_argv(host, Path("/p"), "/r/runs/a-1/snapshot", ["/r/old", "/r/part"], compress=True)
    assert argv == [
        *("rsync", "-lt", "-s", "--files-from=-", "--from0", "--timeout=60", "--info=progress2"),
        *("--no-human-readable", "--outbuf=N", "-e", host.rsh(), "-p", "--chmod=Du+rwx,Fu+rw", "--modify-window=-1"),
        *("--link-dest=/r/old", "--link-dest=/r/part", "--partial-dir=/r/runs/a-1/partial"),
        *("--no-implied-dirs", "--ignore-missing-args", "-z", "--", "/p/", "box:/r/runs/a-1/snapshot/"),
    ]


def test_pull_argv_does_not_trust_the_host(host: LocalShell) -> None:
    argv = rsync.pull_argv(host, "/r/runs/a-1", Path("/here/staging"))
    assert argv == [
        *("rsync", "-lt", "-s", "--files-from=-", "--from0", "--timeout=60", "--info=progress2"),
        *("--no-human-readable", "--outbuf=N", "-e", host.rsh(), "--no-links", "--no-devices", "--no-specials"),
        *("--no-owner", "--no-group", "--chmod=D755,F644", "--partial-dir=.gpurun-partial", "--ignore-missing-args"),
        *("--", "box:/r/runs/a-1/", "/here/staging/"),
    ]


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (1, "too_old"),
        (2, "noisy_shell"),
        (4, "too_old"),
        (11, "disk_full"),
        (23, "partial"),
        (127, "missing"),
        (13, "other"),
    ],
)
def test_error_of_each_exit_code(host: LocalShell, code: int, meaning: str) -> None:
    error = rsync_errors.error_of(host, code, "rsync: it said so")
    assert isinstance(error, RsyncError)
    assert (error.meaning, error.exit_code) == (meaning, 125)
    assert "it said so" in error.what


def test_parse_progress_across_chunks() -> None:
    printed = (
        b"\r         32,768   0%    0.00kB/s    0:00:00  \r"
        b"    104857600  45%   52.41MB/s    0:00:02  (xfr#5, ir-chk=1000/2017)\r"
        b"    230000000 100%    1.50GB/s    1:00:01 (xfr#9, to-chk=0/2018)\n"
    )
    chunks = [printed[at : at + 7] for at in range(0, len(printed), 7)]
    assert list(rsync.parse_progress(iter(chunks))) == [
        Progress(32768, 0.0, 0.0, 0, 0),
        Progress(104857600, 52.41 * (1 << 20), 2.0, 1017, 2017),
        Progress(230000000, 1.5 * (1 << 30), 3601.0, 2018, 2018),
    ]
    (unknown,) = rsync.parse_progress(iter([b"  5  50%  0.00kB/s  ??:??:?? \r"]))
    assert (unknown.eta, unknown.fraction) == (None, 0.0)


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("rsync  version 3.5.0  protocol version 32\n", (3, 5, 0)),
        ("rsync  version v3.2.7pre1  protocol version 31\n", (3, 2, 7)),
        ("rsync  version 2.6.9  protocol version 29\n", (2, 6, 9)),
        ("openrsync: protocol version 29, rsync version 2.6.9 compatible\n", None),
        ("", None),
    ],
)
def test_parse_version(printed: str, version: tuple[int, ...] | None) -> None:
    assert rsync_errors.parse_version(printed) == version


def test_is_compressible(project: Path) -> None:
    assert rsync.is_compressible(listing(project))
    (project / "model.CKPT").write_bytes(bytes(1000))
    assert not rsync.is_compressible(listing(project))

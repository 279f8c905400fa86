"""Send and fetch files with the real rsync; the remote shell runs its commands on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gpurun.agent import manifest
from gpurun.errors import ContactLost, GpurunError
from gpurun.job.files import FileList
from gpurun.sync import rsync, rsync_errors, upload
from gpurun.sync.rsync import Progress, RsyncError
from tests.support.hostile import NAMES
from tests.support.waiting import eventually
from tests.unit.sync.test_rsync import LocalShell, host, listing, project

__all__ = ["host", "project"]

SECOND = 1_000_000_000


def snapshot(tmp_path: Path, run: str) -> Path:
    folder = tmp_path / "host's runs" / run / "snapshot"
    folder.mkdir(parents=True)
    return folder


def test_push_sends_unusual_names(host: LocalShell, project: Path, tmp_path: Path) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(project), b"deep", name))).write_bytes(name)
    for link, target in {"up": "train.py", "broken": "nowhere", "out": "/etc/hostname"}.items():
        (project / link).symlink_to(target)
    files, to = listing(project), snapshot(tmp_path, "first run")
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest()) is None
    assert [path.name for path in to.parent.iterdir()] == ["snapshot"]


def test_push_links_unchanged_files_and_sees_an_edit_within_the_same_second(
    host: LocalShell, project: Path, tmp_path: Path
) -> None:
    first, second = snapshot(tmp_path, "a"), snapshot(tmp_path, "b")
    os.utime(project / "train.py", ns=(0, 1_700_000_000 * SECOND + 1))
    upload.push(host, listing(project), str(first))
    (project / "train.py").write_text("print(2)")  # as long as before
    os.utime(project / "train.py", ns=(0, 1_700_000_000 * SECOND + 2))
    files = listing(project)
    upload.push(host, files, str(second), [str(first)])
    assert (second / "train.py").read_text() == "print(2)"
    assert (first / "train.py").read_text() == "print(1)"
    assert (second / "deep/er.py").samefile(first / "deep/er.py")
    assert manifest.difference(str(second), files.manifest()) is None


def test_push_links_files_of_a_partial_snapshot(host: LocalShell, project: Path, tmp_path: Path) -> None:
    """After an interrupted upload, only the missing files are sent."""
    whole, partial, new = (snapshot(tmp_path, run) for run in ("whole", "partial", "new"))
    upload.push(host, listing(project), str(whole))
    (project / "big.bin").write_bytes(os.urandom(1 << 20))
    broken = FileList(project, tuple(entry for entry in listing(project).entries if entry.path == b"big.bin"))
    upload.push(host, broken, str(partial))
    reports: list[Progress] = []
    (project / "late.py").write_text("late")
    upload.push(host, listing(project), str(new), [str(whole), str(partial)], progress=reports.append)
    assert (new / "big.bin").samefile(partial / "big.bin")
    assert (new / "train.py").samefile(whole / "train.py")
    assert reports[-1].bytes == len("late")


def test_interrupted_push_keeps_partial_files_outside_the_snapshot(
    host: LocalShell, project: Path, tmp_path: Path
) -> None:
    (project / "big.bin").write_bytes(os.urandom(8 << 20))
    files, to = listing(project), snapshot(tmp_path, "a")
    argv = rsync.push_argv(host, project, str(to))
    argv.insert(1, "--bwlimit=2M")
    names = rsync.file_list(entry.path for entry in files.entries)

    def interrupt(progress: Progress) -> None:
        if progress.bytes > 1 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rsync.run_rsync(argv, names, interrupt)
    kept = to.parent / "partial/big.bin"
    eventually(kept.exists)
    assert kept.stat().st_size > 1 << 19
    assert not (to / "big.bin").exists()
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest()) is None


@pytest.mark.parametrize("change", ["vanished", "folder became file", "file became folder"])
def test_second_push_links_to_the_first(host: LocalShell, project: Path, tmp_path: Path, change: str) -> None:
    before, to = listing(project), snapshot(tmp_path, "a")
    upload.push(host, before, str(to))
    if change == "vanished":
        (project / "train.py").unlink()
    elif change == "folder became file":
        shutil.rmtree(project / "deep")
        (project / "deep").write_text("a file now")
    else:
        (project / "train.py").unlink()
        (project / "train.py").mkdir()
        (project / "train.py/inner").touch()
    listed = listing(project)
    first = to.rename(to.with_name("snapshot.before"))  # as the host does when the lists differ
    to.mkdir()
    upload.push(host, listed, str(to), [str(first)])
    assert manifest.difference(str(to), listed.manifest()) is None


def test_push_skips_files_that_vanished_after_the_list(host: LocalShell, project: Path, tmp_path: Path) -> None:
    files, to = listing(project), snapshot(tmp_path, "a")
    (project / "train.py").unlink()
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest())


def test_pushed_read_only_files_can_be_copied_and_removed(host: LocalShell, project: Path, tmp_path: Path) -> None:
    (project / "deep/er.py").chmod(0o444)
    (project / "deep").chmod(0o555)
    to = snapshot(tmp_path, "a")
    upload.push(host, listing(project), str(to))
    assert (to / "deep").stat().st_mode & 0o700 == 0o700
    assert (to / "deep/er.py").stat().st_mode & 0o600 == 0o600
    (project / "deep").chmod(0o755)


def test_push_keeps_the_executable_bit(host: LocalShell, project: Path, tmp_path: Path) -> None:
    (project / "run").touch(0o755)
    to = snapshot(tmp_path, "a")
    upload.push(host, listing(project), str(to))
    assert (to / "run").stat().st_mode & 0o111
    assert not (to / "train.py").stat().st_mode & 0o111


@pytest.mark.parametrize("code", [False, True])
def test_pull_fetches_unusual_names_and_no_link_that_leads_outside(
    host: LocalShell, tmp_path: Path, code: bool
) -> None:
    source, staging = tmp_path / "run dir", tmp_path / "staging"
    (source / "workspace").mkdir(parents=True)
    staging.mkdir()
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(source), b"workspace", name))).write_bytes(name)
    (source / "workspace/good").symlink_to("two words")
    (source / "workspace/evil").symlink_to("/etc/passwd")
    (source / "workspace/worse").symlink_to("../../elsewhere")
    asked = [b"workspace/" + name for name in (*NAMES, b"good", b"evil", b"worse", b"vanished")]
    exit_code, stderr = rsync.run_rsync(rsync.pull_argv(host, str(source), staging, code=code), rsync.file_list(asked))
    assert exit_code == 0, stderr
    assert set(os.listdir(os.fsencode(staging / "workspace"))) == {*NAMES, *([b"good"] if code else [])}


def test_pull_of_a_folder_that_became_a_link_writes_nothing_through_it(host: LocalShell, tmp_path: Path) -> None:
    """A job or a malicious host replaces the folder between the list and the transfer."""
    source, staging = tmp_path / "run", tmp_path / "staging"
    (source / "workspace/real").mkdir(parents=True)
    (source / "workspace/real/x").write_bytes(b"x")
    (source / "workspace/d").symlink_to("real")
    (staging / "workspace").mkdir(parents=True)
    for _ in range(2):  # the second transfer finds what the first one left
        rsync.run_rsync(
            rsync.pull_argv(host, str(source), staging), rsync.file_list([b"workspace/d", b"workspace/d/x"])
        )
    assert not any(path.is_symlink() for path in staging.rglob("*"))
    assert not (staging / "workspace/real").exists()


def test_lost_connection_is_retried(
    host: LocalShell, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpurun.sync.retry.time.sleep", lambda seconds: None)
    tries = tmp_path / "tries"
    # Of rsync's own tries only: the question whether there is an rsync goes the same way.
    count = f'case "$*" in *--server*) echo x >> {tries};; esac'
    host.says(f'{count}; [ $(wc -l < {tries}) -ge 3 ] || exit 255; exec sh -c "$*"')
    files, to = listing(project), snapshot(tmp_path, "a")
    upload.push(host, files, str(to))
    assert tries.read_text().count("x") == 3
    assert manifest.difference(str(to), files.manifest()) is None


def test_host_that_stays_unreachable_is_contact_lost(
    host: LocalShell, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpurun.sync.retry.time.sleep", lambda seconds: None)
    host.says("exit 255")
    with pytest.raises(ContactLost) as lost:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert lost.value.exit_code == 255


def test_host_without_rsync_is_an_error(host: LocalShell, project: Path, tmp_path: Path) -> None:
    host.says('PATH=/nowhere exec /bin/sh -c "$*"')
    with pytest.raises(RsyncError) as error:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert error.value.meaning == "missing"
    assert "apt install rsync" in error.value.next_step


def test_noisy_shell_error_names_the_startup_files(host: LocalShell, project: Path, tmp_path: Path) -> None:
    host.says('echo "Welcome to the machine"; exec sh -c "$*"')
    with pytest.raises(RsyncError) as error:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert error.value.meaning == "noisy_shell"
    assert "~/.bashrc" in error.value.next_step


def test_unreadable_file_is_named(host: LocalShell, project: Path, tmp_path: Path) -> None:
    to = snapshot(tmp_path, "a")
    files = FileList(project, listing(project).entries[:1])
    with pytest.raises(RsyncError) as error:
        upload.push(host, files, str(to / "not/there/at/all"))
    assert "not/there" in error.value.what


@pytest.mark.parametrize("code", [10, 12, 20, 30, 35, 255])
def test_exit_codes_of_a_broken_connection(host: LocalShell, code: int) -> None:
    assert isinstance(rsync_errors.error_of(host, code, ""), ContactLost)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("echo 'openrsync: protocol version 29, rsync version 2.6.9 compatible'", "openrsync"),
        ("echo 'rsync  version 3.0.9  protocol version 30'", "3.0.9"),
        (None, "not installed"),
    ],
)
def test_laptop_without_a_usable_rsync_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, says: str
) -> None:
    if program:
        (tmp_path / "rsync").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    rsync.check_local.cache_clear()
    with pytest.raises(GpurunError, match=says) as error:
        rsync.check_local()
    assert "brew install rsync" in error.value.next_step

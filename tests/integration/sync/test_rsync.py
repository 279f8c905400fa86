"""Sending and bringing files with the real rsync; the remote shell runs its commands on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.agent import manifest
from gpurun.errors import ContactLost, GpurunError
from gpurun.job.files import FileList
from gpurun.sync import rsync, rsync_errors, upload
from gpurun.sync.rsync import Progress, RsyncError
from tests.support.hostile import NAMES
from tests.unit.sync.test_rsync import LocalShell, host, listing, project

__all__ = ["host", "project"]

SECOND = 1_000_000_000


def snapshot(tmp_path: Path, run: str) -> Path:
    folder = tmp_path / "host's runs" / run / "snapshot"
    folder.mkdir(parents=True)
    return folder


def test_any_name_arrives_and_the_host_agrees(host: LocalShell, project: Path, tmp_path: Path) -> None:
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(project), b"deep", name))).write_bytes(name)
    for link, target in {"up": "train.py", "broken": "nowhere", "out": "/etc/hostname"}.items():
        (project / link).symlink_to(target)
    files, to = listing(project), snapshot(tmp_path, "first run")
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest()) is None
    assert [path.name for path in to.parent.iterdir()] == ["snapshot"]


def test_what_is_unchanged_is_linked_and_an_edit_within_the_same_second_is_seen(
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


def test_a_partial_snapshot_is_linked_too(host: LocalShell, project: Path, tmp_path: Path) -> None:
    """After an upload that broke off, only what never arrived is sent."""
    whole, partial, new = (snapshot(tmp_path, run) for run in ("whole", "partial", "new"))
    upload.push(host, listing(project), str(whole))
    (project / "big.bin").write_bytes(os.urandom(1 << 20))
    broken = FileList(project, tuple(entry for entry in listing(project).entries if entry.path == b"big.bin"))
    upload.push(host, broken, str(partial))
    seen: list[Progress] = []
    (project / "late.py").write_text("late")
    upload.push(host, listing(project), str(new), [str(whole), str(partial)], progress=seen.append)
    assert (new / "big.bin").samefile(partial / "big.bin")
    assert (new / "train.py").samefile(whole / "train.py")
    assert seen[-1].bytes == len("late")


def test_an_interrupted_push_keeps_what_came_and_leaves_the_snapshot_clean(
    host: LocalShell, project: Path, tmp_path: Path
) -> None:
    (project / "big.bin").write_bytes(os.urandom(8 << 20))
    files, to = listing(project), snapshot(tmp_path, "a")
    argv = rsync.push_argv(host, project, str(to))
    argv.insert(1, "--bwlimit=2M")
    names = rsync.listed(entry.path for entry in files.entries)

    def interrupt(progress: Progress) -> None:
        if progress.bytes > 1 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rsync.transfer(argv, names, interrupt)
    kept = to.parent / "partial/big.bin"
    wait_for(kept.exists)
    assert kept.stat().st_size > 1 << 19
    assert not (to / "big.bin").exists()
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest()) is None


def wait_for(happened: Callable[[], bool]) -> None:
    """The receiving rsync ends a moment after ours."""
    import time

    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("change", ["vanished", "folder became file", "file became folder"])
def test_a_second_list_goes_beside_the_first_and_links_to_it(
    host: LocalShell, project: Path, tmp_path: Path, change: str
) -> None:
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
    now = listing(project)
    first = to.rename(to.with_name("snapshot.before"))  # as the host does when the lists differ
    to.mkdir()
    upload.push(host, now, str(to), [str(first)])
    assert manifest.difference(str(to), now.manifest()) is None


def test_what_vanished_after_it_was_listed_is_for_the_host_to_tell(
    host: LocalShell, project: Path, tmp_path: Path
) -> None:
    files, to = listing(project), snapshot(tmp_path, "a")
    (project / "train.py").unlink()
    upload.push(host, files, str(to))
    assert manifest.difference(str(to), files.manifest())


def test_read_only_files_and_folders_can_be_copied_and_removed_there(
    host: LocalShell, project: Path, tmp_path: Path
) -> None:
    (project / "deep/er.py").chmod(0o444)
    (project / "deep").chmod(0o555)
    to = snapshot(tmp_path, "a")
    upload.push(host, listing(project), str(to))
    assert (to / "deep").stat().st_mode & 0o700 == 0o700
    assert (to / "deep/er.py").stat().st_mode & 0o600 == 0o600
    (project / "deep").chmod(0o755)


def test_programs_stay_executable(host: LocalShell, project: Path, tmp_path: Path) -> None:
    (project / "run").touch(0o755)
    to = snapshot(tmp_path, "a")
    upload.push(host, listing(project), str(to))
    assert (to / "run").stat().st_mode & 0o111
    assert not (to / "train.py").stat().st_mode & 0o111


@pytest.mark.parametrize("code", [False, True])
def test_pull_brings_names_of_any_kind_and_no_link_that_leads_out(host: LocalShell, tmp_path: Path, code: bool) -> None:
    source, staging = tmp_path / "run dir", tmp_path / "staging"
    (source / "workspace").mkdir(parents=True)
    staging.mkdir()
    for name in NAMES:
        Path(os.fsdecode(os.path.join(os.fsencode(source), b"workspace", name))).write_bytes(name)
    (source / "workspace/good").symlink_to("two words")
    (source / "workspace/evil").symlink_to("/etc/passwd")
    (source / "workspace/worse").symlink_to("../../elsewhere")
    asked = [b"workspace/" + name for name in (*NAMES, b"good", b"evil", b"worse", b"vanished")]
    ended, said = rsync.transfer(rsync.pull_argv(host, str(source), staging, code=code), rsync.listed(asked))
    assert ended == 0, said
    assert set(os.listdir(os.fsencode(staging / "workspace"))) == {*NAMES, *([b"good"] if code else [])}


def test_pull_of_a_folder_that_became_a_link_writes_nothing_behind_it(host: LocalShell, tmp_path: Path) -> None:
    """Between the list and the transfer, by a job or by a host that lies."""
    source, staging = tmp_path / "run", tmp_path / "staging"
    (source / "workspace/real").mkdir(parents=True)
    (source / "workspace/real/x").write_bytes(b"x")
    (source / "workspace/d").symlink_to("real")
    (staging / "workspace").mkdir(parents=True)
    for _ in range(2):  # the second transfer finds what the first one left
        rsync.transfer(rsync.pull_argv(host, str(source), staging), rsync.listed([b"workspace/d", b"workspace/d/x"]))
    assert not any(path.is_symlink() for path in staging.rglob("*"))
    assert not (staging / "workspace/real").exists()


def test_connection_losses_are_tried_again(
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


def test_a_host_that_stays_away_is_contact_lost(
    host: LocalShell, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpurun.sync.retry.time.sleep", lambda seconds: None)
    host.says("exit 255")
    with pytest.raises(ContactLost) as lost:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert lost.value.exit_code == 255


def test_no_rsync_on_the_host(host: LocalShell, project: Path, tmp_path: Path) -> None:
    host.says('PATH=/nowhere exec /bin/sh -c "$*"')
    with pytest.raises(RsyncError) as error:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert error.value.meaning == "missing"
    assert "apt install rsync" in error.value.next_step


def test_a_noisy_shell_names_the_files_to_mend(host: LocalShell, project: Path, tmp_path: Path) -> None:
    host.says('echo "Welcome to the machine"; exec sh -c "$*"')
    with pytest.raises(RsyncError) as error:
        upload.push(host, listing(project), str(snapshot(tmp_path, "a")))
    assert error.value.meaning == "noisy_shell"
    assert "~/.bashrc" in error.value.next_step


def test_a_file_that_cannot_be_sent_is_named(host: LocalShell, project: Path, tmp_path: Path) -> None:
    to = snapshot(tmp_path, "a")
    files = FileList(project, listing(project).entries[:1])
    with pytest.raises(RsyncError) as error:
        upload.push(host, files, str(to / "not/there/at/all"))
    assert "not/there" in error.value.what


@pytest.mark.parametrize("code", [10, 12, 20, 30, 35, 255])
def test_exit_codes_of_a_broken_connection(host: LocalShell, code: int) -> None:
    assert isinstance(rsync_errors.explain(host, code, ""), ContactLost)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("echo 'openrsync: protocol version 29, rsync version 2.6.9 compatible'", "openrsync"),
        ("echo 'rsync  version 3.0.9  protocol version 30'", "3.0.9"),
        (None, "no rsync"),
    ],
)
def test_a_laptop_without_a_usable_rsync(
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

"""What counts as written by the job, and in which order it comes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpurun.agent import file_names
from gpurun.agent.outputs import outputs
from tests.support.run_folder import LONG_AGO, RunFolder

HOSTILE = [b"a b", b"q'\"$(touch x)`y`", b"line\nbreak", b"-rf", b"\xff\xfe", b"*", b"caf\xc3\xa9", b"back\\slash"]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def found(run: RunFolder, *, with_caches: bool = False) -> outputs.Walk:
    return outputs.find_outputs(run.paths.workspace, run.paths.snapshot, with_caches=with_caches)


def names(run: RunFolder) -> list[bytes]:
    return sorted(path for path, _ in found(run).files)


def test_new_and_changed_files_are_outputs_and_unchanged_ones_are_not(run: RunFolder) -> None:
    run.submit("train.py", b"code")
    run.submit("config.yaml", b"lr: 1")
    run.write("config.yaml", b"lr: 2", at=LONG_AGO + 1)
    run.write("ckpt/best.ckpt", b"weights")
    assert names(run) == [b"ckpt/best.ckpt", b"config.yaml"]


def test_a_file_that_was_only_touched_is_not_an_output(run: RunFolder) -> None:
    run.submit("train.py", b"code")
    os.utime(run.root / "workspace" / "train.py", (LONG_AGO + 9, LONG_AGO + 9))
    assert names(run) == []


def test_what_the_job_deleted_is_not_told(run: RunFolder) -> None:
    run.submit("old.csv", b"1").unlink()
    result = found(run)
    assert (result.files, result.skipped) == ([], [])


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_travels_and_comes_back(run: RunFolder, name: bytes) -> None:
    run.write(name)
    run.write(b"folder " + name + b"/" + name)
    assert names(run) == sorted([name, b"folder " + name + b"/" + name])
    assert file_names.from_wire(file_names.to_wire(name)) == name


def test_caches_stay_unless_asked_for(run: RunFolder) -> None:
    for name in ("__pycache__/a.pyc", "pkg/b.pyc", ".cache/pip/x", "env/pyvenv.cfg", "env/lib/y", ".gpurun/tmp/z"):
        run.write(name)
    run.write("models/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55\n")
    result = found(run)
    assert result.files == []
    assert sorted(result.caches) == [".cache/", "__pycache__/", "env/", "models/", "pkg/b.pyc"]
    with_caches = [path for path, _ in found(run, with_caches=True).files]
    assert b".cache/pip/x" in with_caches
    assert b".gpurun/tmp/z" not in with_caches


@pytest.mark.parametrize(
    ("link", "target", "made"),
    [
        (b"last.ckpt", b"ckpt/epoch=3.ckpt", b"ckpt/epoch=3.ckpt"),
        (b"a/b/last", b"../../ckpt/x", b"../../ckpt/x"),
        (b"a/last", b"/workspace/ckpt/x", b"../ckpt/x"),
        (b"a/last", b"/workspace/../etc/passwd", None),
        (b"a/last", b"/workspaces/x", None),
        (b"a/last", b"b/../../../x", None),
        (b"passwd", b"/etc/passwd", None),
        (b"up", b"..", None),
        (b"a/here", b"..", b".."),
    ],
)
def test_links_stay_inside(link: bytes, target: bytes, made: bytes | None) -> None:
    assert outputs.inward_target(b"/host/runs/x/workspace", link, target) == made


def test_a_pipe_that_is_named_like_the_mark_of_a_cache_holds_nobody(run: RunFolder) -> None:
    run.write("models/x")
    os.mkfifo(run.root / "workspace/models/CACHEDIR.TAG")
    assert names(run) == [b"models/x"]


def test_a_link_to_the_hosts_own_path_of_the_workspace_is_made_relative(run: RunFolder) -> None:
    run.write("ckpt/x")
    (run.root / "workspace" / "last").symlink_to(run.root / "workspace" / "ckpt" / "x")
    assert found(run).links == [(b"last", "ckpt/x")]


def test_links_that_lead_out_pipes_and_unreadable_folders_are_told_and_stop_nothing(run: RunFolder) -> None:
    run.write("kept")
    (run.root / "workspace" / "home").symlink_to("/root")
    os.mkfifo(run.root / "workspace" / "pipe")
    result = found(run)
    assert [path for path, _ in result.files] == [b"kept"]
    assert {entry["path"]: entry["why"] for entry in result.skipped} == {
        "home": "a link that points outside the workspace, to /root",
        "pipe": "a socket, pipe or device",
    }


def test_a_link_to_a_folder_is_not_walked(run: RunFolder) -> None:
    run.write("real/x")
    (run.root / "workspace" / "alias").symlink_to("real")
    assert names(run) == [b"real/x"]


def test_a_job_that_never_began_wrote_nothing(run: RunFolder) -> None:
    (run.root / "workspace").rmdir()
    result = found(run)
    assert (result.files, result.skipped) == ([], [])


def test_small_and_precious_comes_first() -> None:
    big = outputs.SMALL_BYTES + 1
    in_order = [
        (b"logs/version_0/metrics.csv", big),
        (b"ckpt/best-epoch=3.ckpt", big),
        (b"ckpt/last.ckpt", big),
        (b"notes.md", 10),
        (b"ckpt/epoch=1.ckpt", big),
        (b"samples.tar", big),
    ]
    ranks = [outputs.rank(path, size) for path, size in in_order]
    assert ranks == sorted(set(ranks))


def test_gpuruns_own_folders_give_way_to_the_jobs(run: RunFolder) -> None:
    run.write("Outside/x")
    chosen = outputs.free_names(run.paths.workspace, ("_gpurun", "outside"))
    assert chosen == {"_gpurun": "_gpurun", "outside": "outside_"}

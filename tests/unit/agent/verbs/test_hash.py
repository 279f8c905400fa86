"""What the host says about a file's content, and when it does not vouch for it."""

from __future__ import annotations

import hashlib
import io
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.schema.files import FileHash
from gpurun.agent.state import completeness
from gpurun.agent.verbs import hash as verb
from tests.support.run_folder import RUN, RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def ask(run: RunFolder, path: str, **more: Any) -> FileHash:
    request: Any = {"run": RUN, "paths": [path], **more}
    return verb.answer(request, run.host)["hashes"][path]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_first_part_of_a_growing_file(run: RunFolder) -> None:
    run.write("log", b"line 1\nline 2\n", to="out")
    assert ask(run, "out/log", prefix={"out/log": 7})["prefix_sha256"] == sha(b"line 1\n")
    assert ask(run, "out/log", prefix={"out/log": 0})["prefix_sha256"] == sha(b"")
    assert ask(run, "out/log", prefix={"out/log": 99})["prefix_sha256"] is None


def test_a_file_written_a_moment_ago_is_not_vouched_for_while_the_run_lives(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completeness, "QUIET_SECONDS", 3600.0)
    run.write("x.bin", b"half", at=time.time())
    assert ask(run, "workspace/x.bin")["why"] == "it was written a moment ago"
    run.end()
    assert ask(run, "workspace/x.bin")["whole"] is True


@pytest.mark.parametrize(
    "path",
    ["ro/env", "../other/job.json", "workspace/../ro/env", "workspace", "/etc/passwd", "workspace//x", "", "out/"],
)
def test_nothing_but_what_is_fetched_is_read(run: RunFolder, path: str) -> None:
    run.write("env", b"SECRET=1", to="ro")
    assert ask(run, path)["sha256"] is None


def test_no_link_is_followed_anywhere_on_the_way(run: RunFolder) -> None:
    run.write("env", b"SECRET=1", to="ro")
    (run.root / "workspace" / "leak").symlink_to("../ro/env")
    (run.root / "workspace" / "folder").symlink_to("../ro")
    os.mkfifo(run.root / "workspace" / "pipe")
    for path in ("workspace/leak", "workspace/folder/env", "workspace/pipe", "workspace/gone"):
        assert ask(run, path)["sha256"] is None


def test_hash_tells_a_removed_file_from_one_that_cannot_be_read(run: RunFolder) -> None:
    (run.root / "workspace" / "leak").symlink_to("/etc/passwd")
    told = [ask(run, path)["gone"] for path in ("workspace/none", "workspace/none/x", "workspace/leak", "ro/env")]
    assert told == [True, True, False, False]


def test_what_the_job_did_not_live_to_finish_is_told_to_be_cut(run: RunFolder) -> None:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("data.pkl", b"x" * 10_000)
    run.write("last.ckpt", memory.getvalue()[:5_000])
    run.write("best.ckpt", memory.getvalue())
    run.end()
    told = [ask(run, f"workspace/{name}.ckpt") for name in ("last", "best")]
    assert [(entry["whole"], entry["cut"]) for entry in told] == [(True, True), (True, False)]

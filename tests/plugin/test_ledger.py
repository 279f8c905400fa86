"""checkpoints.jsonl of real trainings."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

import pytest

from tests.plugin.conftest import Job
from tests.support.waiting import eventually


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_ledger_has_checkpoints_of_callbacks_and_of_the_script(job: Callable[..., Job], package: str) -> None:
    training = job()
    old = training.workspace / "pretrained.ckpt"
    old.write_bytes(b"came with the project")
    time.sleep(1.2)
    training.train("saves.py", package)
    found = training.ledger()
    assert set(found) == {"best_model.ckpt", "weights.ckpt", "ck/last.ckpt", *(path for path in found if "val" in path)}
    assert len(found) == 5  # save_top_k=2
    for path, line in found.items():
        content = (training.workspace / path).read_bytes()
        assert (line["size"], line["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert line["mtime_ns"] == (training.workspace / path).stat().st_mtime_ns
        assert line["complete"] is True
    best = [line for line in found.values() if line["best"]]
    assert len(best) == 1
    assert (best[0]["monitor"], best[0]["mode"]) == ("val", "max")
    assert best[0]["value"] == max(line["value"] for line in found.values() if line["monitor"])
    assert [path for path, line in found.items() if line["last"]] == ["ck/last.ckpt"]
    assert (found["best_model.ckpt"]["epoch"], found["best_model.ckpt"]["step"]) == (3, 30)
    assert found["best_model.ckpt"]["monitor"] is None
    assert [path for path, line in found.items() if not line["resumable"]] == ["weights.ckpt"]
    assert not (training.out / "saving").exists()


def test_ledger_lists_a_checkpoint_during_the_training_and_its_removal(job: Callable[..., Job]) -> None:
    training = job()
    process = training.start("train.py", "--every", "5", "--epochs", "400", "--sleep", "0.05")
    eventually(lambda: "steps/step=5.ckpt" in training.ledger())
    (training.workspace / "steps" / "step=5.ckpt").unlink()
    eventually(lambda: "steps/step=5.ckpt" not in training.ledger())
    process.kill()


@pytest.mark.parametrize("after", [0.0, 0.2, 0.4])
def test_kill_during_a_save_leaves_no_wrong_line(job: Callable[..., Job], after: float) -> None:
    """The script overwrites its checkpoint slowly, again and again; every line must be of a complete file."""
    training = job()
    process = training.start("slow_save.py")
    eventually(lambda: len(training.ledger()) > 1 and (training.workspace / "versions").exists())
    time.sleep(after)
    process.kill()
    whole = set((training.workspace / "versions").read_text().split())
    lines = [line for line in training.lines("checkpoints.jsonl") if not line.get("removed")]
    assert lines
    assert {line["sha256"] for line in lines} <= whole
    # The next attempt takes up what the kill left: nothing torn is listed then either.
    training.train("slow_save.py", "0")
    for path, line in training.ledger().items():
        content = (training.workspace / path).read_bytes()
        if line["size"] == len(content) and line["mtime_ns"] == (training.workspace / path).stat().st_mtime_ns:
            assert hashlib.sha256(content).hexdigest() == line["sha256"]

"""What is known of checkpoints and metrics: told by a script that writes what the Lightning plugin would."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Laptop

SCRIPT = r"""
import hashlib, json, os, random, sys, time

steps, lr, pace = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
out, attempt = os.environ["GPURUN_OUT"], int(os.environ["GPURUN_ATTEMPT"])


def add(name, line):
    with open(os.path.join(out, name), "a") as file:
        file.write(json.dumps({"t": time.time(), "attempt": attempt, **line}) + "\n")


def save(path, step, **told):
    content = b"%d " % step + random.Random("%d %s" % (step, lr)).randbytes(2_000_000)
    with open(path, "wb") as file:  # not by a rename: a reader may see a half of it
        for at in range(0, len(content), 100_000):
            file.write(content[at : at + 100_000])
            file.flush()
            time.sleep(pace / 20)
    add("checkpoints.jsonl", {
        "path": path, "epoch": step // 10, "step": step, "monitor": "val_loss", "mode": "min", "value": 1 / step, "last": True,
        "best": False, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "complete": True,
        "mtime_ns": os.stat(path).st_mtime_ns, **told,
    })


for step in range(1, steps + 1):
    add("progress.jsonl", {
        "stage": "fit", "epoch": step // 10, "step": step, "max_epochs": steps // 10, "max_steps": None, "batch": step % 10,
        "batches": 10, "rate": 1 / pace if pace else None, "left": (steps - step) * 61.0, "fraction": step / steps,
        "metrics": {"val_loss": 1 / step, "lr": float(lr)},
    })
    save("last.ckpt", step)
    if step == 3:
        save("best.ckpt", step, best=True, last=False)
    time.sleep(pace)
add("progress.jsonl", {"stage": "test", "epoch": 0, "step": steps, "fraction": 1.0, "metrics": {"test_acc": 0.75}})
"""


@pytest.fixture(autouse=True)
def _script(laptop: Laptop) -> None:
    (laptop.project / "train.py").write_text(SCRIPT)


def off_line(laptop: Laptop) -> None:
    laptop.environment["GPURUN_SSH"] = "false"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def until_step(laptop: Laptop, run: str, step: int) -> None:
    while (laptop.json("status", run)["run"]["progress"] or {}).get("step", 0) < step:
        pass


def test_a_live_training_is_seen(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "1000", "0.1", "0.05")
    until_step(laptop, run, 4)
    header, line = listed(laptop, run)
    assert "PROGRESS" in header
    assert re.search(r"░ +\d+% epoch \d+/99 \d+h left", line), line
    shown = laptop.ok("status", run)
    assert re.search(r"progress  \d+%, epoch \d+/99, step \d+, 20 steps/s, \d+h", shown), shown
    assert "lr 0.1" in shown
    assert "best.ckpt (epoch 0, step 3, val_loss 0.33333)" in shown
    told = laptop.json("status", run)
    assert {"best.ckpt", "last.ckpt"} == {entry["path"] for entry in told["checkpoints"]}
    assert told["run"]["metrics"]["lr"] == 0.1


def test_checkpoints_of_a_live_training_come_whole(laptop: Laptop) -> None:
    """`last.ckpt` is written anew all the time, in place, and takes as long as it then stays."""
    run = laptop.submit("train.py", "--", "1000", "0.1", "0.8")
    until_step(laptop, run, 4)
    done = laptop.gpurun("fetch", "--best")
    assert done.code == 0, done.err
    best = Path(done.out.strip())
    assert best.read_bytes().startswith(b"3 ")
    assert f"{run}: val_loss 0.33333 (min), epoch 0, step 3, 2.0 MB" in done.err
    steps = []
    for _ in range(3):
        done = laptop.gpurun("fetch", "--last", "-o", "newest.ckpt", "-y", "--json")
        assert done.code == 0, done.err
        (last,) = json.loads(done.out)["checkpoints"]
        assert digest(laptop.project / "newest.ckpt") == last["sha256"]
        assert (laptop.project / "newest.ckpt").read_bytes().startswith(b"%d " % last["step"])
        steps.append(last["step"])
    assert steps == sorted(steps)


def listed(laptop: Laptop, run: str) -> list[str]:
    lines = laptop.ok("ps", "-H", "demo").splitlines()
    found = [lines[0], *(line for line in lines if line.startswith(run))]
    assert max(map(len, found)) <= 80
    return found


def test_which_and_compare_need_no_host(laptop: Laptop) -> None:
    slow = laptop.submit("train.py", "-n", "slow", "--", "12", "0.1", "0")
    fast = laptop.submit("train.py", "-n", "fast", "--", "11", "0.5", "0")
    laptop.ok("wait", slow, fast)
    best = Path(laptop.ok("fetch", "--best", slow).strip())
    renamed = laptop.project / "renamed.bin"
    renamed.write_bytes(best.read_bytes())
    laptop.ok("rm", "-y", fast)
    fast = laptop.submit("train.py", "-n", "fast", "--", "11", "0.5", "0")
    laptop.ok("wait", fast)
    off_line(laptop)

    shown = laptop.ok("which", "renamed.bin")
    assert f"renamed.bin is best.ckpt of {slow}" in shown
    assert "epoch 0, step 3" in shown
    assert "val_loss 0.33333 (min), the best until then" in shown
    assert "train.py 12 0.1 0" in shown
    (told,) = laptop.json("which", "renamed.bin")["files"]
    assert slow in {match["run"] for match in told["found"]}

    shown = laptop.ok("compare", slow, fast)
    rows = [line.split() for line in shown.splitlines()]
    assert ["*", "2", "0.1", "0.5"] in rows
    assert ["test_acc", "0.75", "0.75"] in rows
    assert ["*", "val_loss", "0.083333", "0.090909"] in rows
    one, other = csv.DictReader(io.StringIO(laptop.ok("compare", slow, fast, "--csv")))
    assert (one["result.best checkpoint"], other["metrics.lr"]) == ("best.ckpt", "0.5")
    assert laptop.gpurun("ps", "-a").out.count("succeeded ") == 2


def test_a_checkpoint_of_a_run_that_was_removed_is_still_known(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "5", "0.1", "0")
    laptop.ok("wait", run)
    best = laptop.ok("fetch", "--best", run).strip()
    laptop.ok("rm", "-y", run)
    assert f"best.ckpt of {run}" in laptop.ok("which", best)
    (laptop.project / "other").write_bytes(b"x")
    done = laptop.gpurun("which", "other")
    assert (done.code, "no run that is known here" in done.err) == (1, True)


def test_an_earlier_attempt_has_the_best_one(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "5", "0.1", "0")
    laptop.ok("wait", run)
    (laptop.project / "best.ckpt").write_bytes(b"mine")
    done = laptop.gpurun("resume", run)
    assert done.code == 2
    assert f"{run} has succeeded" in done.err
    laptop.ok("resume", run, "-y")
    laptop.ok("wait", run)
    (told,) = json.loads(laptop.ok("fetch", "--best", run, "--json"))["checkpoints"]
    assert Path(told["file"]).read_bytes().startswith(b"3 ")


def test_a_run_without_checkpoints_says_so(laptop: Laptop) -> None:
    (laptop.project / "plain.py").write_text("print('no training')")
    run = laptop.submit("plain.py")
    laptop.ok("wait", run)
    done = laptop.gpurun("fetch", "--best", run)
    assert (done.code, "does not use Lightning" in done.err) == (1, True)
    assert f"gpurun fetch {run} brings all" in done.err

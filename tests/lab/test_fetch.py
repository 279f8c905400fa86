"""Fetch and push as a user types them, against real hosts: one with an engine, one without."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.steps import until
from tests.lab.jobs import Jobs
from tests.support.faultproxy import FaultProxy

WRITES = """
import os, pathlib, sys
def write(name, content):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
print("epoch 1")
write("checkpoints/best.ckpt", b"best")
os.symlink(os.path.abspath("checkpoints/best.ckpt"), "checkpoints/last.ckpt")
os.symlink("/etc/passwd", "passwd")
write("logs/metrics.csv", b"step,loss\\n")
write("__pycache__/x.pyc", b"cache")
write("odd \\n name", b"odd")
"""
OUTSIDE = """
write("/tmp/plots/a b.png", b"png")
write("/tmp/pymp-x/y", b"no")
write("/var/tmp/result.json", b"{}")
"""


CHECKPOINT_OUTSIDE = """
import hashlib, json, time
write("/tmp/scratch/x.ckpt", b"far away")
line = {"path": "/tmp/scratch/x.ckpt", "complete": True, "best": True, "step": 1, "monitor": "loss", "mode": "min", "value": 1}
line.update(size=8, sha256=hashlib.sha256(b"far away").hexdigest())
with open(os.environ["GPURUN_OUT"] + "/checkpoints.jsonl", "a") as file:
    file.write(json.dumps(line) + "\\n")
time.sleep(600)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB on the laptop."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def submit(laptop: Laptop, project: Path, host: str, script: str = "train.py") -> str:
    told = laptop.gpurun("submit", script, "-H", host, "-f", "--json", cwd=project, timeout=900)
    return str(told.json["id"])


def test_what_a_container_wrote_comes_back_wherever_it_lies(host: LabHost, laptop: Laptop, pinned_image: None) -> None:
    project = laptop.project({"train.py": WRITES + OUTSIDE, "gpurun.toml": ""})
    run = submit(laptop, project, "ada")
    assert host.engine
    told = laptop.gpurun("fetch", cwd=project)
    folder = project / "fetched" / run
    assert told.stdout.strip() == str(folder)
    came = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {path for path in came if not path.startswith(("_gpurun/", ".gpurun/"))} == {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "logs/metrics.csv",
        "odd \n name",
        "outside/tmp/plots/a b.png",
        "outside/var/tmp/result.json",
    }
    assert (folder / "checkpoints/last.ckpt").readlink() == Path("best.ckpt")
    assert (folder / "_gpurun/log").read_text() == "epoch 1\n"
    assert "passwd: a link that points outside the workspace" in told.stderr
    assert host.engine.jobs() == []
    assert (project / "fetched/.gitignore").read_text() == "*\n"
    laptop.gpurun("rm", run, cwd=project)


def test_best_checkpoint_of_a_live_container_may_lie_in_it_alone(
    host: LabHost, laptop: Laptop, pinned_image: None
) -> None:
    project = laptop.project({"train.py": WRITES + CHECKPOINT_OUTSIDE, "gpurun.toml": ""})
    run = laptop.gpurun("submit", "train.py", "-H", "ada", cwd=project, timeout=900).stdout.strip()

    def is_saved() -> bool:  # and a moment ago, so that it counts as whole
        return laptop.gpurun("fetch", "--best", cwd=project, check=False).returncode == 0

    until(is_saved, step="saving a checkpoint", seconds=60)
    came = Path(laptop.gpurun("fetch", "--best", cwd=project).stdout.strip())
    assert came == project / "fetched" / run / "outside/tmp/scratch/x.ckpt"
    assert came.read_bytes() == b"far away"
    assert f"x.ckpt of {run}" in laptop.gpurun("which", str(came), cwd=project).stdout
    laptop.gpurun("stop", "--force", run, cwd=project)
    laptop.gpurun("rm", "-y", run, cwd=project)


def test_what_a_container_alone_held_is_gathered_at_the_end_and_outlives_the_engine(
    host: LabHost, laptop: Laptop, pinned_image: None
) -> None:
    project = laptop.project({"train.py": WRITES + OUTSIDE, "gpurun.toml": ""})
    run = submit(laptop, project, "ada")
    assert host.engine
    engine = host.engine
    until(lambda: engine.jobs() == [], step="the container goes", seconds=60)
    engine.docker("container", "prune", "--force")
    laptop.gpurun("fetch", "--only", "*.ckpt", cwd=project)
    assert not (project / "fetched" / run / "outside").exists()
    host.engine.stop()
    try:
        laptop.gpurun("fetch", run, cwd=project)
    finally:
        host.engine.start()
    assert (project / "fetched" / run / "outside/var/tmp/result.json").read_text() == "{}"
    assert (project / "fetched" / run / "logs/metrics.csv").exists()


def test_a_fetch_in_the_middle_of_a_run_and_one_that_watches(bare_host: LabHost, laptop: Laptop) -> None:
    script = """
import os, time
for epoch in range(8):
    print("epoch", epoch, flush=True)
    with open("new", "wb") as file:
        file.write(bytes([epoch]) * 3_000_000)
    os.replace("new", "last.bin")
    time.sleep(1)
"""
    project = laptop.project({"train.py": script, "gpurun.toml": ""})
    run = laptop.gpurun("submit", "train.py", "-H", "bare", cwd=project).stdout.strip()
    Jobs(laptop, bare_host, "bare").until_running(run)
    folder = project / "fetched" / run
    told = laptop.gpurun("fetch", "--json", cwd=project).json["runs"][0]
    assert told["live"]
    assert (folder / "_gpurun/log").read_text().startswith("epoch 0\n")
    laptop.gpurun("fetch", "--watch", run, cwd=project, timeout=60)
    assert set((folder / "last.bin").read_bytes()) == {7}
    assert (folder / "_gpurun/exit.json").exists()


def test_a_disk_that_is_full_says_so_and_loses_nothing(bare_host: LabHost, laptop: Laptop, small_disk: Path) -> None:
    script = (
        "import os\nopen('a.bin', 'wb').write(os.urandom(8_000_000))\nopen('b.bin', 'wb').write(os.urandom(30_000_000))"
    )
    project = laptop.project({"train.py": script, "gpurun.toml": ""})
    run = submit(laptop, project, "bare")
    to = small_disk / "to"
    laptop.gpurun("fetch", run, "-o", str(to), "--only", "a.bin", cwd=project)
    kept = hashlib.sha256((to / "a.bin").read_bytes()).hexdigest()
    failed = laptop.gpurun("fetch", run, "-o", str(to), cwd=project, check=False)
    assert failed.returncode == 125
    assert "disk of this machine is full" in failed.stderr
    assert "-o" in failed.stderr
    assert hashlib.sha256((to / "a.bin").read_bytes()).hexdigest() == kept
    assert not (to / "b.bin").exists()
    subprocess.run(["mount", "-o", "remount,size=80m", small_disk], check=True)
    laptop.gpurun("fetch", run, "-o", str(to), cwd=project)
    assert (to / "b.bin").stat().st_size == 30_000_000


def test_much_is_asked_about_and_the_largest_are_named(bare_host: LabHost, laptop: Laptop) -> None:
    script = "import os\nopen('huge.bin', 'wb').truncate(2_100_000_000)\nopen('small.csv', 'w').write('1')"
    project = laptop.project({"train.py": script, "gpurun.toml": ""})
    submit(laptop, project, "bare")
    refused = laptop.gpurun("fetch", cwd=project, check=False)
    assert refused.returncode == 2
    assert "2.1 GB  huge.bin" in refused.stderr
    assert "-y" in refused.stderr
    laptop.gpurun("fetch", "--only", "*.csv", cwd=project)


def test_every_run_that_was_not_fetched(bare_host: LabHost, laptop: Laptop) -> None:
    project = laptop.project({"train.py": WRITES, "gpurun.toml": ""})
    runs = {submit(laptop, project, "bare"), submit(laptop, project, "bare")}
    told = laptop.gpurun("fetch", "--all", "--json", cwd=project).json
    assert {one["id"] for one in told["runs"]} == runs
    assert all(one["whole"] for one in told["runs"])
    assert laptop.gpurun("fetch", "--all", "--json", cwd=project).json == {"runs": []}
    laptop.gpurun("fetch", *sorted(runs), "-o", "both", cwd=project)
    assert {path.name for path in (project / "both").iterdir()} == runs


def test_a_line_that_breaks_again_and_again_is_gone_on_with(bare_host: LabHost, laptop: Laptop, tmp_path: Path) -> None:
    script = "import os\nopen('model.ckpt', 'wb').write(os.urandom(40_000_000))"
    project = laptop.project({"train.py": script, "gpurun.toml": ""})
    with FaultProxy(bare_host.sshd.port, rate=20e6) as proxy:
        laptop.add_alias("shaky", port=proxy.port)
        laptop.trust_port(proxy.port, like="bare")
        run = submit(laptop, project, "shaky")
        for _ in range(20):
            proxy.reset_after(15_000_000)
            if laptop.gpurun("fetch", run, cwd=project, check=False, timeout=200).returncode == 0:
                break
        came = (project / "fetched" / run / "model.ckpt").read_bytes()
        assert sum(each.down for each in proxy.traffic) < 2 * len(came)
    there = bare_host.home() / ".gpurun/runs" / run / "workspace/model.ckpt"
    assert came == there.read_bytes()


def test_pushed_data_is_found_by_a_job_that_names_it(host: LabHost, laptop: Laptop, pinned_image: None) -> None:
    reads = "print(open('/data/words/a b').read())"
    project = laptop.project({"train.py": reads, "words/a b": "hello", "gpurun.toml": 'data = ["words"]\n'})
    unknown = laptop.gpurun("submit", "train.py", "-H", "ada", cwd=project, check=False)
    assert unknown.returncode == 2
    pushed = laptop.gpurun("push", "words", "ada:words", "--json", cwd=project).json
    assert (pushed["files"], pushed["bytes"]) == (1, 5)
    followed = laptop.gpurun("submit", "train.py", "-H", "ada", "-f", cwd=project, timeout=300)
    assert followed.stdout.endswith("hello\n")


def test_fetch_when_a_follow_has_ended(bare_host: LabHost, laptop: Laptop) -> None:
    project = laptop.project({"train.py": WRITES, "gpurun.toml": ""})
    followed = laptop.gpurun("submit", "train.py", "-H", "bare", "-f", "--fetch", "--json", cwd=project)
    run = json.loads(followed.stdout)["id"]
    assert (project / "fetched" / run / "checkpoints/best.ckpt").read_bytes() == b"best"

"""Notebooks as batch runs in real containers, and from a real Jupyter session."""

from __future__ import annotations

import json
import shutil
import urllib.request
from urllib.parse import parse_qs, urlsplit

from gpurun.agent import vocabulary as words
from tests.lab.host.laptop import REPOSITORY, Laptop
from tests.lab.jobs import Jobs
from tests.support.notebook_text import of

TRAINING = """\
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

trainer = Trainer(max_steps=4, accelerator="cpu", devices=2, logger=False, enable_progress_bar=False)
trainer.fit(BoringModel())
print("rank", trainer.global_rank, "of", trainer.world_size, flush=True)"""
TABLE = "class Table:\n    def _repr_html_(self):\n        return '<td>1</td>'\n\n\nTable()"


def test_notebook_trains_in_two_processes_and_shows_once(jobs: Jobs, laptop: Laptop) -> None:
    project = laptop.project({"gpurun.toml": "", "tries/study.ipynb": of(TRAINING, TABLE)})
    done = laptop.gpurun(
        "submit", "tries/study.ipynb", "-H", "ada", "-g", "2", "-e", "OMP_NUM_THREADS=1", "-f", "--fetch",
        cwd=project, timeout=900,
    )  # fmt: skip
    run, *log = done.stdout.splitlines()
    assert sorted(line for line in log if line.startswith("rank ")) == ["rank 0 of 2", "rank 1 of 2"]
    assert log.count("[cell 2] shown in notebook/cell-02-1.html") == 1
    fetched = project / "fetched" / run / "notebook"
    assert sorted(path.name for path in fetched.iterdir()) == ["cell-02-1.html", "study.py"]


def test_example_installs_its_requirements_and_draws(jobs: Jobs, laptop: Laptop) -> None:
    project = laptop.home / "work/notebook"
    shutil.copytree(REPOSITORY / "examples/notebook", project)
    done = laptop.gpurun(
        "submit", "train.ipynb", "-H", "ada", "-g", "0", "-e", "EPOCHS=2", "-f", "--fetch", cwd=project, timeout=900
    )
    fetched = project / "fetched" / done.stdout.splitlines()[0]
    assert (fetched / "notebook/cell-04-1.png").read_bytes()[:4] == b"\x89PNG"
    assert (fetched / "checkpoints/best.ckpt").is_file()


def test_notebook_of_a_jupyter_session_becomes_a_run(jobs: Jobs, laptop: Laptop) -> None:
    project = laptop.project({"gpurun.toml": "", "helper.py": "NAME = 'of the laptop'\n"})
    opened = laptop.gpurun("tunnel", "--jupyter", "-H", "ada", "-g", "0", "-d", "--json", cwd=project, timeout=900)
    (listener,) = json.loads(opened.stdout)["listeners"]
    session = listener["run"]
    try:
        _save(listener["url"], "tries.ipynb", of("import helper\nprint(helper.NAME, helper.__file__)"))
        jobs.ask("shell", session, "--", "sh", "-c", "echo \"NAME = 'changed there'\" > helper.py")
        done = laptop.gpurun("submit", f"{session}:tries.ipynb", "-g", "0", "-f", cwd=project, timeout=300)
        assert done.stdout.splitlines()[1:] == ["changed there /workspace/helper.py"]
        assert f"tries.ipynb as it is in {session}, and changed there: helper.py" in done.stderr
        assert sorted(path.name for path in project.iterdir()) == ["gpurun.toml", "helper.py"]
        assert jobs.record(session)["state"] == words.RUNNING
    finally:
        laptop.gpurun("tunnel", "--all", check=False)
        laptop.gpurun("stop", "--force", session)


def _save(url: str, name: str, text: str) -> None:
    """Save a notebook as Jupyter's page does; `url` is the tunnel's URL with its token."""
    address = urlsplit(url)
    told = {"type": "notebook", "format": "json", "content": json.loads(text)}
    request = urllib.request.Request(
        f"http://{address.netloc}/api/contents/{name}",
        data=json.dumps(told).encode(),
        method="PUT",
        headers={"Authorization": f"token {parse_qs(address.query)['token'][0]}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.status == 201

"""`gpurun submit train.ipynb`, from the laptop and from a session on the host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ON_HOST, Laptop
from tests.support.notebook_text import of


def write(path: Path, *cells: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(of(*cells))


def test_notebook_runs_and_its_figures_are_fetched(laptop: Laptop) -> None:
    write(
        laptop.project / "notebooks" / "study.ipynb",
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nimport sys, helper",
        "plt.plot([1, 2]);",
        "helper.double(int(sys.argv[1]))",
    )
    (laptop.project / "helper.py").write_text("def double(n):\n    return 2 * n\n")
    before = sorted(laptop.project.rglob("*"))
    done = laptop.gpurun("submit", "notebooks/study.ipynb", *ON_HOST, "-f", "--", "21")
    assert done.code == 0, done.err
    run, *log = done.out.splitlines()
    assert run.startswith("study-")
    assert log == ["[cell 2] shown in notebook/cell-02-1.png", "42"]
    assert sorted(laptop.project.rglob("*")) == before, "the project was written to"
    laptop.ok("fetch", run)
    fetched = laptop.project / "fetched" / run / "notebook"
    assert sorted(path.name for path in fetched.iterdir()) == ["cell-02-1.png", "study.py"]


def test_failure_has_the_cell(laptop: Laptop) -> None:
    write(laptop.project / "study.ipynb", "x = 0", "y = 1\n1 / x")
    done = laptop.gpurun("submit", "study.ipynb", *ON_HOST, "-f")
    assert done.code == 1
    assert 'File "study.ipynb, cell 2", line 2, in <module>' in done.out
    shown = laptop.ok("status", done.out.split()[0])
    assert "study.ipynb, cell 2" in shown
    assert "ZeroDivisionError" in shown


def test_unsupported_cell_is_refused_before_anything_is_sent(laptop: Laptop) -> None:
    write(laptop.project / "study.ipynb", "x = 1", "%%R\nplot(x)")
    laptop.environment["GPURUN_SSH"] = "/bin/false"
    done = laptop.gpurun("submit", "study.ipynb", *ON_HOST)
    assert done.code == 2
    assert "cell 2: %%R has no meaning without Jupyter" in done.err
    assert "Traceback" not in done.err


def test_notebook_that_git_ignores_runs(laptop: Laptop) -> None:
    write(laptop.project / "study.ipynb", "print('ran')")
    (laptop.project / ".gitignore").write_text("*.ipynb\n")
    assert laptop.gpurun("submit", "study.ipynb", *ON_HOST, "-f").out.splitlines()[1:] == ["ran"]


def test_dry_run_lists_the_requirements(laptop: Laptop) -> None:
    write(laptop.project / "study.ipynb", "%pip install einops\n%timeit f()")
    laptop.environment["GPURUN_SSH"] = "/bin/false"
    plan = json.loads(laptop.ok("submit", "study.ipynb", "-H", "demo", "--dry-run", "--json"))
    assert plan["job"]["dependencies"] == {"kind": "pyproject", "file": "study.ipynb", "requirements": ["einops"]}
    assert plan["command"] == ["python", "notebook/study.py"]
    assert any("einops" in note for note in plan["notes"])
    (laptop.project / "requirements.txt").write_text("rich\n")
    plan = json.loads(laptop.ok("submit", "study.ipynb", "-H", "demo", "--dry-run", "--json"))
    assert plan["job"]["dependencies"] == {"kind": "requirements", "file": "requirements.txt", "tools": ["einops"]}


@pytest.fixture
def session(laptop: Laptop) -> tuple[str, Path]:
    """Make a run that looks like a Jupyter session, and its workspace. Work in a session is files.

    Jupyter itself is tried in tests/lab; here the run is told to be one in the laptop's index.
    """
    (laptop.project / "helper.py").write_text("NAME = 'of the laptop'\n")
    (laptop.project / "other.py").write_text("NAME = 'other, before'\n")
    run = laptop.submit("train.py", "-n", "jupyter", "--", "300", "0")
    laptop.until(run, "running")
    workspace = Path(laptop.ok("path", run).strip().partition(":")[2])
    entry = laptop.home / ".local/share/gpurun/runs" / f"{run}.json"
    known = json.loads(entry.read_text())
    known["job"]["service"] = {"kind": "jupyter", "run": None, "title": "", "idle": 1}
    entry.write_text(json.dumps(known))
    return run, workspace


def test_notebook_of_a_session_runs_with_its_changed_files(laptop: Laptop, session: tuple[str, Path]) -> None:
    run, workspace = session
    write(workspace / "tries" / "study.ipynb", "import helper, other\nprint(helper.NAME, '|', other.NAME)")
    (workspace / "helper.py").write_text("NAME = 'changed in the session'\n")
    (workspace / "weights.ckpt").write_bytes(b"x" * 1000)
    (laptop.project / "other.py").write_text("NAME = 'other, changed here since'\n")
    done = laptop.gpurun("submit", f"{run}:tries/study.ipynb", *ON_HOST, "-f")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1:] == ["changed in the session | other, changed here since"]
    assert f"tries/study.ipynb as it is in {run}, and changed there: helper.py" in done.err
    assert (laptop.project / "helper.py").read_text() == "NAME = 'of the laptop'\n"
    assert not (laptop.project / "tries").exists()
    batch = done.out.split()[0]
    snapshot = workspace.parents[1] / batch / "snapshot"
    there = sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())
    assert there == ["gpurun.toml", "helper.py", "other.py", "train.py", "tries/study.ipynb"]


def test_notebook_that_is_not_in_the_session_is_an_error(laptop: Laptop, session: tuple[str, Path]) -> None:
    run, workspace = session
    write(workspace / "study.ipynb", "x = 1")
    done = laptop.gpurun("submit", f"{run}:stduy.ipynb", *ON_HOST)
    assert done.code == 2
    assert "there is no notebook stduy.ipynb in the workspace" in done.err
    assert "study.ipynb" in done.err
    assert laptop.gpurun("submit", f"{run}:../../x.ipynb", *ON_HOST).code == 2


def test_run_that_is_not_a_session_is_an_error(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    done = laptop.gpurun("submit", f"{run}:study.ipynb", *ON_HOST)
    assert done.code == 2
    assert "is no Jupyter session" in done.err

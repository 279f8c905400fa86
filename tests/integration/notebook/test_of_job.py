"""The notebook of a job: where it is read, what it installs, and the files of a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gpurun.commands import notebook_session
from gpurun.commands.submit import make_plan
from gpurun.config import hosts
from gpurun.config.load import Loaded, load
from gpurun.config.session import Session
from gpurun.errors import UsageError
from gpurun.job.files import list_files
from gpurun.notebook import of_job
from tests.support.notebook_text import of


@pytest.fixture
def project(home: Path) -> Path:
    root = home / "vision"
    root.mkdir()
    (root / "gpurun.toml").touch()
    (root / "helper.py").write_text("NAME = 'laptop'\n")
    (root / "train.ipynb").write_text(of("%pip install einops rich", "x = 1"))
    hosts.add("box", {})
    return root


def loaded(project: Path, script: str = "train.ipynb") -> Loaded:
    return load({}, script, project)


def brought(project: Path, tmp_path: Path) -> Session:
    root = tmp_path / "brought"
    (root / "tries").mkdir(parents=True)
    (root / "tries/new.ipynb").write_text(of("y = 2"))
    (root / "helper.py").write_text("NAME = 'session'\n")
    return Session("jupyter-7f3k", "box", project, "tries/new.ipynb", root, ("tries/new.ipynb", "helper.py"))


def test_job_contains_the_script(project: Path) -> None:
    job = make_plan(loaded(project)).job
    assert job["notebook"] is not None
    assert job["script"] == "train.ipynb"
    assert job["command"] == ["python", "notebook/train.py"]
    assert (job["notebook"]["path"], job["notebook"]["script"]) == ("train.ipynb", "train.py")
    assert "__gpurun__.cell(2)\nx = 1" in job["notebook"]["source"]
    assert job["name"] == "train"


def test_read_of_another_script_is_none(project: Path) -> None:
    assert of_job.read(loaded(project, "helper.py")) is None
    assert make_plan(loaded(project, "helper.py")).job["notebook"] is None


def test_pip_lines_are_added_to_the_projects_dependencies(project: Path) -> None:
    alone = {"kind": "pyproject", "file": "train.ipynb", "requirements": ["einops", "rich"]}
    assert make_plan(loaded(project)).job["dependencies"] == alone
    (project / "requirements.txt").write_text("timm\n")
    plan = make_plan(loaded(project))
    both = {"kind": "requirements", "file": "requirements.txt", "tools": ["einops", "rich"]}
    assert plan.job["dependencies"] == both
    assert (
        "its pip lines are left out (einops, rich): the host installs them with the project's dependencies"
        in plan.notes
    )


def test_notes_of_a_job_that_installs_nothing(project: Path) -> None:
    (project / "gpurun.toml").write_text("dependencies = false\n")
    plan = make_plan(loaded(project))
    assert plan.job["dependencies"] is None
    assert "its pip lines are left out (einops, rich): dependencies = false" in plan.notes


def test_missing_notebook_is_an_error(project: Path) -> None:
    (project / "job.toml").write_text('script = "trian.ipynb"')
    with pytest.raises(UsageError, match=r"there is no notebook trian\.ipynb in the project"):
        make_plan(loaded(project, "job.toml"))


def test_files_of_a_session_override_the_project(project: Path, tmp_path: Path) -> None:
    came = brought(project, tmp_path)
    asked = replace(load({"script": came.notebook}, None, project), session=came)
    plan = make_plan(asked)
    assert [entry.path for entry in plan.files.entries] == [
        b"gpurun.toml", b"helper.py", b"train.ipynb", b"tries/new.ipynb",
    ]  # fmt: skip
    assert plan.job["notebook"] is not None
    assert "y = 2" in plan.job["notebook"]["source"]
    assert "tries/new.ipynb as it is in jupyter-7f3k, and changed there: helper.py" in plan.notes
    sizes = {entry.path: entry.size for entry in plan.files.entries}
    assert sizes[b"helper.py"] == len("NAME = 'session'\n")


def test_each_part_is_sent_from_its_own_folder(project: Path, tmp_path: Path) -> None:
    came = brought(project, tmp_path)
    files = notebook_session.laid_over(list_files(load({}, "helper.py", project).project), came)
    theirs, own = notebook_session.parts(files, came)
    assert (theirs.root, [entry.path for entry in theirs.entries]) == (project, [b"gpurun.toml", b"train.ipynb"])
    assert (own.root, [entry.path for entry in own.entries]) == (came.root, [b"helper.py", b"tries/new.ipynb"])


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("jupyter-7f3k:train.ipynb", True),
        ("jup:a/b c.ipynb", True),
        ("train.ipynb", False),
        (":train.ipynb", False),
        ("jupyter-7f3k:train.py", False),
        ("odd:name.ipynb", False),
    ],
)
def test_target_of_a_session(project: Path, target: str, meant: bool) -> None:
    (project / "odd:name.ipynb").touch()
    assert notebook_session.is_meant(target, project) is meant

"""What is found to install, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.config.project import find_project
from gpurun.errors import UsageError
from gpurun.job.dependencies import Dependencies, find_dependencies
from gpurun.job.files import list_files

PYPROJECT = '[project]\nname = "x"\ndependencies = ["rich>=13", "einops"]\n'


def find(root: Path, files: dict[str, str], **options: Any) -> Dependencies:
    (root / "gpurun.toml").touch()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return find_dependencies(list_files(find_project(root)), **options)


def test_a_lock_comes_before_requirements_before_pyproject(tmp_path: Path) -> None:
    files = {"uv.lock": "version = 1", "requirements.txt": "rich", "pyproject.toml": PYPROJECT, "environment.yml": "x"}
    assert find(tmp_path, files).job == {"kind": "uv", "file": "uv.lock"}
    (tmp_path / "uv.lock").unlink()
    assert find(tmp_path, {}).job == {"kind": "requirements", "file": "requirements.txt"}
    (tmp_path / "requirements.txt").unlink()
    wanted = {"kind": "pyproject", "file": "pyproject.toml", "requirements": ["rich>=13", "einops"]}
    assert find(tmp_path, {}).job == wanted


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"requirements.txt": "# nothing yet\n\n"},
        {"pyproject.toml": "[tool.ruff]\n"},
        {"pyproject.toml": "[project]\nname = 'x'\ndependencies = []\n"},
        {"docs/requirements.txt": "sphinx"},
    ],
)
def test_nothing_to_install(tmp_path: Path, files: dict[str, str]) -> None:
    assert find(tmp_path, files) == Dependencies()


def test_an_empty_requirements_file_gives_way(tmp_path: Path) -> None:
    found = find(tmp_path, {"requirements.txt": "#\n", "pyproject.toml": PYPROJECT})
    assert found.job is not None
    assert found.job["kind"] == "pyproject"


def test_told_to_install_nothing_or_something_else(tmp_path: Path) -> None:
    files = {"requirements.txt": "rich", "requirements/train.txt": "einops"}
    assert find(tmp_path, files, wanted=False) == Dependencies()
    named = find(tmp_path, files, wanted="./requirements/train.txt").job
    assert named == {"kind": "requirements", "file": "requirements/train.txt"}


def test_a_named_file_must_travel(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        find(tmp_path, {}, wanted="requirements/train.txt")
    with pytest.raises(UsageError, match="conda"):
        find(tmp_path, {"environment.yml": "x"}, wanted="environment.yml")


def test_a_file_that_stays_on_the_laptop_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ignored by git") as error:
        find(tmp_path, {".gitignore": "*.txt\n", "requirements.txt": "rich"})
    assert "!/requirements.txt" in error.value.next_step


def test_conda_gets_an_answer_that_names_the_way(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"environment\.yml is for conda") as error:
        find(tmp_path, {"environment.yml": "name: x"})
    assert "requirements.txt" in error.value.next_step
    assert "image" in error.value.next_step
    found = find(tmp_path, {}, own_image=True)
    assert found.job is None
    assert found.note is not None


def test_poetry_gets_a_note(tmp_path: Path) -> None:
    found = find(tmp_path, {"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.11"\nrich = "*"\n'})
    assert found.job is None
    assert "poetry export" in str(found.note)


@pytest.mark.parametrize(
    ("files", "needed"),
    [
        ({"requirements.txt": "lib @ git+ssh://git@example.org/ada/lib.git"}, True),
        ({"requirements.txt": "lib @ git+https://example.org/ada/lib.git"}, False),
        (
            {"requirements.txt": "-r more/base.txt\n", "more/base.txt": "-r ../last.txt", "last.txt": "git+ssh://x/y"},
            True,
        ),
        ({"requirements.txt": "-r requirements.txt\n--requirement=gone.txt"}, False),
        ({"uv.lock": 'source = { git = "ssh://git@example.org/ada/lib.git" }'}, True),
        ({"pyproject.toml": '[project]\nname="x"\ndependencies=["lib @ git+ssh://git@example.org/lib"]'}, True),
    ],
)
def test_the_ssh_agent_is_needed(tmp_path: Path, files: dict[str, str], needed: bool) -> None:
    assert find(tmp_path, files).needs_agent is needed


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"pyproject\.toml"):
        find(tmp_path, {"pyproject.toml": "[project\n"})
    with pytest.raises(UsageError, match="wants a list"):
        find(tmp_path, {"pyproject.toml": '[project]\nname = "x"\ndependencies = "rich"\n'})

"""Reading requirements: what is dropped, what contradicts the base, what is there already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.images import layer_install as install
from gpurun.agent.images.layer_install import Conflict

HELD: Any = {"torch": "2.8.0+cu128", "torchvision": "0.23.0", "nvidia-cublas-cu12": "12.8.4.1", "triton": "3.4.0"}


def order(project: Path, **more: Any) -> Any:
    return {"kind": "requirements", "file": "requirements.txt", "project": str(project), "where": "the image", **more}


def sort(project: Path, *lines: str) -> install.Sorted:
    return install.sort_out([(str(project), line) for line in lines], order(project), HELD)


def test_files_are_read_with_those_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "requirements.txt").write_text(
        "# all\nrich>=13 \\\n  ,<15  # why\n-r more/dev.txt\n--constraint=pins.txt\n-r requirements.txt\n\n"
    )
    (tmp_path / "more/dev.txt").write_text("./wheels/a.whl\n-r ../base.txt\r\n")
    (tmp_path / "base.txt").write_text("lightning # x\nname#1\n")
    (tmp_path / "pins.txt").write_text("numpy<2\n")
    assert list(install.read_lines(str(tmp_path / "requirements.txt"))) == [
        (str(tmp_path), "rich>=13    ,<15"),
        (str(tmp_path / "more"), "./wheels/a.whl"),
        (str(tmp_path), "lightning"),
        (str(tmp_path), "name#1"),
        (str(tmp_path), "-c numpy<2"),
    ]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (".", "/p"),
        ("-e .", "/p"),
        ("-e .[dev]", "/p"),
        ("--editable=./libs/a", "/p/libs/a"),
        ("file:.", "/p"),
        ("file:///abs/a-1.whl", "/abs/a-1.whl"),
        ("wheels/a-1.0-py3-none-any.whl", "/p/wheels/a-1.0-py3-none-any.whl"),
        ("a @ file:wheels/a.whl", "/p/wheels/a.whl"),
        ("../other ; python_version > '3'", "/other"),
        ("rich>=13", None),
        ("git+ssh://git@github.com/a/b.git@v1", None),
        ("https://x/a-1.0-py3-none-any.whl", None),
        ("a @ git+https://github.com/a/b", None),
    ],
)
def test_what_is_local(line: str, path: str | None) -> None:
    assert install.local_path(line, "/p") == path


def test_the_project_itself_is_left_out_with_a_note(tmp_path: Path) -> None:
    found = sort(tmp_path, "-e .", ".[train]", "rich")
    assert found.lines == ["rich"]
    assert len(found.notes) == 2


def test_what_the_base_holds_is_left_out(tmp_path: Path) -> None:
    found = sort(
        tmp_path,
        "torch==2.8.0",
        "torch>=2.0 --hash=sha256:1",
        "TorchVision",
        "nvidia_cublas-cu12==1.0",
        "triton==9",
        "-c torch<3",
    )
    assert (found.lines, found.constraints) == ([], [])


def test_lines_of_other_platforms_and_pythons_are_left_out(tmp_path: Path) -> None:
    assert sort(tmp_path, "torch==9 ; sys_platform == 'win32'", "rich ; python_version < '3'").lines == []


@pytest.mark.parametrize("line", ["torch>=2.9", "torch==2.9.1 --hash=sha256:1", "torch @ https://x/torch-2.9.whl"])
def test_another_torch_is_a_conflict(tmp_path: Path, line: str) -> None:
    with pytest.raises(Conflict) as conflict:
        sort(tmp_path, line)
    asked = line.partition(" --")[0]
    assert str(conflict.value) == f"requirements.txt requires {asked}, but the image has torch 2.8.0+cu128"


def test_a_base_without_torch_holds_nothing(tmp_path: Path) -> None:
    found = install.sort_out([(str(tmp_path), "torch>=2.9")], order(tmp_path), {})
    assert found.lines == ["torch>=2.9"]


def test_options_and_repositories_go_to_pip(tmp_path: Path) -> None:
    found = sort(tmp_path, "--find-links ./wheels", "--pre", "-e git+ssh://git@x/a.git#egg=a", "-f https://x/links")
    assert found.lines == [
        f"--find-links {tmp_path}/./wheels",
        "--pre",
        "git+ssh://git@x/a.git#egg=a",
        "-f https://x/links",
    ]
    assert found.local  # a name that nobody can look up: pip has to


def test_a_local_package_is_copied_before_it_is_built(tmp_path: Path) -> None:
    package = tmp_path / "libs/a"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text("")
    found = sort(tmp_path, "-e ./libs/a")
    assert found.lines != [str(package)]
    assert (Path(found.lines[0]) / "pyproject.toml").exists()


@pytest.mark.parametrize(
    ("requirement", "there"),
    [
        ("pytest", True),
        ("pytest>=1", True),
        ("pytest>=999", False),
        ("no-such-thing-anywhere", False),
        ("pytest @ https://x/pytest.whl", False),
        ("pytest[no-such-extra]", True),
    ],
)
def test_what_is_there_already(requirement: str, there: bool) -> None:
    parsed = install.packaging().Requirement(requirement)
    assert install.is_satisfied([parsed], {}) == there


def test_pips_paragraph_about_a_conflict_becomes_a_line() -> None:
    said = """ERROR: Cannot install modern==1.0 because these package versions have conflicting dependencies.

The conflict is caused by:
    modern 1.0 depends on torch>=2.9
    The user requested (constraint) torch==2.8.0

To fix this you could try to:
"""
    assert install.explain_conflict(said) == "modern 1.0 depends on torch>=2.9; the base has torch==2.8.0"
    assert install.explain_conflict("ERROR: No matching distribution found for x") is None


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Collecting x\nERROR: Could not find x\nERROR: No matching distribution found for x\n",
         "ERROR: Could not find x ERROR: No matching distribution found for x"),
        ("one\ntwo\nthree\n", "two three"),
        ("", "it printed nothing"),
    ],
)  # fmt: skip
def test_the_lines_that_name_a_cause(said: str, line: str) -> None:
    assert install.explain(said) == line

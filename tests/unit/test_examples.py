"""The examples and job files as text: what must hold before anything trains (tests/demo trains them)."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gpurun.config.readers import values
from gpurun.config.schema import JOB_FILE_ONLY, JobConfig
from gpurun.notebook.convert import convert

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (CHECKOUT / "examples").glob("*/train.*"))
JOBS = sorted((CHECKOUT / "jobs").glob("*.toml"))


def by_name(path: Path) -> str:
    return path.name


def requirements(example: Path) -> dict[str, Requirement]:
    lines = (example / "requirements.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in parsed}


def modules(example: Path) -> list[ast.Module]:
    """All of its code; a notebook's as the script that it becomes."""
    notebook = example / "train.ipynb"
    scripts = [convert(notebook.read_text(), notebook.name).source] if notebook.exists() else []
    return [ast.parse(text) for text in [*(path.read_text() for path in example.rglob("*.py")), *scripts]]


def test_all_examples_are_seen() -> None:
    assert [path.name for path in EXAMPLES] == ["bare", "cifar10", "defects", "digits", "mnist", "notebook"]
    assert {job.stem for job in JOBS} >= {"cifar10", "defects", "digits", "mnist", "notebook"}


@pytest.mark.parametrize("example", EXAMPLES, ids=by_name)
def test_the_shape(example: Path) -> None:
    script = "train.ipynb" if example.name == "notebook" else "train.py"
    for name in (script, "predict.py", "models/__init__.py", "data/__init__.py", "requirements.txt", "gpurun.toml"):
        assert (example / name).is_file()
    readme = (example / "README.md").read_text()
    assert readme.startswith(f"# {example.name}\n")
    assert "predict.py fetched/<run-id>/checkpoints/best.ckpt" in readme


@pytest.mark.parametrize("example", EXAMPLES, ids=by_name)
def test_every_package_that_is_imported_is_required(example: Path) -> None:
    named = {"sklearn": "scikit-learn"}
    imported = set()
    for module in modules(example):
        for node in ast.walk(module):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    ours = {"data", "models", "gpurun_notebook"}
    wanted = {named.get(name, name) for name in imported - ours - sys.stdlib_module_names} | {"tensorboard"}
    assert wanted == set(requirements(example))


@pytest.mark.parametrize("example", EXAMPLES, ids=by_name)
def test_the_versions_of_the_pinned_image_and_newer_ones_fit_and_the_bad_ones_do_not(example: Path) -> None:
    wanted = requirements(example)
    assert all(version in wanted["torch"].specifier for version in ("2.8.0", "2.13.0", "2.13.0+cpu"))
    assert "2.6.6" in wanted["lightning"].specifier
    assert not {"2.6.2", "2.6.3"} & set(wanted["lightning"].specifier.filter(["2.6.2", "2.6.3", "2.6.6"]))


@pytest.mark.parametrize("example", EXAMPLES, ids=by_name)
def test_a_projects_file_holds_keys_of_the_schema(example: Path) -> None:
    config = values(JobConfig, tomllib.loads((example / "gpurun.toml").read_text()))
    assert config["name"] == example.name
    assert not config.keys() & set(JOB_FILE_ONLY)


@pytest.mark.parametrize("job", JOBS, ids=by_name)
def test_a_job_file_names_what_there_is(job: Path) -> None:
    config = JobConfig(**values(JobConfig, tomllib.loads(job.read_text())))
    assert config.project is not None
    assert config.script is not None
    project = (job.parent / config.project).resolve()
    assert project in EXAMPLES
    assert (project / config.script).is_file()
    assert job.read_text().startswith(f"# gpurun submit jobs/{job.name}\n")


@pytest.mark.parametrize("job", JOBS, ids=by_name)
def test_a_job_file_gives_options_that_the_script_knows(job: Path) -> None:
    config = JobConfig(**values(JobConfig, tomllib.loads(job.read_text())))
    assert config.project is not None
    assert config.script is not None
    if config.script.endswith(".ipynb"):
        assert config.args == ()
        return
    script = ast.parse((job.parent / config.project / config.script).read_text())
    known = {
        node.args[0].value
        for node in ast.walk(script)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and isinstance(node.args[0], ast.Constant)
    }
    assert {argument for argument in config.args if argument.startswith("--")} <= known

"""Runs side by side, from what this laptop knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gpurun.commands import compare
from tests.unit.commands.test_compare import git_of, submitted


@pytest.mark.usefixtures("home")
def test_two_commits_by_the_repository_that_is_here(tmp_path: Path, git: Callable[..., str]) -> None:
    project = tmp_path / "vision"
    project.mkdir()
    git(project, "init", "-q")
    commits = []
    for number in range(2):
        (project / "train.py").write_text(f"lr = {number}")
        (project / "same.py").write_text("x")
        git(project, "add", ".")
        git(project, "commit", "-qm", "x")
        commits.append(git(project, "rev-parse", "HEAD"))
    one, other = (submitted(f"{run}-2222", project, git=git_of(at)) for run, at in zip("ab", commits, strict=True))
    assert compare.difference(one, other) == "train.py"

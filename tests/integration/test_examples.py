"""The examples and job files as text: what must hold before anything trains (tests/demo trains them)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.unit.test_examples import EXAMPLES, by_name


@pytest.mark.parametrize("example", EXAMPLES, ids=by_name)
def test_data_and_models_are_code_that_git_does_not_ignore(example: Path) -> None:
    code = [str(path.relative_to(example)) for path in example.glob("*/*.py")]
    assert {"data/__init__.py", "models/__init__.py"} < set(code)
    ignored = subprocess.run(["git", "check-ignore", *code], cwd=example, capture_output=True, check=False)
    assert ignored.stdout == b""

"""Where an error says that it happened."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gpurun.errors import GpurunError

PACKAGE = Path(__file__).parents[2] / "gpurun"


@pytest.mark.parametrize(
    ("what", "where", "shown"),
    [
        ("the time was over", "gpu1", "host: gpu1"),
        ("gpu1 has no GPU", "gpu1", ""),
        ("gpu10 has no GPU", "gpu1", "host: gpu1"),
        ("no connection", "gpu1\nssh said: it is dark", "host: gpu1, ssh said: it is dark"),
        ("gpu1 is dark", "gpu1\nssh said: it is dark", "ssh said: it is dark"),
        ("nvidia-smi failed", "gpu1\n/usr/bin/nvidia-smi", "host: gpu1, /usr/bin/nvidia-smi"),
        ("no such file", "/home/ada/vision", "/home/ada/vision"),
        ("it is another one", "told: 5ffe", "told: 5ffe"),
        ("it broke", "", ""),
    ],
)
def test_a_host_is_called_one(what: str, where: str, shown: str) -> None:
    assert GpurunError(what, where=where).place == shown


def test_relative_file_is_not_taken_for_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert GpurunError("it is full", where=Path("train.py")).place == str(tmp_path / "train.py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_error_that_a_user_sees_names_a_next_step(path: Path) -> None:
    """The demo's errors are of our own tests, and the agent's are checked by their kind."""
    if path.relative_to(PACKAGE).parts[0] in ("agent", "demo"):
        return
    without = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("UsageError", "GpurunError", "HostUnreachable")
        and len(node.args) < 2
        and not any(keyword.arg == "next_step" for keyword in node.keywords)
    ]
    assert without == []

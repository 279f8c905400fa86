"""The two floors stay two: imports point down only, and each library stays where it belongs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gpurun"
AGENT = PACKAGE / "agent"
SHARED = {
    f"gpurun.agent{module}"
    for module in ("", ".vocabulary", ".manifest", ".ledger", ".files", ".sizes", ".tracebacks", ".clocks")
}
SERVED = {"told", "tensorboard", "werkzeug", "jupyterlab", "jupyter_server", "torch"}
TRAINED = {"lightning", "pytorch_lightning", "torch", "numpy"}
AGENT_MODULES = sorted(AGENT.rglob("*.py"))
LAPTOP_MODULES = sorted(path for path in PACKAGE.rglob("*.py") if AGENT not in path.parents)


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that `path` imports, late ones too."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", AGENT_MODULES, ids=name)
def test_agent_is_standard_library_of_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))
    foreign = {
        module
        for module in imports(path)
        if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("gpurun.agent")
    }
    if path.parent.name == "serve":  # runs in the job's own Python too, with what the service is made of
        foreign = {module for module in foreign if module.split(".")[0] not in SERVED}
    if path.parent.name == "gpurun_notebook":  # runs in the job's own Python, with what a notebook may use
        foreign = {module for module in foreign if module.split(".")[0] not in {"matplotlib", "IPython"}}
    if AGENT / "plugin" in path.parents:  # and so does this, in a training
        foreign = {module for module in foreign if module.split(".")[0] not in TRAINED}
    if path.name == "layer_install.py":  # runs in the job's own Python, which has pip
        foreign = {module for module in foreign if module.split(".")[0] not in {"pip", "packaging"}}
    assert foreign == set()


@pytest.mark.parametrize("path", LAPTOP_MODULES, ids=name)
def test_laptop_uses_only_the_words_of_the_agent(path: Path) -> None:
    used = {module for module in imports(path) if module.startswith("gpurun.agent.")}
    assert {
        module for module in used if not module.startswith(tuple(f"{shared}." for shared in SHARED - {"gpurun.agent"}))
    } <= SHARED


# Library -> where it may be imported.
HOMES = {
    "fabric": ("ssh",),
    "paramiko": ("ssh",),
    "subprocess": ("ssh", "demo"),
    "asyncssh": ("demo",),
    "typer": ("cli",),
    "rich": ("cli",),
}


@pytest.mark.parametrize("path", LAPTOP_MODULES, ids=name)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    home = path.relative_to(PACKAGE).parts[0]
    strays = {
        module for module in imports(path) if module.split(".")[0] in HOMES and home not in HOMES[module.split(".")[0]]
    }
    assert strays == set()


@pytest.mark.parametrize("path", [path for path in LAPTOP_MODULES if path.parent != PACKAGE / "cli"], ids=name)
def test_only_the_command_line_prints(path: Path) -> None:
    """Lower floors return values, raise, or report through a callback. `python -m` entries may print."""
    tree = ast.parse(path.read_text())
    main = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
    inside = {id(node) for block in main for node in ast.walk(block)}
    prints = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and id(node) not in inside
    ]
    assert prints == []

"""The rules of the house that no linter knows; `pyproject.toml` has the floors (`[tool.importlinter]`), one test a rule."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gpurun import errors
from gpurun.agent import error_codes
from gpurun.agent import vocabulary as words

PACKAGE = Path(__file__).parents[2] / "gpurun"
AGENT = PACKAGE / "agent"
AGENT_MODULES = sorted(AGENT.rglob("*.py"))
LAPTOP_MODULES = sorted(path for path in PACKAGE.rglob("*.py") if AGENT not in path.parents)

# What both floors use: words, and what has one answer on a laptop and on a host.
SHARED = {
    f"gpurun.agent.{module}"
    for module in (
        "vocabulary",
        "error_codes",
        "schema",
        "manifest",
        "ledger",
        "files",
        "tracebacks",
        "sizes",
        "clocks",
        "paths",
    )
}

# Folder or file of the agent that runs in the job's own Python -> what it may use there beside the standard library.
IN_THE_JOB = {
    "serve": {"service_settings", "tensorboard", "werkzeug", "jupyterlab", "jupyter_server", "torch"},
    "notebook/gpurun_notebook": {"matplotlib", "IPython"},
    "plugin": {"lightning", "pytorch_lightning", "torch", "numpy"},
    "images/layer_install.py": {"pip", "packaging"},
}

# Library -> where the laptop may import it.
HOMES = {
    "fabric": ("ssh",),
    "paramiko": ("ssh",),
    "subprocess": ("process.py", "ssh", "demo"),
    "asyncssh": ("demo",),
    "typer": ("cli",),
    "rich": ("cli",),
}

# Where the values of a user's secrets are read: into the request that carries them, and into a digest.
REVEALING = {"commands/submit.py", "commands/resume.py", "store/pending_submits.py"}

# Who joins a name that agent/paths.py knows, for something else that is called so.
PATH_MAKERS = ("self._in", "self._own", "os.path.join")
OTHER_PLACES = {
    "agent/host/disks.py",  # users' folders on a disk
    "agent/host/lock_folder.py",
    "agent/images/layer_install.py",  # pip's cache
    "agent/notebook/gpurun_notebook/__init__.py",  # folders of a notebook
    "agent/setup/notebooks.py",  # the package's own folders
    "agent/setup/plugin_files.py",
    "agent/setup/services.py",
    "agent/verbs/leave.py",  # roots of gpurun 0.1.0
    "commands/migrate.py",  # the ledger in a fetched folder
    "demo/host.py",
    "remote/bundle.py",  # the package's own folders, and the user's cache
    "store/run_store.py",  # the laptop's own files
}

# Lines of the package with a dict of anything. What has named keys is a type of agent/schema, or a dataclass.
UNTYPED_DICTS = 45


# What is written in plain English so far: folders and files of the package, and what is left out of them.
PLAIN = ("agent",)
NOT_PLAIN_YET = ("agent/serve", "agent/plugin", "agent/notebook", "agent/schema", "agent/verbs/tunnel.py")

# Word -> plain word, for strings, comments and names alike.
UNCLEAR = {
    "told": "recorded, reported, returned",
    "tells": "returns, reports",
    "telling": "reporting",
    "said": "output, reported",
    "whoever": "the process that, the caller",
    "unless told": "default:",
    "go on": "continue",
    "goes on": "continues",
    "went on": "continued",
    "gone on": "continued",
    "so many": "at most N",
    "but for": "except",
    "broke off": "broke, was cut off",
    "given up": "abandoned, cancelled",
    "be had": "be taken, be read",
    "swept": "removed",
    "wiped": "removed",
    "mend": "repair, correct",
    "lies": "is, is stored",
    "wants": "requires, requests",
    "looks after": "watches, reconciles",
    "what is there": "the present files, the container",
    "unlisted": "recovered",
}
# `found = ...` does not say what it holds.
UNCLEAR_NAMES = {
    "found": "what it is: status, paths, match, record",
    "told": "record, event, document",
    "said": "output",
    "known": "cached, entry, paths",
    "asked": "requested, question",
    "more": "next_page, attributes",
}


@functools.cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that `path` imports, late ones too."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_agent_is_standard_library_of_python_3_8() -> None:
    foreign: dict[str, set[str]] = {}
    for path in AGENT_MODULES:
        ast.parse(path.read_text(), feature_version=(3, 8))
        inside = str(path.relative_to(AGENT))
        allowed = set[str]().union(*(more for place, more in IN_THE_JOB.items() if inside.startswith(place)))
        foreign[inside] = {
            module
            for module in imports(path)
            if module.split(".")[0] not in sys.stdlib_module_names | allowed and not module.startswith("gpurun.agent")
        }
    assert {path: modules for path, modules in foreign.items() if modules} == {}


def test_laptop_uses_only_what_it_shares_with_the_agent() -> None:
    used = {
        (name(path), module)
        for path in LAPTOP_MODULES
        for module in imports(path)
        if module.startswith("gpurun.agent.")
    }
    inside = tuple(f"{shared}." for shared in SHARED)
    assert {(path, module) for path, module in used if module not in SHARED and not module.startswith(inside)} == set()


def test_libraries_stay_where_they_belong() -> None:
    found = {(name(path), module.split(".")[0]) for path in LAPTOP_MODULES for module in imports(path)}
    assert {(path, lib) for path, lib in found if lib in HOMES and path.split("/")[0] not in HOMES[lib]} == set()


def test_only_the_command_line_prints() -> None:
    """Lower floors return values, raise, or report through a callback. `python -m` entries may print."""
    prints = []
    for path in LAPTOP_MODULES:
        if path.parent.is_relative_to(PACKAGE / "cli"):
            continue
        tree = parse(path)
        main = [node for node in tree.body if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)]
        inside = {id(node) for block in main for node in ast.walk(block)}
        prints += [
            f"{name(path)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and id(node) not in inside
        ]
    assert prints == []


def test_values_of_secrets_are_read_in_three_places() -> None:
    calls = {
        name(path)
        for path in LAPTOP_MODULES
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal"
    }
    assert calls == REVEALING


def _text(node: ast.AST) -> str | None:
    """The text of a literal, or of a name of the vocabulary."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value if isinstance(node.value, str) else node.value.decode()
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "words":
        return getattr(words, node.attr, None)
    return None


def _joined(tree: ast.AST) -> Iterator[str]:
    """Names that are joined to a path: `os.path.join(x, "name")`, `x / "name"`."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("join", "joinpath")
        ):
            parts = node.args
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        yield from filter(None, map(_text, parts))


def test_paths_of_a_host_are_made_in_one_module() -> None:
    makers = ast.walk(parse(PACKAGE / "agent/paths.py"))
    calls = [node for node in makers if isinstance(node, ast.Call) and ast.unparse(node.func) in PATH_MAKERS]
    names = {text for call in calls for text in map(_text, call.args) if text is not None}
    assert {"job.json", "carried", "runs"} < names
    joining = {
        name(path)
        for path in AGENT_MODULES + LAPTOP_MODULES
        if name(path) != "agent/paths.py" and names.intersection(_joined(parse(path)))
    }
    assert joining == OTHER_PLACES


def test_whoever_asks_for_a_ledger_stores_the_answer() -> None:
    """`run_questions.ask` does both. A listing of several hosts is stored when its pages are put together."""
    callers = {name(path) for path in LAPTOP_MODULES if "checkpoint_store.question(" in path.read_text()}
    assert callers == {"store/run_questions.py", "commands/runs.py"}


def test_untyped_dicts_become_fewer_and_never_more() -> None:
    lines = [line for path in AGENT_MODULES + LAPTOP_MODULES for line in path.read_text().splitlines()]
    found = sum("dict[str, any]" in line.lower() for line in lines)
    assert found <= UNTYPED_DICTS, "give the new dict a type: see gpurun/agent/schema"
    assert found == UNTYPED_DICTS, f"there are fewer now: write UNTYPED_DICTS = {found}"


def test_agent_imports_its_schema_for_annotations_alone() -> None:
    """To make the classes takes as long as the whole answer to a small question."""
    found = []
    for path in AGENT_MODULES:
        if path.parent.name == "schema":
            continue
        tree = parse(path)
        typing = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ]
        inside = {id(node) for block in typing for node in ast.walk(block)}
        found += [
            f"{name(path)}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            and "schema" in (node.module or "").split(".")
            and id(node) not in inside
        ]
    assert found == []


def test_error_codes_are_constants() -> None:
    """A code is a word of `agent/error_codes` or `errors` where it is raised, and where something is decided by it."""
    literal = []
    for path in AGENT_MODULES + LAPTOP_MODULES:
        for node in ast.walk(parse(path)):
            words: list[ast.expr] = []
            if isinstance(node, ast.Call):
                words = [one.value for one in node.keywords if one.arg == "code"]
                if ast.unparse(node.func).endswith(("AgentError", "EngineError", "Problem")):
                    words += node.args[:1]
            elif isinstance(node, ast.Compare) and ast.unparse(node.left).endswith(".code"):
                words = [each for one in node.comparators for each in getattr(one, "elts", [one])]
            texts = [one for one in words if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            literal += [f"{name(path)}:{one.lineno}" for one in texts]
    assert literal == []


def test_error_codes_differ() -> None:
    codes = [
        value
        for module in (error_codes, errors)
        for key, value in vars(module).items()
        if key.isupper() and isinstance(value, str)
    ]
    assert len(set(codes)) == len(codes)


def test_plain_english_has_no_unclear_words() -> None:
    paths = [
        path
        for path in AGENT_MODULES + LAPTOP_MODULES
        if name(path).startswith(PLAIN) and not name(path).startswith(NOT_PLAIN_YET)
    ]
    unclear = re.compile(rf"(?<![a-zA-Z])({'|'.join(UNCLEAR)})(?![a-zA-Z])", re.IGNORECASE)
    lines = []
    for path in paths:
        text = path.read_text()
        lines += [f"{name(path)}: {hit[0]!r}: write {UNCLEAR[hit[0].lower()]!r}" for hit in unclear.finditer(text)]
        for node in ast.walk(parse(path)):
            word = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else None
            if word in UNCLEAR_NAMES:
                lines.append(f"{name(path)}:{node.lineno}: {word}: write {UNCLEAR_NAMES[word]!r}")  # type: ignore[attr-defined]
    assert lines == []

"""The project that a command is about: its root folder, its name, and what git knows of it.

The root, from a folder inside it, is the first of
1. the nearest folder upwards with a `gpurun.toml`,
2. the nearest one whose `pyproject.toml` has a `[tool.gpurun]` table,
3. the nearest one with a `pyproject.toml` or a `.git`,
4. the folder itself.
The search leaves out the home directory and `/`. Neither is ever sent (gpurun/job/files.py), and no folder of the system is:
keys and other people's data lie in there.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurun import process, toml
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Git

PATCH_LIMIT = 1 << 20  # bytes; a larger patch is left out of the run record
# Slow disks and huge repositories exist; a git that waits for a lock or a password must not hold a submit for ever.
GIT_SECONDS = 120.0


@dataclass(frozen=True)
class Project:
    """`root` is absolute. `marker` says why it is the root: gpurun.toml, pyproject.toml, git, folder or job file."""

    root: Path
    name: str
    marker: str
    in_git: bool
    files: Files = field(compare=False, repr=False)

    @property
    def settings_file(self) -> Path:
        """The file with the project's defaults; it need not exist."""
        return self.files.settings_file

    def settings(self) -> toml.Document:
        """The project's defaults, unchecked. Raises UsageError when the file is no TOML."""
        return self.files.settings()


@dataclass(frozen=True)
class Files:
    """The files of a folder that say something of a project. Each is read once; a broken one raises UsageError."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        own = self.folder / "gpurun.toml"
        return self.folder / "pyproject.toml" if not own.exists() and self.table is not None else own

    def settings(self) -> toml.Document:
        return dict(self.own if self.settings_file.name == "gpurun.toml" else self.table or {})

    @functools.cached_property
    def own(self) -> toml.Document:
        return toml.read(self.folder / "gpurun.toml")

    @functools.cached_property
    def pyproject(self) -> toml.Document:
        return toml.read(self.folder / "pyproject.toml")

    @property
    def table(self) -> toml.Document | None:
        """`[tool.gpurun]`, or None. A broken file says nothing here; it is refused where its settings are read."""
        try:
            table = self.pyproject.get("tool", {}).get("gpurun")
        except (UsageError, AttributeError):
            return None
        return table if isinstance(table, dict) else None

    def names(self) -> Iterator[Any]:
        try:
            yield self.own.get("name") or (self.table or {}).get("name")
            project = self.pyproject.get("project")
        except UsageError:
            return
        if isinstance(project, dict):
            yield project.get("name")


def find_project(start: Path | None = None) -> Project:
    """The project around `start` (a folder or a file; default: the working directory). Runs no process."""
    at = Path(os.path.abspath(start or Path.cwd()))  # noqa: PTH100 - resolve() would follow links out of the project
    return _project(*_root(at if at.is_dir() else at.parent))


def project_at(root: Path) -> Project:
    """The project whose root is told to be `root` (a job file's `project`)."""
    return _project(Files(Path(os.path.abspath(root))), "job file")  # noqa: PTH100


def _project(files: Files, marker: str) -> Project:
    root = files.folder
    in_git = any((above / ".git").exists() for above in (root, *root.parents))
    names = (slug(name) for name in files.names() if isinstance(name, str))
    return Project(root, next(filter(None, names), slug(root.name) or "project"), marker, in_git, files)


def _root(folder: Path) -> tuple[Files, str]:
    """The root's files, and why it is the root."""
    above = [Files(one) for one in (folder, *folder.parents) if one not in (Path.home(), Path(one.anchor))]
    for files in above:
        if (files.folder / "gpurun.toml").is_file():
            return files, "gpurun.toml"
    for files in above:
        if files.table is not None:
            return files, "pyproject.toml"
    for files in above:
        if (files.folder / "pyproject.toml").is_file():
            return files, "pyproject.toml"
        if (files.folder / ".git").exists():
            return files, "git"
    return Files(folder), "folder"


def slug(text: str, limit: int = 40) -> str:
    """`text` in [a-z0-9-], at most `limit` long; empty when nothing is left."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:limit].strip("-")


def git(root: Path, *arguments: str) -> process.Completed | None:
    """Ask git about `root`; None when there is no git, it failed, or it took too long."""
    # A hook's or a parent git's variables would answer for another repository.
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env.update(GIT_OPTIONAL_LOCKS="0", GIT_TERMINAL_PROMPT="0", LC_ALL="C")
    argv = ["git", "-C", str(root), "-c", "core.quotepath=off", *arguments]
    try:
        done = process.run(argv, env=env, timeout=GIT_SECONDS)
    except (process.NotInstalled, process.TimedOut):
        return None
    return done if done.code == 0 else None


def git_facts(root: Path, travels: Callable[[str], bool] = lambda _: True) -> Git | None:
    """`commit`, `branch` (None on a detached head), `dirty`, `patch` against the commit; None without a working git.

    `travels` says whether a file of the project may leave the laptop: of one that stays, the patch tells nothing.

    `dirty` counts new files too. The patch has the project's tracked changes alone (new files lie in the snapshot);
    it is None when there are none, and when it is larger than PATCH_LIMIT. Bytes that are not UTF-8 are surrogates.
    """
    answer = git(root, "status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--", ".")
    if answer is None:
        return None
    lines = [os.fsdecode(line) for line in answer.stdout.split(b"\0")]
    said = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# ") and " " in line[2:])
    changes = [line for line in lines if line[:2] in ("1 ", "2 ", "u ", "? ")]
    commit = said.get("branch.oid")
    commit = None if commit in (None, "(initial)") else commit
    branch = said.get("branch.head")
    return {
        "commit": commit,
        "branch": None if branch == "(detached)" else branch,
        "dirty": bool(changes),
        "patch": _patch(root, travels) if commit and any(line[0] != "?" for line in changes) else None,
    }


def _patch(root: Path, travels: Callable[[str], bool]) -> str | None:
    listed = git(root, "diff", "HEAD", "--name-only", "--no-renames", "--relative", "-z", "--", ".")
    names = [os.fsdecode(name) for name in listed.stdout.split(b"\0") if name] if listed else []
    sent = [name for name in names if travels(name) or not os.path.lexists(root / name)]
    if not sent:
        return None
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/")
    answer = git(root, "--literal-pathspecs", "diff", "HEAD", "--binary", *plain, "--", *sent)
    if answer is None or not answer.stdout or len(answer.stdout) > PATCH_LIMIT:
        return None
    return os.fsdecode(answer.stdout)

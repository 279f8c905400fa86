"""Finding what a project needs installed: `uv.lock` before `requirements.txt` before `dependencies` of `pyproject.toml`.

A lock says the most, a requirements file is usually what people install from, and `pyproject.toml` often stands there
for other tools. All are looked for in the project's root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from gpurun import toml
from gpurun.errors import UsageError
from gpurun.job.files import FileList

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Dependencies as DependenciesOfJob

_OVER_SSH = re.compile(rb"git\+ssh://|\bssh://git@|git\+git@")
_INCLUDE = re.compile(r"(?:-r|--requirement|-c|--constraint)(?:\s+|=)(\S+)")
_CONDA = ("environment.yml", "environment.yaml")


@dataclass(frozen=True)
class Dependencies:
    """`job` is what job.json says of them. `needs_agent`: some come over SSH, so the host needs the user's SSH agent."""

    job: DependenciesOfJob | None = None
    needs_agent: bool = False
    note: str | None = None


def find_dependencies(
    files: FileList, wanted: Literal[False] | str | None = None, *, own_image: bool = False
) -> Dependencies:
    """What to install for the project that `files` lists; `wanted` is the spec's `dependencies`.

    `own_image`: the job names its image, which may well hold what a conda environment says. Raises UsageError.
    """
    if wanted is False:
        return Dependencies()
    if wanted is not None:
        return _named(files, str(PurePosixPath(wanted)))
    for file in ("uv.lock", "requirements.txt", "pyproject.toml"):
        found = _read(files, file) if (files.root / file).is_file() else None
        if found is not None:
            return found if files.has(file) else _stays_out(files, file)
    conda = next((file for file in _CONDA if files.has(file)), None)
    if conda and own_image:
        return Dependencies(note=f"{conda} is not installed: the image that the job names is taken as it is")
    if conda:
        raise _conda(conda)
    return Dependencies()


def _named(files: FileList, file: str) -> Dependencies:
    if not files.has(file):
        raise UsageError(
            f"dependencies: {file} is not sent to the host: {files.why_not(file)}",
            "name a file of the project, relative to its root",
        )
    if PurePosixPath(file).name in _CONDA:
        raise _conda(file)
    return _read(files, file) or Dependencies(note=f"{file} names no dependencies")


def _read(files: FileList, file: str) -> Dependencies | None:
    """What `file` asks for; None when it asks for nothing."""
    path, name = files.root / file, PurePosixPath(file).name
    if name == "uv.lock":
        return Dependencies({"kind": "uv", "file": file}, bool(_OVER_SSH.search(path.read_bytes())))
    if name == "pyproject.toml":
        return _pyproject(path, file)
    if not any(line.strip() and not line.strip().startswith("#") for line in _lines(path)):
        return None
    return Dependencies({"kind": "requirements", "file": file}, _over_ssh(path, set()))


def _pyproject(path: Path, file: str) -> Dependencies | None:
    told = toml.read(path)
    asked = told.get("project", {}).get("dependencies", [])
    if not isinstance(asked, list) or not all(isinstance(line, str) for line in asked):
        raise UsageError(f"{path}: project.dependencies: wants a list of text", 'write it as ["torchmetrics>=1"]')
    if asked:
        over_ssh = any(_OVER_SSH.search(line.encode()) for line in asked)
        return Dependencies({"kind": "pyproject", "file": file, "requirements": asked}, over_ssh)
    if told.get("tool", {}).get("poetry", {}).get("dependencies"):
        export = "poetry export -f requirements.txt -o requirements.txt"
        return Dependencies(note=f"the dependencies of [tool.poetry] are not read; write them down with: {export}")
    return None


def _stays_out(files: FileList, file: str) -> Dependencies:
    raise UsageError(
        f"{file} says what to install, but stays on the laptop: {files.why_not(file)}",
        f"bring it back with a line `!/{file}` in .gpurunignore, or write `dependencies = false`",
    )


def _conda(file: str) -> UsageError:
    return UsageError(
        f"{file} is for conda, which gpurun does not install",
        "write the Python packages into requirements.txt (in that environment: pip list --format=freeze > "
        'requirements.txt),\nor name an image that has them all: image = "...",\n'
        "or install nothing: dependencies = false",
    )


def _over_ssh(path: Path, seen: set[Path]) -> bool:
    """Return whether a requirements file, or one that it includes, names something over SSH."""
    if path in seen or not path.is_file():
        return False
    seen.add(path)
    if _OVER_SSH.search(path.read_bytes()):
        return True
    includes = [match[1] for line in _lines(path) if (match := _INCLUDE.match(line.strip()))]
    return any(_over_ssh((path.parent / name).resolve(), seen) for name in includes)


def _lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8", "replace").splitlines()

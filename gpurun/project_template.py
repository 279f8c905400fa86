"""The project that `gpurun init` writes and `gpurun demo` submits; examples/digits is the source of both."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gpurun.errors import GpurunError, UsageError

PACKAGE = Path(__file__).parent
# By name, because somebody may have trained in the checkout's own copy.
FILES = (
    ".gitignore",
    ".gpurunignore",
    "README.md",
    "data/__init__.py",
    "data/digits.py",
    "gpurun.toml",
    "models/__init__.py",
    "models/cnn.py",
    "predict.py",
    "requirements.txt",
    "train.py",
)


def example(name: str) -> Path:
    """Where an example lies: inside an installed gpurun, or beside the package in a checkout."""
    for place in (PACKAGE / "examples", PACKAGE.parent / "examples"):
        if (place / name / "train.py").is_file():
            return place / name
    raise GpurunError(f"the example {name!r} is missing from this installation", "Install gpurun again.")


def write_project(directory: Path, name: str) -> list[Path]:
    """Write the project as `name` into `directory`, which is made when missing; the files that were written.

    A file that exists is left as it is. Raises UsageError, before anything is written, when something else
    stands where a folder is needed.
    """
    source = example("digits")
    name = "".join(character for character in name if character.isprintable()).strip()[:60] or "project"
    for folder in sorted({(directory / file).parent for file in FILES}):
        _refuse_non_folder(folder)
    written = []
    for file in FILES:
        target = directory / file
        if os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as out:
            out.write(_renamed(file, (source / file).read_text(encoding="utf-8"), name))
        written.append(target)
    return written


def _refuse_non_folder(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(
            f"{folder} is in the way: a folder is needed there",
            "Move it, or name another directory: gpurun init DIRECTORY",
        )


def _renamed(file: str, text: str, name: str) -> str:
    """The text of a file of examples/digits as that of the project `name`."""
    if file == "README.md":
        return text.replace("# digits\n", f"# {name}\n", 1)
    if file == "gpurun.toml":
        return text.replace('name = "digits"', f"name = {json.dumps(name, ensure_ascii=False)}", 1)
    return text

"""The projects that `gpurun init` writes and `gpurun demo` submits: those of examples/ that are made to begin with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from gpurun.errors import GpurunError, UsageError

PACKAGE = Path(__file__).parents[1]
DEFAULT = "digits"
_ALL_HAVE = (
    ".gitignore", ".gpurunignore", "README.md", "data/__init__.py", "gpurun.toml", "models/__init__.py", "predict.py",
    "requirements.txt", "train.py",
)  # fmt: skip
# By name, because somebody may have trained in the checkout's own copy.
TEMPLATES = {
    "digits": tuple(sorted((*_ALL_HAVE, "data/digits.py", "models/cnn.py"))),
    "mnist": tuple(sorted((*_ALL_HAVE, "data/mnist.py", "models/cnn.py"))),
    "bare": tuple(sorted((*_ALL_HAVE, "data/dataset.py", "models/model.py"))),
}


def example(name: str) -> Path:
    """Where an example lies: inside an installed gpurun, or beside the package in a checkout."""
    for place in (PACKAGE / "examples", PACKAGE.parent / "examples"):
        if (place / name / "train.py").is_file():
            return place / name
    raise GpurunError(f"the example {name!r} is missing from this installation", "install gpurun again")


def write_project(directory: Path, name: str, template: str = DEFAULT) -> list[Path]:
    """Write the project as `name` into `directory`, which is made when missing; the files that were written.

    A file that exists is left as it is. Raises UsageError, before anything is written, when there is no such template,
    code of something else is there already, or something stands where a folder is needed.
    """
    if template not in TEMPLATES:
        raise UsageError(f"there is no template {template!r}", f"name one of {', '.join(TEMPLATES)}")
    source, files = example(template), TEMPLATES[template]
    name = "".join(character for character in name if character.isprintable()).strip()[:60] or "project"
    for folder in sorted({(directory / file).parent for file in files}):
        _refuse_non_folder(folder)
    texts = {file: _renamed(file, (source / file).read_text(encoding="utf-8"), template, name) for file in files}
    _refuse_other_code(directory, texts)
    written = []
    for file, text in texts.items():
        target = directory / file
        if os.path.lexists(target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as out:
            out.write(text)
        written.append(target)
    return written


def _refuse_other_code(directory: Path, texts: Mapping[str, str]) -> None:
    """Half of one project and half of another would train nothing."""
    other = [file for file, text in texts.items() if file.endswith(".py") and _differs(directory / file, text)]
    if other:
        raise UsageError(
            f"other code is there already: {', '.join(other)}",
            "a new folder: gpurun init NAME. Your own project needs no init: gpurun submit train.py",
            where=directory,
        )


def _differs(file: Path, text: str) -> bool:
    try:
        return file.read_text(encoding="utf-8") not in (text, "")
    except (OSError, ValueError):
        return os.path.lexists(file)


def _refuse_non_folder(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(
            f"{folder} is in the way: a folder is needed there",
            "move it, or name another directory: gpurun init DIRECTORY",
        )


def _renamed(file: str, text: str, template: str, name: str) -> str:
    """The text of a template's file as that of the project `name`."""
    if file == "README.md":
        return text.replace(f"# {template}\n", f"# {name}\n", 1)
    if file == "gpurun.toml":
        return text.replace(f'name = "{template}"', f"name = {json.dumps(name, ensure_ascii=False)}", 1)
    return text

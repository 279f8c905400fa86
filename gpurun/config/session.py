"""The files of a notebook session on a host that a submit lays over the project's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Session:
    """What was fetched from a session: `files` (relative to the project's root) lie below `root` on the laptop."""

    run: str
    host: str
    project_root: Path
    notebook: str
    root: Path
    files: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        others = [path for path in self.files if path != self.notebook]
        also = f", and changed there: {', '.join(others)}" if others else ""
        return (f"{self.notebook} as it is in {self.run}{also}",)

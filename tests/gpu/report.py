"""What the steps came to: a table on the screen, `gpu.md` for people, `gpu.json` for programs."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PASSED, FAILED, LEFT_OUT = "passed", "failed", "left out"
PACKAGES = ("torch", "lightning", "pytorch-lightning", "torchmetrics", "torchvision", "gpurun")


@dataclass(frozen=True)
class Row:
    """How a step ended; `why` for one that failed or was left out."""

    step: str
    outcome: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Report:
    """All of a run. `gpu` is what the driver says; empty for a dry run on the CPU."""

    gpu: str
    rows: tuple[Row, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        return all(row.outcome != FAILED for row in self.rows)

    def table(self) -> str:
        width = max(len(row.step) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{row.step:<{width}}  {row.outcome:<8}  {row.seconds:6.1f} s  {row.why}".rstrip())
            lines += [f"{'':<{width}}    {name}: {value}" for name, value in row.figures.items()]
        return "\n".join(lines)

    def markdown(self) -> str:
        where = self.gpu or "the CPU: a dry run, without a GPU"
        lines = [
            f"# gpurun on {where}",
            "",
            f"{datetime.now():%Y-%m-%d}, Python {platform.python_version()}, {_versions()}; {self.seconds:.0f} s in all.",
            "",
            "| step | outcome | seconds | figures |",
            "|---|---|---|---|",
        ]
        for row in self.rows:
            figures = "; ".join(f"{name}: {value}" for name, value in row.figures.items()) or row.why
            lines.append(f"| {row.step} | {row.outcome} | {row.seconds:.1f} | {figures.replace('|', '/')} |")
        return "\n".join(lines) + "\n"

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu.md").write_text(self.markdown())
        document = {"gpu": self.gpu, "versions": _versions(), "date": datetime.now().isoformat(timespec="seconds")}
        rows = [asdict(row) for row in self.rows]
        (folder / "gpu.json").write_text(
            json.dumps({**document, "seconds": self.seconds, "rows": rows}, indent=1) + "\n"
        )


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)

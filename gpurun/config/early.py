"""Find the host of a submit before its configuration is validated, so that ssh can connect meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpurun import toml
from gpurun.config import hosts
from gpurun.config.hosts import Host
from gpurun.config.project import Project, find_project, project_at
from gpurun.errors import UsageError


def likely_host(flag: str | None, target: str | None, cwd: Path | None = None) -> Host | None:
    """The host that `load` will choose for `target`; None where only `load` can say, or has something to complain of."""
    here = cwd or Path.cwd()
    try:
        told, project = _job_and_project(target, here)
        names = (told.get("host"), project.settings().get("host"))
        if not all(name is None or isinstance(name, str) for name in names):
            return None
        return hosts.choose(flag, job=names[0], project=names[1])
    except UsageError:
        return None


def _job_and_project(target: str | None, here: Path) -> tuple[dict[str, Any], Project]:
    if target is None or not target.endswith(".toml"):
        script = here / target if target else None
        return {}, find_project(script if script is not None and script.exists() else here)
    job_file = here / target
    told = toml.read(job_file)
    root = told.get("project")
    if isinstance(root, str) and root:
        return told, project_at(job_file.parent / Path(root).expanduser())
    return told, find_project(job_file.parent)

"""The notebook of a job, when its script is one: read and made into a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurun.errors import UsageError
from gpurun.job.dependencies import Dependencies
from gpurun.notebook import convert

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Dependencies as DependenciesOfJob
    from gpurun.agent.schema.job import Notebook
    from gpurun.config.load import Loaded
    from gpurun.notebook.convert import Converted

SUFFIX = ".ipynb"


def read(loaded: Loaded) -> Converted | None:
    """What the job's notebook becomes; None when its script is none. Raises UsageError."""
    path = loaded.spec.script
    if path is None or not path.endswith(SUFFIX):
        return None
    file = loaded.session.root / path if loaded.session else loaded.project.root / path
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError:
        raise UsageError(
            f"there is no notebook {path} in the project {loaded.project.root}", "name a file of the project"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no notebook: {error}", "save it again in Jupyter") from None
    return convert.convert(text, path)


def of_job(loaded: Loaded, converted: Converted) -> Notebook:
    """What job.json says of it (see agent/setup/notebooks.py)."""
    assert loaded.spec.script is not None
    path = loaded.spec.script
    return {"path": path, "script": convert.script_name(path), "source": converted.source}


def notes(loaded: Loaded, converted: Converted) -> list[str]:
    """What a person may want to know of it."""
    found = [*(loaded.session.notes if loaded.session else ()), *converted.notes]
    if converted.requirements:
        wanted = ", ".join(converted.requirements)
        off = loaded.spec.dependencies is False
        why = "dependencies = false" if off else "they come with the project's dependencies, before the run"
        found.append(f"its pip lines are left out ({wanted}): {why}")
    return found


def with_requirements(found: Dependencies, loaded: Loaded, converted: Converted) -> Dependencies:
    """The project's dependencies and what the notebook's own pip lines ask for; unless the job installs nothing."""
    wanted = list(converted.requirements)
    if not wanted or loaded.spec.dependencies is False:
        return found
    needs_agent = found.needs_agent or any("git+ssh://" in line for line in wanted)
    if found.job is None:
        asked: DependenciesOfJob = {"kind": "pyproject", "file": loaded.spec.script or "", "requirements": wanted}
        return Dependencies(asked, needs_agent, found.note)
    return Dependencies({**found.job, "tools": wanted}, needs_agent, found.note)

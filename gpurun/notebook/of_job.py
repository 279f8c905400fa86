"""Read and convert the notebook of a job whose script is a notebook."""

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
    """Return the converted notebook of the job, or None when its script is not a notebook. Raises UsageError."""
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
        raise UsageError(f"{path} is not a valid notebook: {error}", "save it again in Jupyter") from None
    return convert.convert(text, path)


def of_job(loaded: Loaded, converted: Converted) -> Notebook:
    """Return the notebook's entry in job.json (see agent/setup/notebooks.py)."""
    assert loaded.spec.script is not None
    path = loaded.spec.script
    return {"path": path, "script": convert.script_name(path), "source": converted.source}


def notes(loaded: Loaded, converted: Converted) -> list[str]:
    """Return the notes for the user."""
    texts = [*(loaded.session.notes if loaded.session else ()), *converted.notes]
    if converted.requirements:
        wanted = ", ".join(converted.requirements)
        off = loaded.spec.dependencies is False
        reason = "dependencies = false" if off else "the host installs them with the project's dependencies"
        texts.append(f"its pip lines are left out ({wanted}): {reason}")
    return texts


def with_requirements(dependencies: Dependencies, loaded: Loaded, converted: Converted) -> Dependencies:
    """Return the project's dependencies with those of the notebook's pip lines, unless the job installs nothing."""
    wanted = list(converted.requirements)
    if not wanted or loaded.spec.dependencies is False:
        return dependencies
    needs_agent = dependencies.needs_agent or any("git+ssh://" in line for line in wanted)
    if dependencies.job is None:
        entry: DependenciesOfJob = {"kind": "pyproject", "file": loaded.spec.script or "", "requirements": wanted}
        return Dependencies(entry, needs_agent, dependencies.note)
    return Dependencies({**dependencies.job, "tools": wanted}, needs_agent, dependencies.note)

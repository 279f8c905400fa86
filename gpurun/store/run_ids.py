"""Run ids: made on the laptop, before a host knows of the run."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from gpurun.config.project import slug

if TYPE_CHECKING:
    from gpurun.agent.schema.job import JobSpec

# Without those that are taken for one another when an id is read aloud or typed from a screen: 0 and o, 1, i and l.
ID_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


def new_id(name: str, choose: Any = secrets.choice) -> str:
    """A new run id for a run called `name`: "train-7f3k"."""
    stem = slug(name, 40) or "run"
    return f"{stem}-{''.join(choose(ID_ALPHABET) for _ in range(4))}"


def under_new_id(job: JobSpec) -> JobSpec:
    """The job under another id, for one whose id a run has already."""
    run = new_id(job["name"])
    return {**job, "id": run, "fetch_hint": fetch_hint(run)}


def fetch_hint(run: str) -> str:
    """What a job that ends reminds its user of."""
    return f"gpurun fetch {run}"

"""The fault matrix in its short form; `python -m tests.bench faults` is the long one."""

from __future__ import annotations

import time

from tests.lab import faults
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop


def test_faults_at_random_moments_lose_and_double_nothing(
    laptop: Laptop, pinned_image: None, host: LabHost, bare_host: LabHost
) -> None:
    seed = int(time.time())
    tallies = faults.inject(laptop, (host, bare_host), kills=5, races=2, deaths=2, seed=seed)
    assert all(tally.clean for tally in tallies), f"seed {seed}\n" + "\n".join(map(str, tallies))

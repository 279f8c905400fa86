"""The lab as fixtures. A lab that cannot come up is an error of every test that asks for it, never a skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, up for the whole session: a host with an engine, a bare host, a registry."""
    made = Lab()
    made.up()
    yield made
    made.down()


@pytest.fixture
def host(lab: Lab) -> Iterator[LabHost]:
    """The host with an engine (alias `ada`; its other users are `bob`, `carl`, `pat` and `sue`), as new."""
    lab.gpu_host.reset()
    yield lab.gpu_host
    lab.gpu_host.reset()


@pytest.fixture
def bare_host(lab: Lab) -> Iterator[LabHost]:
    """The host without an engine, whose Python has torch (alias `bare`), as new."""
    lab.bare_host.reset()
    yield lab.bare_host
    lab.bare_host.reset()


@pytest.fixture
def twin(lab: Lab, bare_host: LabHost) -> Iterator[LabHost]:
    """Another bare machine (alias `twin`) that shares the homes of `bare_host`. Ask for it before `laptop`."""
    host = lab.add_host("twin", homes=bare_host.homes)
    yield host
    lab.remove_host("twin")


@pytest.fixture
def laptop(lab: Lab) -> Iterator[Laptop]:
    """A user's laptop that can reach every host of the lab."""
    with Laptop(lab) as made:
        yield made


@pytest.fixture
def another_laptop(lab: Lab) -> Iterator[Callable[[], Laptop]]:
    """Makes further laptops of the same user."""
    made: list[Laptop] = []

    def make() -> Laptop:
        made.append(Laptop(lab))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def ssh_config(laptop: Laptop) -> Path:
    """The SSH configuration of `laptop`, with an alias for every host and user of the lab."""
    return laptop.ssh_config

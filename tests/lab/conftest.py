"""The lab as fixtures. A lab that cannot come up is an error of every test that asks for it, never a skip."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.jobs import Jobs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failed test what the runs on its hosts have written down."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):
        hosts = {id(value): value for value in item.funcargs.values() if isinstance(value, LabHost)}
        for host in hosts.values():
            report.sections.append((f"runs on {host.alias}", host.told()))
    return report


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


@pytest.fixture(scope="session")
def pinned_image(lab: Lab) -> None:
    """gpurun's own image is built on the host with the engine, by gpurun itself: a minute when it is not there yet."""
    with Laptop(lab) as laptop:
        project = laptop.project({"gpurun.toml": "", "ready.py": "print('the image is ready')\n"})
        laptop.gpurun("submit", "ready.py", "-H", "ada", "-g", "0", "-f", cwd=project, timeout=900)


@pytest.fixture
def jobs(laptop: Laptop, pinned_image: None, host: LabHost) -> Jobs:
    """Jobs on the host with an engine, as its user ada."""
    return Jobs(laptop, host)


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

"""`ps` of one host over a connection that is open already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gpurun.agent.schema.requests import PsRequest
from gpurun.commands import runs
from gpurun.config.hosts import HostProfile
from gpurun.remote import wire
from gpurun.remote.wire import Wire
from tests.support.faultproxy import FaultProxy
from tests.support.slow_line import slow_line

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

ASKED: PsRequest = {"all": False, "gpus": False}


@pytest.fixture
def line(
    embedded_host: EmbeddedHost, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """The line to the host, over which a connection stands."""
    with slow_line(embedded_host, tmp_path) as (proxy, ssh):
        monkeypatch.setenv("GPURUN_SSH", ssh)
        connection = wire.connect(HostProfile("demo"), interactive=False).connection
        assert ps().failure is None
        assert connection.is_warm
        monkeypatch.setattr(runs, "PATIENCE", 0.5)
        yield proxy
        connection.close()


def ps() -> runs.HostRuns:
    (found,) = runs.list_runs([HostProfile("demo")], ASKED)
    return found


def after_let_go(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    let_go = Wire.let_go

    def letting_go(self: Wire, **within: float) -> None:
        let_go(self, **within)
        act()

    monkeypatch.setattr(Wire, "let_go", letting_go)


def test_a_host_that_is_silent_behind_its_open_connection_has_the_time_of_ps_and_no_more(line: FaultProxy) -> None:
    line.blackhole()
    failure = ps().failure
    assert failure is not None
    assert failure.what == f"no answer within {runs.PATIENCE:g} s"


def test_a_connection_that_died_in_the_laptops_sleep_is_made_anew(
    line: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(line.traffic)

    def heal() -> None:
        line.heal()
        monkeypatch.setattr(runs, "PATIENCE", 20.0)  # a machine that is busy with other tests is slow

    after_let_go(monkeypatch, heal)
    line.blackhole()
    assert ps().failure is None
    assert len(line.traffic) == before + 1


def test_a_host_that_is_only_slow_has_its_time_and_keeps_its_connection(
    line: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(line.traffic)
    monkeypatch.setattr(runs, "PATIENCE", 0.001)
    monkeypatch.setattr(Wire, "let_go", lambda self, **within: None)
    assert ps().failure is None
    assert len(line.traffic) == before


def test_one_host_of_several_that_is_silent_has_the_same_time(line: FaultProxy) -> None:
    line.blackhole()
    found = runs.list_runs([HostProfile("demo"), HostProfile("demo")], ASKED)
    assert {one.failure.what for one in found if one.failure is not None} == {f"no answer within {runs.PATIENCE:g} s"}

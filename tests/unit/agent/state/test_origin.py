"""Machines that are cloned, shared, renamed, reinstalled or gone: whose a run is, and what is done to it in doubt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpurun.agent import machine
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.paths import RunPaths
from gpurun.agent.schema.host import Signs
from gpurun.agent.state import origin


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ({}, {"product_uuid": "a", "macs": ["m"], "hostname": "x"}, True),
        ({"product_uuid": "a"}, {"product_uuid": "b"}, False),
        (
            {"product_uuid": "a", "macs": ["m"]},
            {"product_uuid": "a", "macs": ["n"]},
            False,
        ),  # a maker's one uuid for all
        ({"board_asset_tag": "i-1"}, {"board_asset_tag": "i-2"}, False),
        ({"instance": "i-1", "macs": ["m"]}, {"instance": "i-2", "macs": ["m"]}, False),
        ({"macs": ["m", "n"], "hostname": "x"}, {"macs": ["n", "o"], "hostname": "y"}, True),
        ({"macs": ["m"]}, {"macs": ["n"]}, False),
        ({"hostname": "x"}, {"hostname": "y"}, False),
        ({"hostname": "x", "product_uuid": "a"}, {"hostname": "y", "product_uuid": "a"}, True),
        ({"hostname": "x", "macs": ["m"]}, {"hostname": "y"}, False),
    ],
)
def test_another_machine_by_its_signs(before: Signs, now: Signs, same: bool) -> None:
    assert (machine.another_machine(before, now) is None) is same


def test_boot_id_in_a_container_changes_with_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPURUN_BOOT_ID_FILE", raising=False)
    monkeypatch.setattr(machine, "in_container", lambda: True)
    of_the_machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    boots = set()
    for started in (100, 200):
        monkeypatch.setattr(machine, "_first_process_started", lambda at=started: at)
        boots.add(machine.boot_id())
        assert machine.is_this_boot(machine.boot_id())
        assert machine.is_this_boot(of_the_machine)  # as an earlier gpurun noted it
    assert len(boots - {of_the_machine}) == 2
    assert not machine.is_this_boot(next(iter(boots - {machine.boot_id()})))


def a_run(folder: Path) -> RunPaths:
    run = RunPaths(str(folder / "runs/train-0000"))
    Path(run.root).mkdir(parents=True)
    return run


def test_life_that_another_process_holds_for_a_while_is_shown_later(tmp_path: Path) -> None:
    """An earlier supervisor that still copies, or somebody on another machine who only looks."""
    run = a_run(tmp_path)
    other = origin.show_life(run)
    life = supervisor._Life(run)
    life.show()
    os.close(other)
    assert not origin.lives(run)
    life.show()
    assert origin.lives(run)
    life.hide()
    life.show()  # by the thread that keeps the locks, a moment too late
    assert not origin.lives(run)

"""What `host leave` shows before it asks."""

from __future__ import annotations

from gpurun.cli.host.leave import _lines
from gpurun.hosts.leave import Beside, Plan, Stays


def shown(*, fetch: bool, live: tuple[str, ...] = (), services: tuple[str, ...] = ()) -> dict[str, str]:
    plan = Plan(live=live, services=services, unfetched={}, all=(*live, *services, "train-0000"))
    return dict(_lines(plan, Beside({}, ()), fetch=fetch, keep_data=False))


def test_leave_says_that_all_is_here_of_runs_that_have_ended_alone() -> None:
    assert shown(fetch=True)["runs"] == "1 run: removed, all that they wrote is here"
    assert shown(fetch=False, live=("train-0001",))["runs"] == "2 runs: removed"


def test_leave_says_that_what_was_written_in_an_open_service_is_given_up_or_fetched() -> None:
    assert shown(fetch=False, services=("jupyter-0001",))["services"] == (
        "jupyter-0001: stopped, and what was written in them given up"
    )
    assert shown(fetch=True, services=("jupyter-0001",))["services"] == (
        "jupyter-0001: stopped; what was written in them is fetched"
    )


def test_leave_names_the_runs_that_are_not_in_the_hosts_root_before_it_asks() -> None:
    plan = Plan(live=(), services=(), unfetched={}, all=())
    beside = Beside({}, (), (Stays("/home/ada/.gpurun/runs", "its runs are not in the host's root: train-0000"),))
    lines = dict(_lines(plan, beside, fetch=True, keep_data=False))
    assert lines["stays"] == "/home/ada/.gpurun/runs: its runs are not in the host's root: train-0000"

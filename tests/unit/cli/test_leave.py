"""What `host leave` shows before it asks."""

from __future__ import annotations

from dataclasses import replace

from gpurun.cli.host.leave import _lines
from gpurun.hosts.leave import Beside, Plan, Stays


def shown(*, fetch: bool, live: tuple[str, ...] = (), services: tuple[str, ...] = ()) -> dict[str, str]:
    plan = Plan(live=live, services=services, unfetched={}, all=(*live, *services, "train-0000"))
    return dict(_lines(plan, Beside({}, ()), fetch=fetch, keep_data=False))


def test_leave_says_that_all_is_here_of_runs_that_have_ended_alone() -> None:
    assert shown(fetch=True)["runs"] == "1 run: removed, all that they wrote is here"
    assert shown(fetch=False, live=("train-0001",))["runs"] == "2 runs: removed"


def test_leave_counts_what_comes_and_says_at_least_where_more_may_come() -> None:
    plan = Plan(live=(), services=(), unfetched={"train-0000": 9000, "train-0001": 9000}, all=("a", "b", "c"))
    assert runs_line(plan) == "3 runs: 2 to be fetched (18.0 kB), then all are removed"
    plan = replace(plan, here_in_part=1)
    assert runs_line(plan) == "3 runs: 2 to be fetched (18.0 kB, less what is here of 1), then all are removed"
    plan = replace(plan, here_in_part=0, uncounted=frozenset(["train-0001"]))
    assert runs_line(plan) == "3 runs: 2 to be fetched (at least 18.0 kB), then all are removed"
    plan = replace(plan, services=("jupyter-0001",), uncounted=frozenset())
    assert runs_line(plan) == "3 runs: at least 2 to be fetched (18.0 kB), then all are removed"


def runs_line(plan: Plan) -> str:
    return dict(_lines(plan, Beside({}, ()), fetch=True, keep_data=False))["runs"]


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

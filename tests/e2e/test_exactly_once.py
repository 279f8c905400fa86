"""A run starts once per attempt, on one host, whatever breaks off between the laptop and two hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.laptop_and_hosts import LaptopAndHosts, laptop_and_hosts

# Kills gpurun before or behind one thing that it does for a resume on another host.
KILLED = """
import importlib.util, os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r}: return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            real = getattr(module, {name!r})
            def trapped(*arguments, **options):
                if {when!r} == "before": die()
                real(*arguments, **options)
                die()
            setattr(module, {name!r}, trapped)
        spec.loader.exec_module = exec_module
        return spec
def die(): os.kill(os.getpid(), signal.SIGKILL)
sys.meta_path.insert(0, Finder())
"""
FULL = KILLED.replace("os.kill(os.getpid(), signal.SIGKILL)", "raise OSError(28, 'No space left on device')")
POINTS = [
    ("before", "_ask_the_old_host"),
    ("after", "_ask_the_old_host"),
    ("before", "_push"),
    ("after", "_push"),
    ("after", "_unload"),
    ("before", "_tell_the_old_host"),
]

# Stands for python3 on a host: the agent that is asked the verb in the file `victim` does it, and dies before its answer.
DIES = """#!/bin/sh
victim=$(cat {victim} 2>/dev/null)
case " $* " in *" ${{victim:-none}} "*) {python} "$@" >/dev/null; exit 137;; esac
exec {python} "$@"
"""


@pytest.fixture
def two() -> Iterator[LaptopAndHosts]:
    with laptop_and_hosts("a", "b") as laptop:
        yield laptop


@pytest.mark.parametrize(("when", "step"), POINTS)
def test_resume_elsewhere_that_was_killed_is_settled_by_the_next_resume(
    two: LaptopAndHosts, when: str, step: str
) -> None:
    run = two.ended_with_a_checkpoint("a")
    two.with_trap(KILLED.format(module="gpurun.commands.migrate", name=step, when=when))
    assert two.gpurun("resume", run, "--host", "b", "-y").code == -9
    two.without_trap()
    begun = two.attempts(run)
    two.gpurun("resume", run)  # on the host that has it: that may be b, where it is live then
    assert two.attempts(run) == 1
    where = "b" if begun else "a"
    assert "attempt" in two.events(where, run)
    assert two.json("status", run)["host"] == where
    two.ok("stop", "--force", run)
    two.ok("resume", run, "--host", "b" if where == "a" else "a")
    assert two.attempts(run) == 2
    two.ok("stop", "--force", run)


def test_resume_elsewhere_whose_laptop_is_full_behind_the_beginning_begins_once(two: LaptopAndHosts) -> None:
    run = two.ended_with_a_checkpoint("a")
    two.with_trap(FULL.format(module="gpurun.store.run_store", name="note_begun", when="before"))
    assert two.gpurun("resume", run, "--host", "b", "-y").code != 0
    two.without_trap()
    refused = two.gpurun("resume", run)
    assert f"{run} is still running on b" in refused.err
    assert two.attempts(run) == 1
    two.ok("stop", "--force", run)


def test_resume_where_it_was_is_refused_on_any_laptop_while_it_may_be_elsewhere(two: LaptopAndHosts) -> None:
    """Another laptop knows nothing of the move: it asks the host to which the run was left."""
    run = two.ended_with_a_checkpoint("a")
    two.with_trap(KILLED.format(module="gpurun.commands.migrate", name="_unload", when="after"))
    two.gpurun("resume", run, "--host", "b", "-y")
    two.without_trap()
    entry = next((two.home / ".local/share/gpurun/runs").glob(f"{run}.json"))
    told = json.loads(entry.read_text())
    entry.write_text(json.dumps({**told, "maybe_on": None, "move": None}))
    two.gpurun("resume", run)
    assert (two.attempts(run), two.json("status", run)["host"]) == (1, "b")
    two.ok("stop", "--force", run)


def test_resume_elsewhere_whose_host_does_not_answer_any_more_wants_a_yes(two: LaptopAndHosts) -> None:
    run = two.ended_with_a_checkpoint("a")
    two.with_trap(KILLED.format(module="gpurun.commands.migrate", name="_unload", when="after"))
    two.gpurun("resume", run, "--host", "b", "-y")
    two.without_trap()
    good = two.config.read_text()
    two.out_of_reach("b")
    refused = two.gpurun("resume", run)
    assert (refused.code, "it would run twice" in refused.err) == (2, True)
    assert two.events("a", run).count("attempt") == 0
    two.ok("resume", run, "-y")
    two.config.write_text(good)
    done = two.gpurun("stop", "--force", run)
    assert f"attempt 2 of {run} on b was stopped" in done.err
    assert two.events("b", run)[-1] == "ended"


@pytest.fixture
def deadly(tmp_path: Path) -> Iterator[LaptopAndHosts]:
    victim = tmp_path / "victim"
    with laptop_and_hosts("a", "b", python3=DIES.format(victim=victim, python=sys.executable)) as laptop:
        yield laptop


def test_agent_that_dies_behind_the_beginning_begins_a_run_once(deadly: LaptopAndHosts, tmp_path: Path) -> None:
    run = deadly.ended_with_a_checkpoint("a")
    (tmp_path / "victim").write_text("resume")
    done = deadly.gpurun("resume", run, "--host", "b")
    (tmp_path / "victim").unlink()
    assert "b has begun all the same" in done.err
    assert f"{run} is still running on b" in deadly.gpurun("resume", run).err
    assert deadly.attempts(run) == 1
    deadly.ok("stop", "--force", run)


def test_submit_whose_agent_dies_behind_the_start_is_gone_on_with_when_it_is_repeated(
    deadly: LaptopAndHosts, tmp_path: Path
) -> None:
    submit = ("submit", "-H", "a", "train.py", "--", "steps=99999")
    (tmp_path / "victim").write_text("start")
    failed = deadly.gpurun(*submit)
    (tmp_path / "victim").unlink()
    assert failed.code == 125
    assert "submit again: that goes on with" in failed.err
    run = deadly.ok(*submit).strip()
    assert [record["id"] for record in deadly.json("ps", "-H", "a")["runs"]] == [run]
    deadly.ok("stop", "--force", run)


def test_other_name_of_the_host_resumes_in_place() -> None:
    with laptop_and_hosts("box", aliases={"vpn": "box"}) as laptop:
        run = laptop.ended_with_a_checkpoint("box")
        done = laptop.gpurun("resume", run, "--host", "vpn")
        assert f"{run} goes on as attempt 2 on vpn, from checkpoints/stop.ckpt" in done.err
        assert "stays on box" not in done.err
        laptop.ok("stop", run)
        laptop.ok("resume", run, "--host", "box")
        assert "moved" not in laptop.events("box", run)
        assert not (laptop.folder("box", run) / "carried").exists()
        laptop.ok("stop", "--force", run)


def test_attempt_on_a_host_that_came_back_is_shown_and_stopped_and_keeps_the_run(two: LaptopAndHosts) -> None:
    run = two.submit_to("a", "steps=100000", "every=10", "pace=0.02")
    two.until_it_trains(run)
    good = two.config.read_text()
    two.out_of_reach("a")
    two.ok("resume", run, "--host", "b", "-y")
    assert [(one["id"], one["host"]) for one in two.json("ps", "-H", "b")["runs"]] == [(run, "b")]
    assert "attempt 1 may still be running on a, which does not answer" in two.ok("status", run)
    two.config.write_text(good)
    listed = [(one["id"], one["host"], one["attempt"]) for one in two.json("ps")["runs"]]
    assert sorted(listed) == [(run, "a", 1), (run, "b", 2)]
    for command in (("ps",), ("ps", "-a")):
        lines = [line.split() for line in two.ok(*command).splitlines() if line.startswith(run)]
        assert sorted((" ".join(line[1:4]), line[-1]) for line in lines if "(attempt" in line) == [
            ("running (attempt 1)", "a")
        ], command
        assert len(lines) == 2, command
    shown = two.ok("status", run)
    assert f"attempt 1 is running on a; gpurun stop {run} ends all of them" in shown
    assert "attempt 1 ended" not in shown
    assert "attempt 1 begins at step 0" in two.ok("logs", run, "--attempt", "1")
    two.ok("stop", "--force", run)
    assert (two.events("a", run)[-1], two.events("b", run)[-1]) == ("ended", "ended")
    assert two.json("ps")["runs"] == []
    ended = [(one["host"], one["attempt"], one["state"]) for one in two.json("ps", "-a")["runs"] if one["id"] == run]
    assert sorted(ended) == [("a", 1, "stopped"), ("b", 2, "stopped")]
    assert "attempt 1 was stopped on a" in two.ok("status", run)


def test_log_of_an_attempt_comes_from_the_host_that_it_was_on(two: LaptopAndHosts) -> None:
    run = two.ended_with_a_checkpoint("a")
    two.ok("resume", run, "--host", "b")
    assert "attempt 1 begins at step 0" in two.ok("logs", run, "--attempt", "1")
    two.ok("stop", "--force", run)
    two.out_of_reach("a")
    refused = two.gpurun("logs", run, "--attempt", "1")
    assert (refused.code, "was on another host" in refused.err) == (2, True)
    assert "a, which" in refused.err
    assert "when a answers again" in refused.err


def test_log_of_an_attempt_comes_from_what_was_fetched_when_its_host_is_away(two: LaptopAndHosts) -> None:
    run = two.ended_with_a_checkpoint("a")
    folder = Path(two.ok("fetch", run).strip())
    two.ok("resume", run, "--host", "b")
    two.ok("stop", "--force", run)
    two.out_of_reach("a")
    assert "attempt 1 begins at step 0" in two.ok("logs", run, "--attempt", "1")
    two.ok("fetch", run)
    assert (folder.parent / f"{run}-on-a").is_dir(), "it was put aside"
    assert "attempt 1 begins at step 0" in two.ok("logs", run, "--attempt", "1")
    two.out_of_reach("b")
    assert "attempt 1 begins at step 0" in two.ok("logs", run, "--attempt", "1")


def test_resume_on_a_third_host_finds_what_a_fetch_moved_aside() -> None:
    with laptop_and_hosts("a", "b", "c") as laptop:
        run = laptop.ended_with_a_checkpoint("a")
        folder = Path(laptop.ok("fetch", run).strip())
        laptop.ok("resume", run, "--host", "b")
        folder.rename(folder.with_name(f"{run}-on-a"))  # as a fetch from b does first
        for name in ("a", "b"):
            laptop.hosts[name].close()
        done = laptop.gpurun("resume", run, "--host", "c", "-y")
        assert f"{run} goes on as attempt 3 on c, from checkpoints/stop.ckpt" in done.err
        laptop.ok("stop", "--force", run)


def test_id_that_a_run_of_another_laptop_has_on_the_host_is_drawn_anew(two: LaptopAndHosts) -> None:
    """The host refuses it; neither run is lost, and nobody has to type anything again."""
    twice = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "gpurun.commands.submit":
            sys.meta_path.remove(self)
            import gpurun.store.run_ids as run_ids, secrets
            real, drawn = run_ids.new_id, []
            def new_id(name, choose=secrets.choice):
                drawn.append(1)
                return real(name, choose=lambda alphabet: alphabet[5]) if len(drawn) == 1 else real(name, choose)
            run_ids.new_id = new_id
sys.meta_path.insert(0, Finder())
"""
    two.with_trap(twice)
    first = two.submit_to("a", "steps=99999")
    (two.home / ".local/share/gpurun/runs" / f"{first}.json").unlink()  # as if another laptop had submitted it
    second = two.submit_to("a", "steps=99998")
    assert (first, second != first) == ("train-7777", True)
    assert {one["id"] for one in two.json("ps", "-H", "a")["runs"]} == {first, second}
    third = two.submit_to("b", "steps=99999")
    assert third not in (first, second)
    two.without_trap()
    assert {one["id"]: one["host"] for one in two.json("ps")["runs"]} == {first: "a", second: "a", third: "b"}
    two.ok("stop", "--force", first, second, third)


# Stands for ssh: the host goes away once, when it has done what was asked and before its answer comes.
BREAKS_OFF = """#!/bin/sh
case "$*" in *prepare*) [ -e {once} ] || {{ touch {once}; {ssh} "$@" >/dev/null 2>&1
    {ssh} -O exit "$@" >/dev/null 2>&1
    sed -i 's/Port .*/Port 9/' {config}; exit 255; }};; esac
exec {ssh} "$@"
"""


def test_submit_that_broke_off_before_the_answer_is_repeated_under_its_id(two: LaptopAndHosts) -> None:
    two.ok("ps", "-H", "a")  # the host has the agent: the first question of the submit is `prepare`
    cold = two.directory / "cold"  # and no connection is open
    cold.mkdir(mode=0o700)
    two.environment["XDG_RUNTIME_DIR"] = str(cold)
    real = two.environment["GPURUN_SSH"]
    stand_in = two.directory / "ssh"
    stand_in.write_text(BREAKS_OFF.format(once=two.directory / "once", ssh=real, config=two.config))
    known = two.config.read_text()
    stand_in.chmod(0o755)
    two.environment["GPURUN_SSH"] = str(stand_in)
    assert two.gpurun("submit", "-H", "a", "train.py", "--", "steps=1").code == 255
    two.config.write_text(known)
    (begun,) = (two.root("a") / "runs").iterdir()
    assert two.submit_to("a", "steps=1") == begun.name
    assert [path.name for path in (two.root("a") / "runs").iterdir()] == [begun.name]
    two.ok("wait", begun.name)


def test_resumes_at_the_same_time_begin_at_most_one_attempt(two: LaptopAndHosts) -> None:
    run = two.ended_with_a_checkpoint("a")
    started = [two.start("resume", run, *where) for where in (("--host", "b"), (), ("--host", "b"))]
    for process in started:
        process.communicate(timeout=60)
    assert two.attempts(run) == sum(process.returncode == 0 for process in started) <= 1
    two.gpurun("resume", run)
    assert two.attempts(run) == 1
    two.ok("stop", "--force", run)

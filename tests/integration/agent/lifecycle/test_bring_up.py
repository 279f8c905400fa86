"""What stands before a job, while others prune images and restart the engine: a supervisor's steps over a scripted runtime."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.agent.errors import ImageGone, JobLost, RunFailed
from gpurun.agent.host import locks
from gpurun.agent.host.engine import EngineError
from gpurun.agent.lifecycle import records, supervisor
from gpurun.agent.paths import RunPaths
from gpurun.agent.queue import allocation
from gpurun.agent.runtimes import Presence
from gpurun.agent.state import jobs, journal
from tests.support.agent_host import AgentHost

AWAY = EngineError("down", "unknown server OS: .", "docker")


class Runtime:
    """Each step does what its script says next: raise it, or go well when there is nothing more."""

    name = "docker"

    def __init__(self, **script: Any) -> None:
        self.script = script
        self.done: list[str] = []
        self.answers: Iterator[bool] = iter([])

    def _step(self, name: str) -> None:
        self.done.append(name)
        if self.script.get(name):
            raise self.script[name].pop(0)

    def prepare(self, *_: Any) -> Any:
        self._step("prepare")
        return {"image_id": "sha256:1a2b"}

    def create_and_start(self, *_: Any) -> None:
        self._step("start")

    def remove(self, *_: Any) -> None:
        self._step("remove")

    def presence(self, *_: Any) -> Presence:
        return Presence("absent" if next(self.answers, True) else "no_answer")


@pytest.fixture
def run(agent: AgentHost, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    for name, value in agent.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(supervisor, "PAUSE", 0.01)
    made = agent.prepare("pass")
    journal.record(made, words.QUEUED)
    return made


def bring_up(run: RunPaths, runtime: Any) -> list[locks.Held]:
    job = jobs.of_attempt(run)
    assert job is not None
    held: list[locks.Held] = []
    supervisor._bring_up(run, job, runtime, held)
    return held


def waited_for(run: RunPaths) -> list[str]:
    return [event["waiting"] or "" for event in journal.read(run) if event.get("waiting")]


@pytest.mark.parametrize("step", ["prepare", "start"])
def test_engine_that_is_away_is_waited_for_and_named(run: RunPaths, step: str) -> None:
    runtime = Runtime(**{step: [AWAY, AWAY]})
    runtime.answers = iter([False, False, True])
    bring_up(run, runtime)
    assert runtime.done.count(step) == 3
    assert all("the engine is not running" in one for one in waited_for(run))
    assert waited_for(run) != []
    assert journal.fold(run).waiting is None, "it is waited for no more"


def test_engine_that_does_not_tell_what_there_is_of_a_job_is_waited_for_and_named(run: RunPaths) -> None:
    """A supervisor that was started again behind one that had made things ready."""
    journal.record(run, words.PREPARING)
    runtime: Any = Runtime()
    runtime.answers = iter([False, False, True])
    job = jobs.of_attempt(run)
    assert job is not None
    assert supervisor._presence(run, job, runtime).kind == "absent"
    assert waited_for(run) == [supervisor.ENGINE_SILENT]


def test_engine_that_refuses_for_another_reason_is_not_waited_for(run: RunPaths) -> None:
    with pytest.raises(EngineError):
        bring_up(run, Runtime(prepare=[EngineError("no_right", "")]))


def test_image_that_was_pruned_while_the_run_waited_is_made_ready_again(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPUs are given back meanwhile: an image may take an hour."""
    lock = str(run.root) + "/gpu"
    monkeypatch.setattr(allocation, "wait_for_gpus", lambda *_: ([], [locks.acquire(lock)]))
    runtime = Runtime(start=[ImageGone("image", "No such image")])
    held = bring_up(run, runtime)
    assert runtime.done == ["prepare", "start", "prepare", "start"]
    assert held[0] is not None, "it was free again"
    assert "image" in waited_for(run)[0]
    held[0].release()


def test_image_that_is_gone_each_time_ends_the_run(run: RunPaths) -> None:
    runtime = Runtime(start=[ImageGone("image", "No such image")] * supervisor.IMAGE_TRIES)
    with pytest.raises(RunFailed):
        bring_up(run, runtime)
    assert runtime.done.count("prepare") == supervisor.IMAGE_TRIES


def test_stop_while_the_engine_is_away_ends_a_run_that_has_no_container(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(prepare=[AWAY])
    asked = threading.Event()

    def silent() -> Iterator[bool]:
        while True:
            if not asked.is_set():
                journal.record(run, "stop", reason="stop", grace=1.0, force=False)
                asked.set()
            yield False

    runtime.answers = silent()
    monkeypatch.setattr("gpurun.agent.runtimes.load", lambda *_: runtime)
    supervisor._run_attempt(run)
    assert journal.fold(run).state == words.STOPPED
    assert "remove" not in runtime.done


def step(run: RunPaths) -> Any:
    return records.record_of(run)["step"]


def test_what_is_being_done_before_the_start_is_journalled_and_in_the_record(run: RunPaths) -> None:
    seen = []

    class Looking(Runtime):
        def prepare(self, *_: Any) -> Any:
            seen.append(step(run)["doing"])
            journal.record_step(run, "pulling small:1")
            journal.record_step(run, "pulling small:1")
            seen.append(step(run)["doing"])
            return super().prepare()

        def create_and_start(self, *_: Any) -> None:
            told = step(run)
            seen.append(told["doing"])
            assert (told["since"] > 1e9, told["seconds"] >= 0) == (True, True)

    bring_up(run, Looking())
    assert seen == ["copying the project", "pulling small:1", "starting the job"]
    assert [event["doing"] for event in journal.read(run) if event["event"] == "step"] == seen
    journal.record(run, words.RUNNING)
    assert records.record_of(run)["step"] is None


def test_step_that_follows_a_wait_ends_it_and_a_wait_is_told_before_a_step(run: RunPaths) -> None:
    bring_up(run, Runtime(prepare=[AWAY]))
    state = journal.fold(run)
    assert (state.waiting, state.step["doing"]) == (None, "starting the job")


@pytest.mark.parametrize(("kind", "state"), [(RunFailed, words.FAILED), (JobLost, words.LOST)])
def test_job_that_had_begun_when_its_start_failed_is_lost_and_not_failed(
    run: RunPaths, monkeypatch: pytest.MonkeyPatch, kind: type[RunFailed], state: str
) -> None:
    runtime = Runtime(start=[kind("engine", "the engine has lost it")])
    monkeypatch.setattr("gpurun.agent.runtimes.load", lambda *_: runtime)
    supervisor.supervise(run)
    ended = journal.fold(run)
    assert (ended.state, ended.reason) == (state, "engine")
    assert runtime.done[-1] == "remove"

"""The docker runtime over an engine that others use too: containers are renamed, images pruned, the engine goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent import machine
from gpurun.agent import vocabulary as words
from gpurun.agent.errors import ImageGone, JobLost, RunFailed
from gpurun.agent.host.engine import EngineError
from gpurun.agent.host.identity import Login
from gpurun.agent.lifecycle import supervisor
from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.runtimes import Presence, keeper
from gpurun.agent.runtimes.docker import Docker
from gpurun.agent.setup import wrapper
from tests.support.fake_engine import FakeEngine
from tests.support.part import only

IMAGE = "sha256:1a2b"
DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
PREPARED: Any = {"image_id": IMAGE}


def make_job(attempt: int = 1, token: str = "t0") -> Any:
    return {
        "id": "train-7f3k", "token": token, "name": "train", "owner": "ada", "project": {"name": "vision"},
        "command": ["python", "train.py"], "mounts": [], "keep_caps": [], "user": None, "attempt": attempt, "resume": None,
        "resources": {"gpus": 0, "memory": None, "cpus": None, "shm": None}, "image": IMAGE,
        "dependencies": None, "profile": {"pip_index": None, "registry_mirror": None},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    made = HostPaths(str(tmp_path / "root")).run("train-7f3k")
    os.makedirs(made.out)
    os.makedirs(made.workspace)
    machine.make_root_id(made.host)  # suites side by side have runs of this id
    return made


@pytest.fixture
def fake(tmp_path: Path, run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine(tmp_path / "engine")
    fake.change(images=[IMAGE])
    facts = {"argv": fake.argv, "version": "20.10.24", "rootless": False, "userns": False, "selinux": False}
    monkeypatch.setattr(Docker, "_engine_facts", lambda *_: facts)
    return fake


def test_presence_of_a_renamed_container_is_that_of_the_job(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), name="my-training")
    assert Docker(fake.argv).presence(run, make_job()).kind == "running"


def test_presence_of_a_strangers_container_of_that_name_is_absent(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(token="another"))
    assert Docker(fake.argv).presence(run, make_job()).kind == "absent"


@pytest.mark.parametrize(("attempt", "kind"), [("1", "no_answer"), ("2", "absent")])
def test_presence_of_a_job_that_another_engine_runs_is_not_absent(
    run: RunPaths, fake: FakeEngine, attempt: str, kind: str
) -> None:
    environment = {"GPURUN_RUN_ID": run.id, "GPURUN_ATTEMPT": attempt, keeper.ROOT_MARK: machine.root_mark(run.host)}
    job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    try:
        assert Docker(fake.argv).presence(run, make_job()).kind == kind
    finally:
        job.kill()
        job.wait()
    assert Docker(fake.argv).presence(run, make_job()).kind == "absent"


def test_presence_of_an_earlier_attempts_container_is_absent(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), attempt=1, status="exited", ExitCode=0)
    fake.add(make_job(), attempt=2, name="renamed")
    assert Docker(fake.argv).presence(run, make_job(2)).kind == "running"
    assert Docker(fake.argv).presence(run, make_job(3)).kind == "absent"


def test_signal_and_remove_reach_a_renamed_container_by_its_id(run: RunPaths, fake: FakeEngine) -> None:
    made = fake.add(make_job(), name="my-training")
    Docker(fake.argv).signal(run, make_job(), "TERM")
    assert fake.asked[-1] == f"kill --signal TERM {made}"
    Docker(fake.argv).remove(run, make_job())
    assert fake.containers == []


def test_remove_takes_every_container_of_this_and_earlier_attempts_and_no_other(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.add(make_job(), attempt=1, name="renamed")
    fake.add(make_job(), attempt=2)
    later = fake.add(make_job(), attempt=3, name="later")
    strangers = fake.add(make_job(token="another"), name="strangers")
    Docker(fake.argv).remove(run, make_job(2))
    assert [one["Id"] for one in fake.containers] == [later, strangers]


def test_remove_of_a_container_whose_start_is_on_its_way_leaves_the_job(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), status="created")
    fake.change(on_its_way="running")
    docker = Docker(fake.argv)
    assert docker.presence(run, make_job()).kind == "created"
    assert supervisor._remove_unstarted(run, make_job(), docker).kind == "running"
    docker.remove(run, make_job())
    assert fake.containers == []


def test_remove_of_what_was_never_started_leaves_a_container_that_was_started_before_it(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.add(make_job(), status="exited", ExitCode=0)
    with pytest.raises(EngineError) as refused:
        Docker(fake.argv).remove(run, make_job(), unstarted=True)
    assert refused.value.kind == "running"
    assert len(fake.containers) == 1


def test_start_that_was_on_its_way_when_its_container_was_to_be_made_anew_is_the_jobs(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.change(away=["", HALF], on_its_way="running")
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["State"]["Status"] for one in fake.containers] == ["running"]


@pytest.mark.parametrize("seen", [True, False])
def test_end_with_0_that_the_engine_has_forgotten_is_known_only_to_who_saw_the_job_run(
    run: RunPaths, fake: FakeEngine, seen: bool
) -> None:
    """A clean shutdown of the engine ends a job that then exits with 0, and its next start remembers nothing of it."""
    fake.add(make_job())
    docker = Docker(fake.argv)
    if seen:
        docker.presence(run, make_job())
    state = fake.state
    state["containers"][0]["State"] = {"Status": "exited", "ExitCode": 0}
    fake.save(state)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.exit_code, presence.unseen) == (0, not seen)


@pytest.fixture
def sudo(tmp_path: Path) -> list[str]:
    """The beginning of an engine's argv, by a `sudo` that asks for no password."""
    program = tmp_path / "sudo"
    program.write_text('#!/bin/sh\n[ "$1" = -n ] && shift\n"$@"\n')  # a process of its own, as sudo is
    program.chmod(0o755)
    return [str(program), "-n"]


def test_engine_under_sudo_that_is_shut_down_is_seen_as_by_a_client_of_ones_own(
    run: RunPaths, fake: FakeEngine, sudo: list[str]
) -> None:
    fake.add(make_job(), ExitCode=0)
    docker = Docker([*sudo, *fake.argv])
    assert docker.presence(run, make_job()).kind == "running"
    docker.wait(run, make_job(), 20)
    assert "wait c1" in fake.asked
    fake.change(away=[DOWN])
    assert docker.presence(run, make_job()).kind == "no_answer"
    fake.change(away=[])
    state = fake.state
    state["containers"][0]["State"] = {"Status": "exited", "ExitCode": 0}
    fake.save(state)
    assert docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0).signalled


def test_wait_under_sudo_goes_on_with_the_client_that_it_cannot_kill(
    run: RunPaths, fake: FakeEngine, sudo: list[str]
) -> None:
    fake.add(make_job())
    fake.change(slow_wait=5)
    docker = Docker([*sudo, *fake.argv])
    for _ in range(3):
        docker.wait(run, make_job(), 0.2)
    docker.wait(run, make_job(), 60)
    assert fake.asked.count("wait c1") == 1


def test_shells_are_told_by_the_labels_of_their_containers(run: RunPaths, fake: FakeEngine) -> None:
    for token in ("t0", "another"):
        labels = {words.LABEL_SHELL: run.id, words.LABEL_TOKEN: wrapper.token_label(only(token=token))}
        made = {"Id": "shell-" + token, "Name": "/x", "Config": {"Labels": labels}, "State": {"Status": "running"}}
        fake.change(containers=[*fake.containers, made])
    docker = Docker(fake.argv)
    assert docker.shells(run, make_job()) == [f"{fake.program} kill shell-t0"]
    assert docker.presence(run, make_job()).kind == "absent"
    fake.change(containers=[])
    assert docker.shells(run, make_job()) == []


def test_hand_over_of_roots_files_mounts_nothing_that_a_job_can_put_a_link_in_the_place_of(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpurun.agent.runtimes.docker.login", lambda: Login(1000, 1000, (1000,), "ada"))
    job: Any = {**make_job(), "user": "root"}
    fake.add(job, status="exited", ExitCode=0)
    os.makedirs(run.host.job_cache)
    os.symlink("/etc", run.host.home)
    Docker(fake.argv).presence(run, job)
    asked = next(line for line in fake.asked if line.startswith("run "))
    mounted = [word.split("source=")[1].split(",")[0] for word in asked.split() if "source=" in word]
    assert run.host.job_cache in mounted
    assert run.host.home not in mounted
    assert asked.split().index(run.host.home) > asked.split().index("chown")


def test_start_asks_the_engine_twice_and_names_no_container(run: RunPaths, fake: FakeEngine) -> None:
    """Between the lease of the GPUs and the job's start: `create`, and `start` of the id that it gave."""
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [asked.split()[0] for asked in fake.asked] == ["create", "start"]
    assert fake.asked[-1] == "start c1"


def test_start_adopts_a_renamed_container_and_starts_it_once(run: RunPaths, fake: FakeEngine) -> None:
    docker = Docker(fake.argv)
    docker.create_and_start(run, make_job(), PREPARED, [], [])
    docker.create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]


def test_start_of_an_attempt_whose_container_is_gone_is_refused(run: RunPaths, fake: FakeEngine) -> None:
    """The supervisor died behind the start, and somebody removed the container: the job has run."""
    Path(run.claim(1)).touch()
    with pytest.raises(JobLost, match="started before") as lost:
        Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert lost.value.reason == "removed"
    assert fake.containers == []


CAPTURED = Path(__file__).parents[3] / "data/engine"


def remembered(name: str) -> list[Any]:
    return [json.loads(line) for line in (CAPTURED / f"events_{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("name", "signalled"), [("by_itself", False), ("stopped", True), ("engine_killed", True)])
def test_end_of_a_job_with_exit_code_0_tells_whether_a_signal_came_from_outside(
    run: RunPaths, fake: FakeEngine, name: str, signalled: bool
) -> None:
    fake.add(make_job(), status="exited", ExitCode=0)
    fake.change(events=remembered(name))
    docker = Docker(fake.argv)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.exit_code, presence.signalled, presence.restarted) == (0, signalled, False)


def test_end_of_a_job_with_another_exit_code_asks_nothing(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), status="exited", ExitCode=3)
    docker = Docker(fake.argv)
    presence = docker.presence(run, make_job())
    fake.forget_what_was_asked()
    assert docker.ended(run, make_job(), presence, 1.0) == presence
    assert fake.asked == []


def test_end_that_the_engine_has_forgotten_is_the_exit_code(run: RunPaths, fake: FakeEngine) -> None:
    """It was restarted long since, or is one without such events."""
    fake.add(make_job(), status="exited", ExitCode=0)
    docker = Docker(fake.argv)
    docker.wait(run, make_job(), 5.0)
    assert docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0).signalled is False


def test_end_that_an_engine_tells_before_it_goes_away_is_its_own_doing(run: RunPaths, fake: FakeEngine) -> None:
    """`systemctl restart docker`: the API is closed, containers get TERM, whoever waits is told, and all is forgotten."""
    fake.add(make_job(), status="exited", ExitCode=0)
    docker = Docker(fake.argv)
    docker.wait(run, make_job(), 5.0)
    fake.change(away=[DOWN])
    assert docker.presence(run, make_job()).kind == "no_answer"
    assert docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0).signalled is True


@pytest.mark.parametrize(
    ("events", "code", "restarted"), [([("die", 0, 2.0), ("start", None, 3.0)], 0, False), ([], None, True)]
)
def test_end_of_a_job_whose_container_somebody_started_again(
    run: RunPaths, fake: FakeEngine, events: list[tuple[str, int | None, float]], code: int | None, restarted: bool
) -> None:
    made = fake.add(make_job(), status="exited", ExitCode=wrapper.STARTED_BEFORE, StartedAt="1970-01-01T00:00:09Z")
    told = [
        {
            "Action": action,
            "timeNano": int(t * 1e9),
            "Actor": {"ID": made, "Attributes": {"exitCode": str(exits)} if exits is not None else {}},
        }
        for action, exits, t in events
    ]
    fake.change(events=told)
    docker = Docker(fake.argv)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.exit_code, presence.restarted) == (code, restarted)


def test_end_of_a_job_that_exits_as_a_refused_start_does_is_its_own(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), status="exited", ExitCode=wrapper.STARTED_BEFORE, StartedAt="1970-01-01T00:00:09Z")
    docker = Docker(fake.argv)
    presence = docker.presence(run, make_job())
    assert docker.ended(run, make_job(), presence, 9.5) == presence


def test_end_asked_of_an_engine_that_is_away_is_asked_again(run: RunPaths, fake: FakeEngine) -> None:
    fake.add(make_job(), status="exited", ExitCode=0)
    docker = Docker(fake.argv)
    presence = docker.presence(run, make_job())
    fake.change(away=[DOWN])
    assert docker.ended(run, make_job(), presence, 1.0) == Presence("no_answer")


@pytest.mark.parametrize("said", [DOWN, "unknown server OS: .", "error during connect: Post x: EOF", "unexpected EOF"])
@pytest.mark.parametrize("at", [0, 1])
def test_start_under_an_engine_that_goes_away_for_a_moment_starts_once(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, said: str, at: int
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    fake.change(away=[""] * at + [said])
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]


def test_start_under_an_engine_that_stays_away_is_to_be_tried_again(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpurun.agent.runtimes.docker.PATIENCE", 0.0)
    fake.change(away=["unknown server OS: ."])
    docker = Docker(fake.argv)
    with pytest.raises(EngineError) as away:
        docker.create_and_start(run, make_job(), PREPARED, [], [])
    assert away.value.is_away
    docker.create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]


def test_prepare_under_an_engine_that_is_away_is_to_be_tried_again(run: RunPaths, fake: FakeEngine) -> None:
    fake.change(away=[DOWN])
    with pytest.raises(EngineError) as away:
        Docker(fake.argv).prepare(run, make_job(), lambda _: None)
    assert away.value.is_away
    assert Docker(fake.argv).prepare(run, make_job(), lambda _: None)["image_id"] == IMAGE


def test_start_whose_image_was_pruned_is_to_be_prepared_again(run: RunPaths, fake: FakeEngine) -> None:
    fake.change(images=[])
    with pytest.raises(ImageGone):
        Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])


def test_start_of_a_container_that_was_pruned_before_it_makes_another(run: RunPaths, fake: FakeEngine) -> None:
    fake.change(prune=1)
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]


def test_start_of_a_container_that_is_pruned_each_time_ends_the_run(run: RunPaths, fake: FakeEngine) -> None:
    fake.change(prune=2)
    with pytest.raises(RunFailed):
        Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])


HALF = "Error response from daemon: task bf2215e2: already exists: unknown"


def test_start_that_an_engine_was_killed_in_the_middle_of_is_done_with_another_container(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.change(away=["", HALF])
    Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert [one["starts"] for one in fake.containers] == [1]
    assert [asked.split()[0] for asked in fake.asked].count("create") == 2


def test_start_that_an_engine_was_killed_in_the_middle_of_is_not_done_again_once_the_job_has_begun(
    run: RunPaths, fake: FakeEngine
) -> None:
    fake.add(make_job(), status="created")
    Path(run.claim(1)).touch()
    fake.change(away=["", "", "", "", "", HALF])  # two looks at the container, one at the name, and then the start
    environment = {"GPURUN_RUN_ID": run.id, "GPURUN_ATTEMPT": "1", keeper.ROOT_MARK: machine.root_mark(run.host)}
    job = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)
    try:
        with pytest.raises(JobLost, match="lost the job") as lost:
            Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
        assert job.wait(10) == -signal.SIGKILL, "it lives, and no command to the engine reaches it"
    finally:
        job.kill()
        job.wait()
    assert lost.value.reason == "engine"
    assert len(fake.containers) == 1


def test_start_that_broke_off_is_not_asked_again_once_the_job_has_begun(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine was killed behind the job's first step, and does not know that it has started the container."""
    monkeypatch.setattr("time.sleep", lambda _: Path(run.claim(1)).touch())
    fake.change(away=["", DOWN])
    with pytest.raises(JobLost) as lost:
        Docker(fake.argv).create_and_start(run, make_job(), PREPARED, [], [])
    assert lost.value.reason == "engine"
    assert [one.get("starts", 0) for one in fake.containers] == [0]


@pytest.mark.parametrize("times", [1, 2])
def test_prepare_whose_image_is_pruned_between_two_of_its_steps_begins_anew_once(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    gone = [EngineError("image_absent", "No such image: " + IMAGE) for _ in range(times)]

    def ensure(*_: Any) -> None:
        if gone:
            raise gone.pop()

    monkeypatch.setattr("gpurun.agent.images.docker_layers.ensure", ensure)
    if times == 1:
        assert Docker(fake.argv).prepare(run, make_job(), lambda _: None)["image_id"] == IMAGE
        return
    with pytest.raises(RunFailed) as failed:
        Docker(fake.argv).prepare(run, make_job(), lambda _: None)
    assert failed.value.reason == "image"


@pytest.mark.parametrize(
    ("code", "lived", "finished", "made_up"),
    [
        (0, False, "2100-01-01T00:00:00Z", True),  # 0, at the time when the engine was back
        (0, True, "2100-01-01T00:00:00Z", False),  # it ended while no engine was there, and containerd tells how
        (0, False, "2020-01-01T00:00:00Z", False),  # containerd knew of the end before the engine went
        (255, True, "2100-01-01T00:00:00Z", True),  # it ended while no engine was there, and nobody tells how
        (255, True, "2020-01-01T00:00:00Z", False),  # the job's own code
        (3, True, "2100-01-01T00:00:00Z", False),
    ],
)
def test_exit_code_of_an_engine_that_was_killed_as_the_job_ended_is_none(
    run: RunPaths,
    fake: FakeEngine,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    lived: bool,
    finished: str,
    made_up: bool,
) -> None:
    """Seen with dockerd 20.10: a job that had exited with 3 was told as exited with 0, and as exited with 255."""
    monkeypatch.setattr("gpurun.agent.runtimes.keeper.of_job", lambda *_: [1] if lived else [])
    fake.add(make_job())
    docker = Docker(fake.argv)
    assert docker.presence(run, make_job()).kind == "running"
    fake.change(away=["unexpected EOF"])
    docker.wait(run, make_job(), 5)
    state = fake.state
    state["containers"][0]["State"] = {"Status": "exited", "ExitCode": code, "FinishedAt": finished}
    fake.save(state)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.made_up, presence.exit_code) == (made_up, None if made_up else code)


def event(made: str, action: str, code: int | None = None) -> dict[str, Any]:
    attributes = {} if code is None else {"exitCode": str(code)}
    return {"Action": action, "timeNano": int(2e9), "Actor": {"ID": made, "Attributes": attributes}}


@pytest.mark.parametrize("remembered", [[], ["die"], ["start", "die"]])
def test_exit_code_255_is_the_jobs_own_only_where_the_engine_remembers_start_and_end(
    run: RunPaths, fake: FakeEngine, remembered: list[str]
) -> None:
    """An engine that was killed as the job ended says so when it is back, and dockerd 20.10 even tells a `die`."""
    made = fake.add(make_job(), status="exited", ExitCode=255)
    fake.change(events=[event(made, action, 255 if action == "die" else None) for action in remembered])
    docker = Docker(fake.argv)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    own = len(remembered) == 2
    assert (presence.made_up, presence.exit_code) == (not own, 255 if own else None)


@pytest.mark.parametrize("away", [True, False])
def test_exit_code_255_of_an_engine_that_was_there_all_the_while_is_the_jobs_own(
    run: RunPaths, fake: FakeEngine, away: bool
) -> None:
    """Behind many other events, it has forgotten the start. One that was away for a while says that the job runs, too."""
    made = fake.add(make_job())
    docker = Docker(fake.argv)
    if away:
        fake.change(away=[DOWN])
        assert docker.presence(run, make_job()).kind == "no_answer"
    assert docker.presence(run, make_job()).kind == "running"
    state = fake.state
    state["containers"][0]["State"] = {"Status": "exited", "ExitCode": 255}
    fake.save({**state, "events": [event(made, "die", 255)]})
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.made_up, presence.exit_code) == (away, None if away else 255)


@pytest.mark.parametrize("code", [0, 3])
@pytest.mark.parametrize("made_up", [0, 255])
def test_exit_code_that_an_engine_told_before_it_was_killed_is_the_jobs(
    run: RunPaths, fake: FakeEngine, made_up: int, code: int
) -> None:
    fake.add(make_job(), ExitCode=code)
    docker = Docker(fake.argv)
    assert docker.presence(run, make_job()).kind == "running"
    docker.wait(run, make_job(), 20)
    fake.change(away=[DOWN])
    assert docker.presence(run, make_job()).kind == "no_answer"
    state = fake.state
    state["containers"][0]["State"] = {"Status": "exited", "ExitCode": made_up, "FinishedAt": "2100-01-01T00:00:00Z"}
    fake.save(state)
    docker.wait(run, make_job(), 20)
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.exit_code, presence.made_up, presence.signalled) == (code, False, False)


@pytest.mark.parametrize("question", ["presence", "events"])
def test_engine_that_was_away_for_one_question_of_the_jobs_end_may_have_made_the_exit_code_up(
    run: RunPaths, fake: FakeEngine, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    monkeypatch.setattr("gpurun.agent.runtimes.keeper.of_job", lambda *_: set())
    fake.add(make_job(), status="exited", ExitCode=0, FinishedAt="2100-01-01T00:00:00Z")
    docker = Docker(fake.argv)
    if question == "events":
        presence = docker.presence(run, make_job())
    fake.change(away=[DOWN])
    if question == "events":
        assert docker.ended(run, make_job(), presence, 1.0).kind == "no_answer"
    else:
        assert docker.presence(run, make_job()).kind == "no_answer"
    presence = docker.ended(run, make_job(), docker.presence(run, make_job()), 1.0)
    assert (presence.exit_code, presence.made_up) == (None, True)

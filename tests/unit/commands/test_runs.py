"""What a run's end means for an exit code, and how runs are waited for."""

from __future__ import annotations

import getpass
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurun.agent import vocabulary as words
from gpurun.cli.app import main
from gpurun.commands import migrate, prune, remove, resume, runs, stop, unfetched, wait
from gpurun.commands.hints import hint
from gpurun.commands.submit import Started
from gpurun.errors import GpurunError, HostError, HostUnreachable, UsageError
from gpurun.events import ignore
from gpurun.job.files import FileList
from gpurun.remote import records
from gpurun.store import run_names, run_questions, run_store
from tests.support.agent_answers import record
from tests.support.part import part


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("succeeded", 0, 0),
        ("failed", 3, 3),
        ("failed", 137, 137),
        ("failed", None, 125),
        ("failed", 0, 125),
        ("stopped", 0, 143),
        ("stopped", 137, 137),
        ("stopped", None, 143),
        ("timed_out", 0, 143),
        ("lost", None, 125),
        ("running", None, None),
        ("queued", None, None),
    ],
)
def test_only_success_ends_with_0(state: str, code: int | None, expected: int | None) -> None:
    assert records.exit_code(part({"state": state, "exit_code": code})) == expected


@pytest.mark.parametrize(
    ("said", "part"),
    [
        ("ModuleNotFoundError: No module named 'timm.models'", "`timm`"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "smaller batch"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "--shm-size"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/train.csv'", "data/train.csv"),
        ("OSError: [Errno 28] No space left on device", "prune"),
    ],
)
def test_hints(said: str, part: str) -> None:
    found = hint(f"Traceback (most recent call last):\n{said}")
    assert found is not None
    assert part in found


def test_no_hint_for_what_is_not_known() -> None:
    assert hint("ValueError: x") is None


def test_host_that_answers_a_wait_at_once_is_not_asked_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    class Hasty:
        host = "box"

        def ask(self, verb: str, request: Any, **_: Any) -> Any:
            over = len(slept) == 3
            return {
                "runs": [{"id": "a-1111", "state": "succeeded" if over else "running", "live": not over}],
                "ledgers": {},
            }

    monkeypatch.setattr(runs, "wire_to", lambda host: Hasty())
    monkeypatch.setattr(run_questions, "store", lambda answer, host: None)
    entry = SimpleNamespace(id="a-1111", host="box")
    done = wait.until_ended([entry], wait.Waiting(sleep=slept.append))  # type: ignore[list-item]
    assert list(done) == ["a-1111"]
    assert slept == [wait.PAUSE] * 3


def test_waiting_asks_again_while_the_host_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpurun.errors import ContactLost

    answers: list[Any] = [
        {"runs": [{"id": "a", "state": "running"}]},
        ContactLost("gone"),
        {"runs": [{"id": "a", "state": "failed", "exit_code": 3}]},
    ]

    class Wire:
        host = "box"

        def ask(self, *_: object, **__: object) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    lost: list[str] = []
    monkeypatch.setattr(runs, "wire_to", lambda host: Wire())
    monkeypatch.setattr("gpurun.store.run_store.update", lambda *_, **__: None)
    waiting = wait.Waiting(lost=lambda host, error: lost.append(host), sleep=lambda _: None)
    done = wait.until_ended([SimpleNamespace(id="a", host="box")], waiting)  # type: ignore[list-item]
    assert [record["state"] for record in done.values()] == ["failed"]
    assert lost == ["box"]


UNKNOWN: Any = {
    "id": "a-1111", "state": "unknown", "live": True, "message": "it may be another machine's", "problem": None,
    "next": "gpurun stop --abandon a-1111", "kill_in": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("told", "what", "next_step"),
    [
        ({}, "it may be another machine's", "gpurun stop --abandon a-1111"),
        (
            {"message": None, "next": None, "problem": "its job is damaged"},
            "its job is damaged",
            "gpurun status a-1111",
        ),
        ({"message": None, "next": None}, "a-1111 cannot be read", "gpurun status a-1111"),
    ],
)
def test_wait_for_a_run_that_its_host_does_not_know_says_so(
    monkeypatch: pytest.MonkeyPatch, told: Any, what: str, next_step: str
) -> None:
    answers = [{"runs": [{"id": "b-2222", "state": "failed"}, {**UNKNOWN, **told}], "ledgers": {}}]
    monkeypatch.setattr(runs, "wire_to", lambda host: SimpleNamespace(host=host, ask=lambda *_, **__: answers.pop()))
    monkeypatch.setattr(run_questions, "store", lambda answer, host: None)
    ended: list[str] = []
    entries = [SimpleNamespace(id=run, host="box") for run in ("a-1111", "b-2222")]
    waiting = wait.Waiting(ended=lambda record: ended.append(record["id"]), sleep=lambda _: None)
    with pytest.raises(GpurunError) as error:
        wait.until_ended(entries, waiting)  # type: ignore[arg-type]
    assert (error.value.what, error.value.next_step, error.value.where) == (what, next_step, "box")
    assert ended == ["b-2222"]


def test_stop_does_not_wait_for_a_run_that_its_host_does_not_know() -> None:
    entry = SimpleNamespace(id="a-1111", host="box")
    with pytest.raises(GpurunError, match="it may be another machine's") as error:
        stop.watch([entry], [UNKNOWN], lambda live: pytest.fail("it is told as live"))  # type: ignore[list-item]
    assert error.value.where == "box"


@pytest.mark.parametrize(
    ("record", "seconds"),
    [
        ({"created": 1000.0, "ended": 2000.0}, 98_000.0),
        ({"created": 99_000.0, "ended": 2000.0}, 1000.0),  # the host's clock was wrong until NTP came
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": 40.0, "boot": "b"}}, 60.0),
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": 40.0, "boot": "another"}}, 98_000.0),
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"boot": "b"}}, 98_000.0),
        ({"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": None, "boot": "b"}}, 98_000.0),
        ({"created": None, "ended": None}, 0.0),
    ],
)
def test_prune_age_is_the_youngest_that_any_clock_tells(record: Any, seconds: float) -> None:
    answer = {"now": 100_000.0, "mark": {"t": 100_000.0, "up": 100.0, "boot": "b"}}
    assert prune.age(record, part(answer), here=100_000.0) == seconds


@pytest.mark.parametrize("mark", [None, {"boot": "b"}, {"up": None, "boot": "b"}])
def test_prune_age_of_a_host_without_a_time_since_its_boot_is_by_the_clocks(mark: Any) -> None:
    record = {"created": 1000.0, "ended": 2000.0, "ended_mark": {"up": 40.0, "boot": "b"}}
    assert prune.age(part(record), part({"now": 100_000.0, "mark": mark}), here=100_000.0) == 98_000.0


def known(run: str, *, removed: bool = False) -> None:
    told = {"id": run, "name": "train", "project": "vision", "created": 1.0, "state": "running", "host_id": "h1"}
    run_store.update([part(told)], "box")
    if removed:
        run_store.note_removed(run)


@pytest.mark.usefixtures("home")
def test_name_of_several_live_runs_is_ambiguous_though_an_older_one_of_that_name_was_removed() -> None:
    known("train-cccc", removed=True)
    assert "was removed" in refused("train")
    known("train-aaaa")
    known("train-bbbb")
    said = refused("train")
    assert "may mean any of" in said
    assert "train-aaaa" in said
    assert "train-bbbb" in said


def refused(word: str) -> str:
    with pytest.raises(UsageError) as caught:
        runs.resolve(word)
    return caught.value.what


class Hosts:
    """Hosts that answer `ps` and `rm`; a string is a refusal's code, None no answer. `asked` are the questions."""

    def __init__(self, *, attempts: dict[str, int] | None = None, **states: str | None) -> None:
        self.states, self.attempts, self.asked = states, attempts or {}, list[tuple[str, str]]()

    def wire_to(self, host: str, **_: Any) -> Any:
        return SimpleNamespace(host=host, ask=partial(self.ask, host))

    def ask(self, host: str, verb: str, request: Any, **_: Any) -> Any:
        self.asked.append((host, verb))
        state = self.states[host]
        if state is None:
            raise HostUnreachable("gone", where=host)
        if verb == "rm" and state not in words.ENDS:
            raise HostError("it is live", where=host, code="live")
        told = {"id": "train-7f3k", "name": "train", "project": "vision", "created": 1.0}
        told["attempt"] = self.attempts.get(host, 1)
        holds = {"train-7f3k": {"live": False, "container": False, "files": 1, "bytes": 1, "stamp": host}}
        return {"freed": 7, "removed": [], "held": holds, "runs": [{**told, "host_id": host, "state": state}]}


@pytest.fixture
def went_on(home: Path) -> run_store.RunEntry:
    """A run that went on on `spare` while `box`, where it was live, could not be asked."""
    told = {"id": "train-7f3k", "name": "train", "project": "vision", "created": 1.0}
    run_store.update([part({**told, "state": "running", "attempt": 1, "host_id": "box"})], "box")
    run_store.note_begun(part({**told, "state": "stopped", "attempt": 2, "host_id": "spare"}), "spare", fetched=None)
    return run_names.resolve("train-7f3k")


def test_run_whose_former_host_tells_of_a_live_attempt_is_not_removed(
    went_on: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(box="running", spare="stopped")
    monkeypatch.setattr(runs, "wire_to", hosts.wire_to)
    with pytest.raises(UsageError, match="attempt 1 of train-7f3k is still running on box"):
        remove.remove([went_on], [])
    assert ("spare", "rm") not in hosts.asked
    assert run_store.find("train-7f3k") is not None


def test_run_whose_former_host_is_gone_is_removed(went_on: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box=None, spare="stopped").wire_to)
    assert [(twin.host, twin.seen) for twin in runs.twins(went_on)] == [("box", None)]
    assert remove.remove([went_on], []).freed == 7
    assert run_store.find("train-7f3k") is None


def test_twin_that_has_ended_is_forgotten_when_its_host_is_asked(
    went_on: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare="stopped").wire_to)
    assert list(went_on.twins) == ["box"]
    assert runs.twins(went_on) == []
    assert run_names.resolve("train-7f3k").twins == {}


def test_attempt_that_was_left_behind_live_is_refused_its_removal_by_the_host_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This laptop knows of no twin: the host that it was left on does."""
    told = {"id": "train-7f3k", "name": "train", "project": "vision", "created": 1.0}
    run_store.update([part({**told, "state": "failed", "attempt": 1, "host_id": "box"})], "box")
    run_store.note_begun(part({**told, "state": "stopped", "attempt": 2, "host_id": "spare"}), "spare", fetched=True)
    monkeypatch.setattr(runs, "wire_to", Hosts(box="running", spare="stopped").wire_to)
    with pytest.raises(UsageError, match="still live on box"):
        remove.remove([run_names.resolve("train-7f3k")], [])
    assert run_store.find("train-7f3k") is not None


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> run_store.RunEntry:
    """A run that went on from `box` to `spare`, and whose files are all here from both; the hosts' names are the stamps."""
    told = {"id": "train-7f3k", "name": "train", "project": "vision", "created": 1.0}
    run_store.update([part({**told, "state": "failed", "attempt": 1, "host_id": "box"})], "box")
    run_store.note_begun(part({**told, "state": "stopped", "attempt": 2, "host_id": "spare"}), "spare", fetched=False)
    for host in ("box", "spare"):
        came = tmp_path / host
        (came / ".gpurun").mkdir(parents=True)
        (came / ".gpurun/whole.json").write_text(json.dumps({"run": "train-7f3k", "stamp": host, "files": []}))
        run_store.mark_fetched("train-7f3k", str(came), host=host, stamp=host)
    return run_names.resolve("train-7f3k")


def test_what_is_left_on_a_former_host_goes_once_it_was_looked_at(
    moved: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(box="failed", spare="stopped")
    monkeypatch.setattr(runs, "wire_to", hosts.wire_to)
    seen = unfetched.unfetched_on_each([moved])
    assert unfetched.at_stake([moved], seen) == {}
    assert remove.remove([moved], seen).remains == []
    assert ("box", "rm") in hosts.asked


@pytest.mark.parametrize("came", ["here", "deleted"])
def test_what_is_left_on_a_former_host_stays_when_nobody_could_look_at_it(
    moved: run_store.RunEntry, came: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that asks for a password, as it does only when the laptop may ask a person."""
    if came == "deleted":
        shutil.rmtree(tmp_path / "box")
    hosts = Hosts(box="failed", spare="stopped")

    def wire_to(host: str, *, interactive: bool = True) -> Any:
        return Hosts(box=None).wire_to(host) if host == "box" and not interactive else hosts.wire_to(host)

    monkeypatch.setattr(runs, "wire_to", wire_to)
    seen = unfetched.unfetched_on_each([moved])
    lost = came == "deleted"
    assert unfetched.at_stake([moved], seen) == ({unfetched.NEVER: ["train-7f3k"]} if lost else {})
    assert unfetched.left_at_stake(seen, [moved]) == (["box"] if lost else [])
    (remark,) = remove.remove([moved], seen).remains
    assert "what train-7f3k left on box stays there: nobody could look at it" in remark
    assert ("box", "rm") not in hosts.asked


def test_former_host_that_has_the_run_no_more_is_nothing_to_tell(
    moved: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Emptied(Hosts):
        def ask(self, host: str, *asked: Any, **more: Any) -> Any:
            answer = super().ask(host, *asked, **more)
            return {**answer, "held": {}, "runs": []} if host == "box" else answer

    monkeypatch.setattr(runs, "wire_to", Emptied(box="failed", spare="stopped").wire_to)
    assert remove.remove([moved], unfetched.unfetched_on_each([moved])).remains == []


def test_prune_leaves_a_run_whose_former_host_was_written_to_since_the_fetch(
    moved: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Written(Hosts):
        def ask(self, host: str, *asked: Any, **more: Any) -> Any:
            answer = super().ask(host, *asked, **more)
            answer["held"]["train-7f3k"]["stamp"] = "another" if host == "box" else host
            return answer

    hosts = Written(box="failed", spare="stopped", attempts={"spare": 2})
    record = {**(moved.record or {}), "owner": getpass.getuser()}
    listed = runs.HostRuns("spare", part({"now": 9.0, "runs": [record]}), None, ())
    monkeypatch.setattr(runs, "wire_to", hosts.wire_to)
    monkeypatch.setattr(runs, "list_runs", lambda which, request: [listed])
    assert main(["prune", "--fetched", "-y"]) == 0
    assert "train-7f3k stays: it was written to since the last fetch" in capsys.readouterr().err
    assert not [one for one in hosts.asked if one[1] == "rm"]


def test_attempt_that_ended_unseen_before_the_run_went_on_elsewhere_is_no_twin(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = record(name="train", project="vision", host_id="box")
    ended = {**told, "state": "failed", "live": False}
    run_store.update([part(told)], "box")

    class Moving(Hosts):
        def ask(self, host: str, verb: str, request: Any, **more: Any) -> Any:
            if verb == "ps":
                return {"host_id": host, "runs": [], "ledgers": {}}
            return {"run": ended, "job": {}, "root": "/r", "snapshot": [], "checkpoint": None}

    begun = Started(
        part({**told, "state": "queued", "attempt": 2, "host_id": "spare"}), None, earlier=False, fetch=False
    )
    cargo = migrate.Migration(part({}), part(ended), FileList(home, ()), None, None)
    monkeypatch.setattr(runs, "wire_to", Moving().wire_to)
    monkeypatch.setattr(migrate, "_from_host", lambda *_: cargo)
    monkeypatch.setattr(migrate, "_unload", lambda *_, **__: begun)
    migrate.migrate(run_names.resolve("train-7f3k"), "spare", resume.Asked(), ignore, follow=False)
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, entry.twins, entry.left_on) == ("spare", {}, {"box": False})


@pytest.mark.parametrize("words_given", [["stop"], ["status"], ["stop", "--json"]])
def test_twin_is_reached_while_the_host_that_has_the_run_now_is_away(
    home: Path, words_given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = record(name="train", project="vision", host_id="box")
    run_store.update([part(told)], "box")
    run_store.note_begun(part({**told, "attempt": 2, "host_id": "spare"}), "spare", fetched=None)
    asked = []

    class Away(Hosts):
        def ask(self, host: str, verb: str, request: Any, **more: Any) -> Any:
            super().ask(host, verb, request, **more)
            asked.append((host, verb))
            stopped = {**told, "state": "stopped", "live": False}
            return {"runs": [stopped if verb == "stop" else told], "ledgers": {}, "gpus": []}

    monkeypatch.setattr(runs, "wire_to", Away(box="running", spare=None).wire_to)
    assert main([*words_given, "train-7f3k"]) == HostUnreachable("gone").exit_code
    said = capsys.readouterr()
    assert (("box", "stop") in asked) is (words_given[0] == "stop")
    if words_given == ["stop"]:
        assert "attempt 1 of train-7f3k on box was stopped" in said.err
    elif words_given == ["status"]:
        assert "attempt 1 is running on box" in said.out
    else:
        assert [(one["host"], one["state"]) for one in json.loads(said.out)] == [("box", "stopped")]
    assert "gone" in said.err


def test_what_an_earlier_gpurun_fetched_is_told_as_that_with_the_fetch_that_proves_it(
    moved: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_store.change(moved.id, lambda entry: replace(entry, verified={}))
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare="stopped", attempts={"spare": 2}).wire_to)
    assert main(["rm", "train-7f3k"]) == UsageError("").exit_code
    said = " ".join(capsys.readouterr().err.split())
    assert "train-7f3k was fetched by an earlier gpurun, which kept no proof of it" in said
    assert "next: gpurun fetch --all, or add -y" in said


@pytest.fixture
def undecided(home: Path) -> run_store.RunEntry:
    """A run that ended on `box`, and may have gone on on `spare`, whose answer never came."""
    told = {"id": "train-7f3k", "name": "train", "project": "vision", "created": 1.0}
    run_store.update([part({**told, "state": "failed", "attempt": 1, "host_id": "box"})], "box")
    run_store.note_maybe("train-7f3k", "spare", "ask1")
    return run_names.resolve("train-7f3k")


def test_host_that_may_have_a_run_is_asked_for_it_by_ps_stop_and_rm(
    undecided: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare="running", attempts={"spare": 2}).wire_to)
    assert [host.name for host in runs.hosts_of_interest(all_runs=False)] == ["spare"]
    assert [(one.host, one.state) for one in runs.twins(undecided)] == [("spare", "running")]
    with pytest.raises(UsageError, match="attempt 2 of train-7f3k is still running on spare"):
        remove.remove([undecided], [])


def test_look_at_a_run_that_may_have_gone_on_elsewhere_asks_there_too(
    undecided: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare="succeeded", attempts={"spare": 2}).wire_to)
    runs.look([undecided])
    entry = run_names.resolve("train-7f3k")
    assert (entry.host, entry.state, entry.maybe_on, entry.left_on) == ("spare", "succeeded", None, {"box": False})


def test_what_is_held_of_a_run_that_went_on_elsewhere_is_asked_of_both_hosts(
    undecided: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare="succeeded", attempts={"spare": 2}).wire_to)
    seen = unfetched.unfetched_on_each([undecided])
    assert [(one.host, one.stamp) for one in seen] == [("spare", "spare"), ("box", "box")]
    run_store.mark_fetched("train-7f3k", "/fetched", host="box", stamp="box")
    entry = run_names.resolve("train-7f3k")
    assert unfetched.at_stake([entry], seen) == {unfetched.NEVER: ["train-7f3k"]}
    assert unfetched.left_at_stake(seen, [entry]) == ["box"], "its folder is not there"


def test_look_at_a_run_whose_other_host_is_silent_leaves_it_undecided(
    undecided: run_store.RunEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "wire_to", Hosts(box="failed", spare=None).wire_to)
    runs.look([undecided])
    assert run_names.resolve("train-7f3k").maybe_on == "spare"


def chosen(host: str, **told: Any) -> list[str]:
    """What a prune would remove of this one run, as `host` tells of it."""
    record = {"id": "train-7f3k", "owner": "ada", "state": "failed", "created": 1.0, "host_id": host, **told}
    found = runs.HostRuns(host, part({"now": 9.0, "runs": [record]}), None, ())
    return [removal.host for removal in prune.choose([found], owner="ada", fetched=False, older_than=None)]


def test_prune_leaves_a_run_that_has_live_attempts_elsewhere(went_on: run_store.RunEntry) -> None:
    assert chosen("spare", attempt=2) == []
    run_store.note_gone("train-7f3k", "box")
    assert chosen("spare", attempt=2) == ["spare"]
    assert chosen("box") == [], "the run is not that host's any more"


def test_prune_leaves_a_run_that_may_have_gone_on_elsewhere(undecided: run_store.RunEntry) -> None:
    assert chosen("box") == []


def test_prune_takes_no_run_for_another_one_that_has_its_id(undecided: run_store.RunEntry) -> None:
    run_store.note_settled("train-7f3k", "ask1")
    run_store.change("train-7f3k", lambda entry: replace(entry, job=part({"token": "t"})))
    assert chosen("box") == ["box"]
    assert chosen("box", created=5.0) == []


@pytest.mark.parametrize("begun", [True, False])
def test_run_that_may_have_begun_elsewhere_is_removed_only_once_it_never_will(
    undecided: run_store.RunEntry, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settling(Hosts):
        def ask(self, host: str, verb: str, request: Any, **more: Any) -> Any:
            if verb != "migrate":
                return super().ask(host, verb, request, **more)
            self.asked.append((host, next(key for key in ("settle", "back", "to") if key in request)))
            told = {**(undecided.record or {}), "attempt": 2, "host_id": "spare", "state": "succeeded"}
            return {"begun": begun, "run": told if begun else None}

    hosts = Settling(box="failed", spare="syncing")
    monkeypatch.setattr(runs, "wire_to", hosts.wire_to)
    if begun:
        with pytest.raises(UsageError, match="train-7f3k went on on spare, as attempt 2"):
            remove.remove([undecided], [])
        assert ("box", "rm") not in hosts.asked
        assert run_names.resolve("train-7f3k").host == "spare"
    else:
        remove.remove([undecided], [])
        assert hosts.asked[-3:] == [("spare", "settle"), ("box", "back"), ("box", "rm")]
        assert run_store.find("train-7f3k") is None


@pytest.mark.parametrize(
    ("state", "live", "over"),
    [("running", True, False), ("unknown", False, False), ("succeeded", False, True), ("evaporated", False, True)],
)
def test_is_over_of_a_run_that_nobody_here_knows_is_false(state: str, live: bool, over: bool) -> None:
    """It may run on another machine: `wait` and `fetch` must not take it for ended."""
    assert words.is_over({"state": state, "live": live}) is over

"""A run goes on on another host: from a host that answers, and from one that is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.lab import Lab
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.host.users import SUE
from tests.lab.jobs import SLEEPER, Jobs
from tests.lab.test_resume import began_at, train
from tests.support.trainer import TRAINER


@pytest.fixture
def spare_host(lab: Lab) -> Iterator[LabHost]:
    """Another bare host (alias `spare`). Ask for it before `laptop`."""
    yield lab.add_host("spare")
    lab.remove_host("spare")


@pytest.fixture
def spare(spare_host: LabHost, laptop: Laptop) -> Jobs:
    return Jobs(laptop, spare_host, alias="spare")


@pytest.fixture
def bare(spare_host: LabHost, laptop: Laptop, bare_host: LabHost) -> Jobs:
    return Jobs(laptop, bare_host, alias="bare")


def where(jobs: Jobs, run: str) -> str:
    return str(jobs.ask("status", run, "--json").json["host"])


def listed(laptop: Laptop, folder: str) -> list[str]:
    return laptop.run("ls", folder).stdout.split()


def test_from_a_host_that_answers(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "crash=25")
    assert bare.until_ended(run)[0] == words.FAILED
    done = bare.ask("resume", run, "--host", "spare", "-f")
    assert (
        f"{run} goes on as attempt 2 on spare, from checkpoints/step=20.ckpt (epoch 2, step 20, loss 0.05)"
        in done.stderr
    )
    assert "attempt 2 begins at step 20\n" in done.stdout
    record = spare.record(run)
    assert (where(spare, run), record["state"], record["attempt"]) == ("spare", words.SUCCEEDED, 2)
    assert [(told["attempt"], told["reason"]) for told in record["attempts"]] == [(1, "exit")]
    assert "was never fetched whole (nor what was left on bare)" in spare.ask("rm", run, check=False).stderr
    folder = spare.ask("fetch", run).stdout.strip()
    assert listed(bare.laptop, f"{folder}/checkpoints") == ["step=30.ckpt", "step=40.ckpt"]
    assert listed(bare.laptop, f"{folder}-on-bare/checkpoints") == ["step=10.ckpt", "step=20.ckpt"]
    assert "attempt 1 begins at step 0" in spare.ask("logs", run, "--attempt", "1").stdout
    assert run not in bare.ask("ps", "-a", "-H", "bare").stdout
    assert run in bare.ask("ps", "-a", "-H", "spare").stdout
    assert where(spare, run) == "spare", "the old host's word about it does not count any more"
    assert bare.folder(run).exists()
    (bare.folder(run) / "workspace/late.csv").write_text("written there since")
    refused = bare.ask("rm", run, check=False).stderr
    assert "was written to since the last fetch (files on bare are not here)" in refused
    bare.ask("fetch", run)
    assert "late.csv" in listed(bare.laptop, f"{folder}-on-bare")
    bare.ask("rm", run)
    assert not spare.folder(run).exists()
    assert not bare.folder(run).exists()


def test_laptop_that_knows_nothing_of_it_cannot_let_it_go_on_twice(
    bare: Jobs, spare: Jobs, another_laptop: Callable[[], Laptop]
) -> None:
    run = train(bare, "crash=25")
    bare.until_ended(run)
    other = another_laptop()
    other.gpurun("ps", "-a", "-H", "bare")
    bare.ask("resume", run, "--host", "spare")
    done = other.gpurun("resume", run, check=False)
    assert done.returncode == 2
    assert f"the run {run} continues on spare" in done.stderr
    spare.until_ended(run)


def test_back_on_a_host_that_has_its_own_checkpoint(bare: Jobs, spare: Jobs) -> None:
    """The other host is gone, and nothing was fetched from it."""
    run = train(bare, "crash=25")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare", "-f")
    spare.host.down()
    done = bare.ask("resume", run, "--host", "bare", "-f", "-y", cwd=bare.laptop.home / "work/vision")
    assert "attempt 3 begins at step 20\n" in done.stdout, done.stderr


def test_code_comes_as_it_was_sent_and_not_as_it_is_now(bare: Jobs, spare: Jobs) -> None:
    files = {"gpurun.toml": "", "job.py": TRAINER, "tool.sh": "#!/bin/sh\necho tool\n", "data/a b.txt": "1"}
    project = bare.laptop.project(files)
    (project / "tool.sh").chmod(0o755)
    (project / "link").symlink_to("/nowhere/at all")
    run = bare.submit(TRAINER.replace('"trained to', '"as sent, trained to'), "--", "crash=15")
    bare.until_ended(run)
    bare.laptop.project({"job.py": "raise SystemExit('the code of now')"})
    bare.ask("resume", run, "--host", "spare")
    assert spare.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert "as sent, trained to step 40" in spare.ask("logs", run).stdout
    snapshot = spare.folder(run) / "snapshot"
    assert (snapshot / "tool.sh").stat().st_mode & 0o111
    assert str((snapshot / "link").readlink()) == "/nowhere/at all"
    assert (snapshot / "data/a b.txt").read_text() == "1"


def test_attempt_that_fails_before_it_saved_leaves_the_next_one_what_was_carried(bare: Jobs, spare: Jobs) -> None:
    """Attempt 1 crashes behind step 20, 2 (a retry) and 3 (on the other host) at once, 4 is the retry there."""
    script = TRAINER.replace("step = 0\n", "step = 0\nif attempt in (2, 3): sys.exit(3)\n")
    run = bare.submit(script, "--retries", "1", "--", "crash=25")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare")
    assert spare.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert began_at(spare, run, 4) == 20


def test_there_and_back_again(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "crash=25", "steps=40")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare", "-f")
    done = bare.ask("resume", run, "--host", "bare", "-f", "-y")  # it has succeeded
    assert "attempt 3 on bare, from checkpoints/step=40.ckpt" in done.stderr
    record = bare.record(run)
    assert (record["attempt"], len(record["attempts"]), where(bare, run)) == (3, 2, "bare")
    assert began_at(bare, run, 3) == 40
    assert began_at(bare, run, 1) == 0


def test_what_earlier_attempts_have_reached_is_known_where_it_goes_on(bare: Jobs, spare: Jobs) -> None:
    """The loss is least at step 12, before the crash; the second attempt tells of no progress."""
    script = TRAINER.replace('    add("progress.jsonl"', '    attempt > 1 or add("progress.jsonl"')
    run = bare.submit(script, "--", "crash=25", "turn=12")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare", "-f")
    assert spare.record(run)["metrics"] == {"loss": 0.13}
    done = bare.ask("fetch", run, "--best")
    assert done.stdout.endswith(f"/{run}-on-bare/checkpoints/step=10.ckpt\n")
    assert f"{run}: loss 0.02 (min), epoch 1, step 10" in done.stderr
    assert "step=10.ckpt (epoch 1, step 10, loss 0.02), on bare" in bare.ask("status", run).stdout
    bare.host.down()
    done = bare.ask("fetch", run, "--best")
    assert "was here already" in done.stderr


def test_resume_whose_answer_never_came_begins_nothing_twice(bare: Jobs, spare: Jobs) -> None:
    """The other host has taken the run, cannot be asked, and neither this laptop nor the former host has heard of it."""
    laptop = bare.laptop
    deaf = laptop.home / "deaf"
    real = f"{laptop.home}/bin/ssh"
    deaf.write_text(
        '#!/bin/sh\ncase "$*" in *spare*" resume\'"*|*spare*" migrate\'"*) '
        f'{real} "$@" >/dev/null; exit 255;; esac\nexec {real} "$@"\n'
    )
    deaf.chmod(0o755)
    run = train(bare, "crash=25", "steps=2000")
    bare.until_ended(run)
    lost = bare.ask("resume", run, "--host", "spare", env={"GPURUN_SSH": str(deaf)}, check=False)
    assert lost.returncode == 255
    assert "may have begun on spare" in " ".join(lost.stderr.split())
    for more in ([], ["--host", "spare"]):
        refused = bare.ask("resume", run, *more, check=False)
        assert (refused.returncode, f"{run} is still" in refused.stderr) == (2, True)
    assert where(spare, run) == "spare"
    assert bare.host.home().joinpath(f".gpurun/runs/{run}/attempts").exists() is False
    spare.ask("stop", run, "--force")


def test_what_was_fetched_from_the_former_host_makes_room_for_what_comes_from_the_next(bare: Jobs, spare: Jobs) -> None:
    """Both write a last.ckpt and a log."""
    script = TRAINER.replace(
        "import ", 'open("last.ckpt", "w").write(__import__("os").environ["GPURUN_ATTEMPT"])\nimport ', 1
    )
    run = bare.submit(script, "--", "crash=25")
    bare.until_ended(run)
    folder = Path(bare.ask("fetch", run).stdout.strip())
    assert (folder / "last.ckpt").read_text() == "1"
    bare.ask("resume", run, "--host", "spare", "-f")
    done = spare.ask("fetch", run)
    assert done.stdout == f"{folder}\n"
    former = folder.with_name(f"{run}-on-bare")
    assert f"what had come from bare is in {former} now" in done.stderr.replace("\n", " ")
    assert [(one / "last.ckpt").read_text() for one in (folder, former)] == ["2", "1"]
    spare.ask("rm", run)


def test_best_checkpoint_that_its_former_host_has_removed_makes_room_for_the_next_best(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "crash=25", "turn=12")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare", "-f")
    (bare.folder(run) / "workspace/checkpoints/step=10.ckpt").unlink()
    done = bare.ask("fetch", run, "--best")
    assert done.stdout.endswith("/step=20.ckpt\n"), done.stderr


def test_from_what_was_fetched_when_the_host_is_gone(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "crash=25")
    bare.until_ended(run)
    bare.ask("fetch", run)
    bare.host.down()
    done = bare.ask("resume", run, "--host", "spare", "-f", cwd=bare.laptop.home / "work/vision")
    assert "bare does not answer" in done.stderr
    assert "attempt 2 begins at step 20\n" in done.stdout
    assert (where(spare, run), spare.record(run)["state"]) == ("spare", words.SUCCEEDED)


def test_gone_host_may_still_run_it_and_has_what_was_never_fetched(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "steps=10000", "pace=0.05")
    bare.until(run, lambda record: (record["checkpoints"] or {}).get("count", 0) >= 2)
    bare.host.down()
    project = bare.laptop.home / "work/vision"
    done = bare.ask("resume", run, "--host", "spare", cwd=project, check=False)
    assert done.returncode == 2
    assert "it will run twice" in done.stderr
    done = bare.ask("resume", run, "--host", "spare", "-y", cwd=project)
    assert "attempt 2 on spare, from the beginning" in done.stderr
    spare.until_running(run)
    spare.ask("stop", run, "--force")


def test_from_a_container_to_a_host_without_an_engine(spare: Jobs, jobs: Jobs) -> None:
    """What lay in the container alone is no hindrance."""
    script = TRAINER.replace('"checkpoints/" + name', '"/var/tmp/" + name')
    run = jobs.submit(script, "--", "crash=25")
    jobs.until_ended(run)
    done = jobs.ask("resume", run, "--host", "spare", "-f")
    assert "attempt 2 begins at step 20\n" in done.stdout, done.stderr
    assert spare.until_ended(run) == (words.SUCCEEDED, "exit", 0)


def test_host_that_is_given_back_keeps_nothing_of_an_earlier_attempt_to_itself(bare: Jobs, spare: Jobs) -> None:
    run = train(bare, "crash=25")
    bare.until_ended(run)
    bare.ask("resume", run, "--host", "spare", "-f")
    bare.laptop.hosts_file.write_text(bare.laptop.hosts_file.read_text() + "[hosts.bare]\n[hosts.spare]\n")
    bare.ask("host", "leave", "bare", "-y")
    folder = bare.laptop.home / f"work/vision/fetched/{run}-on-bare"
    assert listed(bare.laptop, f"{folder}/checkpoints") == ["step=10.ckpt", "step=20.ckpt"]
    assert not (bare.folder(run)).exists()
    assert spare.record(run)["state"] == words.SUCCEEDED


def test_one_that_went_on_in_another_account_of_the_same_machine_is_left_alone_by_the_first(jobs: Jobs) -> None:
    """Both accounts know the same engine, and it knows the run's container by one name."""
    run = jobs.submit(SLEEPER)
    jobs.until_running(run)
    jobs.ask("stop", run, "--grace", "0s")
    jobs.ask("resume", run, "--host", "sue", timeout=300)
    sue = Jobs(jobs.laptop, jobs.host, "sue", SUE)
    sue.until_running(run)
    jobs.ask("fetch", run)
    assert sue.record(run)["state"] == words.RUNNING
    sue.ask("stop", run, "--grace", "0s")
    assert sue.until_ended(run)[0] == words.STOPPED

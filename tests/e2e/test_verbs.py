"""The other verbs, on runs that a test started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.agent.host import locks
from gpurun.agent.runtimes import bare, keeper
from tests.e2e.conftest import ON_HOST, Laptop

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost


def test_logs_by_tail_and_by_the_clock(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "3", "0")
    assert laptop.gpurun("wait", run).code == 0
    assert laptop.ok("logs", run) == "step 0\nstep 1\nstep 2\ndone\n"
    assert laptop.ok("logs", run, "-n", "2") == "step 2\ndone\n"
    assert laptop.ok("logs", run, "--since", "1h") == "step 0\nstep 1\nstep 2\ndone\n"
    stamped = laptop.ok("logs", run, "-t").splitlines()
    assert [line.split("Z ", 1)[1] for line in stamped] == ["step 0", "step 1", "step 2", "done"]


def test_logs_are_bytes(laptop: Laptop) -> None:
    (laptop.project / "raw.py").write_text("import sys; sys.stdout.buffer.write(b'10%\\r20%\\r\\xff\\n')")
    run = laptop.submit("raw.py")
    laptop.ok("wait", run)
    process = laptop.start("logs", run)
    assert process.communicate(timeout=60)[0] == b"10%\r20%\r\xff\n"


def test_a_followed_log_survives_the_loss_of_its_connection(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "40", "0")
    process = laptop.start("logs", "-f", run)
    assert process.stdout is not None
    first = process.stdout.readline()
    # The ssh that carries the log, killed as a lost network would end it.
    children = os.popen(f"ps -o pid= --ppid {process.pid}").read().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    # Not `communicate`: it knows nothing of the lines that `readline` has read ahead.
    out, (_, err) = process.stdout.read(), process.communicate(timeout=60)
    assert (first + out).decode().splitlines() == [f"step {n}" for n in range(40)] + ["done"]
    assert err.decode().count("lost contact with demo") == 1
    assert process.returncode == 0


def test_ps_lists_live_runs_and_with_a_all(laptop: Laptop) -> None:
    over = laptop.submit("train.py", "-n", "short", "--", "0", "0")
    laptop.ok("wait", over)
    live = laptop.submit("train.py", "-n", "long", "--", "300", "0")
    laptop.until(live, "running")
    listed = laptop.ok("ps", "-H", "demo")
    assert live in listed
    assert over not in listed
    assert over in laptop.ok("ps", "-a", "-H", "demo")
    told = laptop.json("ps", "-H", "demo")
    assert [run["state"] for run in told["runs"] if run["id"] == live] == ["running"]
    assert [(host["host"], host["answered"]) for host in told["hosts"]] == [("demo", True)]


def test_ps_shows_what_it_last_knew_of_a_silent_host(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "300", "0")
    laptop.until(run, "running")
    config = laptop.home / ".config/gpurun"
    config.mkdir(parents=True)
    (config / "hosts.toml").write_text('[hosts.demo]\n[hosts.gone]\naddress = { host = "192.0.2.1" }\n')
    hangs = laptop.home / "ssh-that-hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 600\n")
    hangs.chmod(0o755)
    laptop.environment["GPURUN_SSH"] = str(hangs)
    done = laptop.gpurun("ps")
    assert done.code == 255
    assert "running?" in done.out
    assert "gone did not answer" in done.err


def test_an_end_stays_an_end_when_its_host_is_silent(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "1", "0")
    laptop.ok("wait", run)
    laptop.ok("ps", "-a", "-H", "demo")
    refuses = laptop.home / "ssh-that-refuses"
    real = laptop.environment["GPURUN_SSH"]
    refuses.write_text(f'#!/bin/sh\n[ "$1" = -G ] && exec {real} "$@"\nexit 255\n')
    refuses.chmod(0o755)
    laptop.environment["GPURUN_SSH"] = str(refuses)
    done = laptop.gpurun("status", run)
    assert done.code == 255
    assert done.out.startswith(f"{run} succeeded at once; demo does not answer now\n")
    assert "succeeded?" not in laptop.gpurun("ps", "-a", "-H", "demo").out


def test_ctrl_c_ends_a_look_at_a_host_that_hangs(laptop: Laptop) -> None:
    hangs = laptop.home / "ssh-that-hangs"
    hangs.write_text("#!/bin/sh\nexec sleep 60\n")
    hangs.chmod(0o755)
    laptop.environment["GPURUN_SSH"] = str(hangs)
    process = laptop.start("ps", "-H", "demo")
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=50)
    assert process.returncode == 130


def test_host_that_is_forgotten_keeps_its_runs_and_says_so(laptop: Laptop) -> None:
    config = laptop.home / ".config/gpurun"
    config.mkdir(parents=True)
    (config / "hosts.toml").write_text("[hosts.demo]\n")
    laptop.submit("train.py", "--", "300", "0")
    laptop.ok("ps", "-a")
    said = laptop.gpurun("host", "rm", "demo").err.replace("\n", " ")
    assert re.search(r"demo is forgotten \d+ runs? of yours \([1-9]\d* live\) stay there; add it again to", said)


def failed(laptop: Laptop, script: str) -> tuple[str, str]:
    """A run of `script`, which ends with exit code 1, and what `status` shows of it."""
    (laptop.project / "bad.py").write_text(script)
    run = laptop.submit("bad.py")
    assert laptop.gpurun("wait", run).code == 1
    return run, laptop.ok("status", run)


def test_status_of_a_failure_has_the_traceback_and_a_hint(laptop: Laptop) -> None:
    _, shown = failed(laptop, "import no_such_package")
    assert "failed with exit code 1" in shown
    assert "ModuleNotFoundError: No module named 'no_such_package'" in shown
    assert "hint: add the package of `no_such_package` to requirements.txt" in shown


def test_status_of_a_script_that_raised_says_what_and_what_to_do(laptop: Laptop) -> None:
    run, shown = failed(laptop, "raise ValueError('lr must be positive')")
    assert "  because   ValueError: lr must be positive\n" in shown
    assert (
        f"hint: the script raised this: mend it here and submit it again; `gpurun resume {run}` goes on with" in shown
    )
    quiet = laptop.submit("train.py", "--", "1", "3")
    assert laptop.gpurun("wait", quiet).code == 3
    assert "hint" not in laptop.ok("status", quiet)


def test_wait_for_several_gives_the_first_failure(laptop: Laptop) -> None:
    good = laptop.submit("train.py", "-n", "good", "--", "1", "0")
    bad = laptop.submit("train.py", "-n", "bad", "--", "1", "7")
    assert laptop.gpurun("wait", good, bad).code == 7


def test_wait_gives_up_with_124(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "300", "0")
    assert laptop.gpurun("wait", run, "--timeout", "1s").code == 124


def test_stop_without_a_run_acts_on_the_one_live_run(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "600", "0")
    laptop.until(run, "running")
    done = laptop.gpurun("stop", "--grace", "1s")
    assert done.code == 0, done.err
    assert f"{run} was stopped" in done.err
    assert laptop.gpurun("status", run, "--exit-code").code in (143, 137)


def test_stop_without_a_run_touches_none_of_several(laptop: Laptop) -> None:
    runs = [laptop.submit("train.py", "--", "600", "0") for _ in range(2)]
    done = laptop.gpurun("stop")
    assert done.code == 2
    assert all(run in done.err for run in runs)
    assert all(laptop.until(run, "running") for run in runs)


def test_rm_refuses_a_live_run_and_asks_about_one_never_fetched(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "600", "0")
    done = laptop.gpurun("rm", run, "-y")
    assert done.code == 2
    assert f"gpurun stop {run}" in done.err
    laptop.ok("stop", "--force", run)
    done = laptop.gpurun("rm", run)
    assert done.code == 2
    assert "never fetched" in done.err
    laptop.ok("rm", run, "-y")
    assert laptop.gpurun("logs", run).code == 2
    assert "none of its files were fetched" in " ".join(laptop.ok("status", run).split())


def test_rm_of_several_asks_for_all_of_them(laptop: Laptop) -> None:
    here, *there = [laptop.submit("train.py", "--", "0", "0") for _ in range(3)]
    laptop.ok("wait", here, *there)
    laptop.ok("fetch", here)
    question = f"{there[0]}, {there[1]} were never fetched whole. Remove them, and 1 other for good?"
    assert question in laptop.gpurun("rm", here, *there).err.replace("\n", " ").replace("  ", " ")


def test_rm_asks_about_what_was_written_since_the_fetch(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    laptop.ok("fetch", run)
    laptop.ok("shell", run, "--", "sh", "-c", "echo 5 hours >evaluation.csv")
    done = laptop.gpurun("rm", run)
    assert (done.code, f"{run} was written to since the last fetch" in done.err) == (2, True)
    assert f"{run} stays: it was written to since the last fetch" in laptop.gpurun("prune", "--fetched", "-y").err
    assert laptop.ok("fetch", "--all").strip() == str(laptop.project / "fetched" / run)
    assert (laptop.project / "fetched" / run / "evaluation.csv").read_text() == "5 hours\n"
    laptop.ok("rm", run)


def test_rm_asks_when_what_was_fetched_is_gone_and_fetch_all_brings_it_again(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    laptop.ok("fetch", run)
    assert "all runs of this project are fetched" in laptop.gpurun("fetch", "--all").err
    shutil.rmtree(laptop.project / "fetched" / run)
    done = laptop.gpurun("rm", run)
    assert (done.code, "not complete in its folder any more" in done.err) == (2, True)
    laptop.ok("fetch", "--all")
    laptop.ok("rm", run)


def test_rm_asks_about_what_another_laptop_fetched(laptop: Laptop, tmp_path: Path) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    other = replace(laptop, home=tmp_path, environment={**laptop.environment, "HOME": str(tmp_path)})
    other.ok("ps", "-a", "-H", "demo")
    other.ok("fetch", run, "-o", str(tmp_path / "usb-stick"))
    laptop.ok("ps", "-a", "-H", "demo")
    assert "to another laptop" in laptop.ok("status", run)
    done = laptop.gpurun("rm", run)
    assert (done.code, f"{run} was fetched to another laptop, not to this one" in done.err) == (2, True)
    laptop.ok("fetch", "--all")
    laptop.ok("rm", run)


def test_fetch_behind_the_end_waits_for_what_on_end_writes(laptop: Laptop) -> None:
    hook = "printf head >model.onnx; until test -e go; do sleep 0.05; done; printf tail >>model.onnx; echo all >report"
    (laptop.project / "job.toml").write_text(
        f'script = "train.py"\nargs = ["0", "0"]\nruntime = "bare"\nhost = "demo"\ngpus = 0\non_end = "{hook}"\n'
    )
    started = laptop.start("submit", "job.toml", "-f", "--fetch")
    assert started.stdout is not None
    assert started.stderr is not None
    run = started.stdout.readline().decode().strip()
    told = b""
    while b"still runs" not in told:
        told += (line := started.stderr.readline())
        assert line, told
    refused = laptop.gpurun("rm", run, "-y")
    assert (refused.code, f"a hook of {run} still runs" in refused.err) == (2, True)
    laptop.ok("shell", run, "--", "touch", "go")
    started.communicate(timeout=60)
    assert started.returncode == 0
    folder = laptop.project / "fetched" / run
    assert ((folder / "model.onnx").read_text(), (folder / "report").read_text()) == ("headtail", "all\n")
    laptop.ok("rm", run)


def test_prune_wants_to_know_which(laptop: Laptop) -> None:
    assert laptop.gpurun("prune").code == 2
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    assert laptop.gpurun("prune", "--fetched", "-y", "-H", "demo").code == 0
    assert laptop.state(run) == "succeeded"
    assert run in laptop.json("prune", "--older-than", "0s", "-y", "-H", "demo")["removed"]


def test_path_is_for_scp(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    host, _, folder = laptop.ok("path", run).strip().partition(":")
    assert host == "demo"
    assert os.path.exists(f"{folder}/weights.ckpt")


def test_shell_runs_a_command_in_the_environment_of_a_run(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "300", "0")
    laptop.until(run, "running")
    done = laptop.gpurun("shell", run, "--", "sh", "-c", "echo $GPURUN_RUN_ID; exit 5")
    assert done.code == 5, done.err
    assert done.out.strip() == run


def test_shell_of_an_ended_run_has_its_files_and_says_what_is_not_there(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "--", "0", "0")
    laptop.ok("wait", run)
    done = laptop.gpurun("shell", run, "--", "no-such-smi")
    said = " ".join(done.err.split())
    assert done.code == 127
    assert f"{run} has ended: this is its environment and its files, without its GPUs" in said
    assert f"gpurun: there is no command no-such-smi in the environment of {run}" in said
    assert laptop.ok("shell", run, "--", "ls", "weights.ckpt") == "weights.ckpt\n"


def test_a_prefix_of_an_id_or_a_name_is_enough(laptop: Laptop) -> None:
    run = laptop.submit("train.py", "-n", "mnist-big", "--", "0", "0")
    assert laptop.json("status", "mnist")["run"]["id"] == run
    assert laptop.json("status")["run"]["id"] == run, "the newest of the project"
    done = laptop.gpurun("status", "imagenet")
    assert done.code == 2
    assert "imagenet" in done.err


def test_secrets_reach_the_job_and_no_record(laptop: Laptop) -> None:
    (laptop.project / "env.py").write_text("import os; print(os.environ['TOKEN'][::-1])")
    laptop.environment["TOKEN"] = "abc-secret"
    done = laptop.gpurun("submit", "env.py", *ON_HOST, "-e", "TOKEN", "-f")
    assert done.out.splitlines()[1] == "terces-cba", done.err
    shown = laptop.ok("status", done.out.split()[0], "--json")
    assert "abc-secret" not in shown + done.err


def test_run_of_a_machine_that_is_gone_is_unknown_until_it_is_given_up(
    laptop: Laptop, embedded_host: EmbeddedHost
) -> None:
    """Another machine has its home now: nobody knows what became of the run, and only its user may say so."""
    run = laptop.submit("train.py", "--", "600", "0")
    laptop.until(run, "running")
    end_at_once(run, embedded_host)
    job = embedded_host.home / ".gpurun/runs" / run / "job.json"
    told = json.loads(job.read_text())
    job.write_text(json.dumps({**told, "host": {**told["host"], "machine_id": "gone", "hostname": "formerbox"}}))
    assert laptop.state(run) == "unknown"
    assert [record["state"] for record in laptop.json("ps")["runs"] if record["id"] == run] == ["unknown"]
    for command in (["stop", "--force", run], ["rm", "-y", run]):
        refused = laptop.gpurun(*command)
        assert refused.code != 0
        assert "formerbox" in refused.err
        assert f"gpurun stop --abandon {run}" in refused.err
    laptop.ok("stop", "--abandon", "-H", "demo", run)
    assert laptop.state(run) == "lost"
    laptop.ok("rm", "-y", run)
    assert laptop.gpurun("stop", "--abandon").code == 2


def end_at_once(run: str, host: EmbeddedHost) -> None:
    """As a power cut does: the job, its keepers and its supervisor."""
    lock = host.workdir / f"locks/gpurun-{os.getuid()}/run-{run}"
    while pids := keeper.carriers(run, "") | keeper.carriers(run, "", bare.KEEPER_MARK) | locks.holders(str(lock)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_pushed_data_is_read_by_a_run_without_an_engine_and_not_removed_while_it_lives(laptop: Laptop) -> None:
    folder = laptop.home / "words"
    folder.mkdir()
    (folder / "a b").write_text("hello")
    reads = "import os, time; print(open(os.environ['GPURUN_DATA'] + '/a b').read(), flush=True); time.sleep(300)"
    (laptop.project / "reads.py").write_text(reads)
    unknown = laptop.gpurun("submit", *ON_HOST, "reads.py", "--data", "words")
    assert unknown.code == 2
    assert "gpurun push DIR demo:words" in unknown.err
    laptop.ok("push", str(folder), "demo:words")
    run = laptop.submit("reads.py", "--data", "words")
    laptop.until(run, "running")
    assert laptop.ok("logs", run) == "hello\n"
    (words,) = [each for each in laptop.json("data", "ls", "-H", "demo")["data"] if each["name"] == "words"]
    assert (words["files"], words["bytes"], words["used_by"], words["incomplete"]) == (1, 5, [run], False)
    refused = laptop.gpurun("data", "rm", "words", "-H", "demo", "-y")
    assert refused.code == 2
    assert f"next: gpurun stop {run}" in refused.err
    laptop.ok("stop", run, "--grace", "0s")
    laptop.gpurun("wait", run)
    assert laptop.json("data", "rm", "words", "-H", "demo", "-y")["freed"] == 5
    gone = laptop.gpurun("submit", *ON_HOST, "reads.py", "--data", "words")
    assert "has no data called words" in gone.err

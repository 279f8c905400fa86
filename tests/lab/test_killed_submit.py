"""SIGKILL of `gpurun submit` before and after each thing that it asks of the host: repeating it makes one run, no orphan."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gpurun.agent import vocabulary as words
from tests.lab.host.labhost import LabHost
from tests.lab.host.laptop import Laptop
from tests.lab.jobs import Jobs

# Stands for the user's ssh. At the Nth command of this submit it kills gpurun (and rsync, if that is what called), before
# the command is sent or after the host has done it.
KILLER = """#!/bin/bash
cd {place}
while [ ! -s pid ]; do sleep 0.01; done
n=$(( $(cat count) + 1 ))
echo $n >count
kill_submit() {{
    rm -f armed
    kill -9 $(cat pid)
    [ $PPID = $(cat pid) ] || kill -9 $PPID
}}
if [ -e armed ] && [ $n = {number} ]; then
    if [ {when} = before ]; then kill_submit; exit 1; fi
    {ssh} "$@"
    kill_submit
    exit 1
fi
exec {ssh} "$@"
"""


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at(jobs: Jobs, laptop: Laptop, host: LabHost, number: int, when: str) -> None:
    jobs.ask("ps", "-H", "ada")  # the connection stands: three commands make a submit
    place = laptop.home / "killer"
    place.mkdir()
    (place / "count").write_text("0")
    (place / "armed").touch()
    killer = place / "ssh"
    killer.write_text(KILLER.format(place=place, number=number, when=when, ssh=laptop.home / "bin/ssh"))
    killer.chmod(0o755)
    project = laptop.project({"gpurun.toml": "", "train.py": "print('ran', flush=True)"})
    submit = ("submit", "train.py", "-H", "ada", "-g", "0")
    killed = laptop.start(*submit, cwd=project, env={"GPURUN_SSH": str(killer)})
    (place / "pid").write_text(str(killed.pid))
    killed.wait(timeout=60)
    assert not (place / "armed").exists(), "the submit was not killed"
    run = jobs.ask(*submit, cwd=project).stdout.strip()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    assert [path.name for path in runs(host)] == [run]
    assert jobs.ask("logs", run).stdout == "ran\n"
    assert [entry["id"] for entry in jobs.ask("ps", "-a", "--json").json["runs"]] == [run]


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.25, 0.35, 0.5, 0.7])
def test_killed_at_any_moment(jobs: Jobs, laptop: Laptop, host: LabHost, delay: float) -> None:
    jobs.ask("ps", "-H", "ada")
    project = laptop.project({"gpurun.toml": "", "train.py": "print('ran', flush=True)"})
    submit = ("submit", "train.py", "-H", "ada", "-g", "0")
    killed = laptop.start(*submit, cwd=project)
    time.sleep(delay)
    killed.kill()
    said = killed.communicate()[0].decode().strip()
    run = jobs.ask(*submit, cwd=project).stdout.strip()
    assert jobs.until_ended(run) == (words.SUCCEEDED, "exit", 0)
    # One that had told its id was a whole submit: the second is then another.
    assert {path.name for path in runs(host)} == {run, *([said] if said else [])}
    assert jobs.ask("logs", run).stdout == "ran\n"


def runs(host: LabHost) -> list[Path]:
    return [path for path in (host.home() / ".gpurun/runs").iterdir() if not path.name.startswith(".")]

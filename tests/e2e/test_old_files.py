"""A laptop and a host as gpurun 0.1.0 left them: every command works on what is there."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.e2e.conftest import REPOSITORY, Laptop
from tests.support import old_files

if TYPE_CHECKING:
    from gpurun.demo.host import EmbeddedHost

MACHINE = "from gpurun.agent import machine; print(machine.machine_id())"


def test_commands_on_files_of_0_1_0_go_on_with_them(laptop: Laptop, embedded_host: EmbeddedHost) -> None:
    machine = subprocess.run(
        [sys.executable, "-c", MACHINE], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    host, project = embedded_host.home, laptop.project
    folders = {
        "host": host / ".gpurun",
        "laptop": laptop.home / ".local" / "share" / "gpurun",
        "project": project,
    }
    for part, folder in folders.items():
        old_files.lay_out(part, folder, host=host, project=project, machine=machine.stdout.strip())
    good, bad, stopped, running = old_files.RUNS

    listed = {run["id"]: run["state"] for run in laptop.json("ps", "-a", "-H", "demo")["runs"]}
    assert {**listed, **old_files.RUNS, running: "lost"} == listed
    assert all(run in laptop.ok("ps", "-a") for run in old_files.RUNS)
    for run in old_files.RUNS:
        assert laptop.json("status", run)["run"]["problem"] is None
        assert run in laptop.ok("status", run)
        assert laptop.ok("logs", run) == "begins\n"
        assert laptop.gpurun("wait", run).code == {good: 0, bad: 3, stopped: 143, running: 125}[run]
        assert laptop.gpurun("stop", run).code == 0
        laptop.ok("fetch", run)
    assert laptop.gpurun("compare", good, bad).code == 0
    assert good in laptop.ok("path", good)
    assert laptop.gpurun("which", str(project / "fetched" / good / "model.ckpt")).code in (0, 1)
    laptop.ok("resume", bad)
    laptop.until(bad, "failed")
    assert laptop.json("status", bad)["run"]["attempt"] >= 5
    assert laptop.gpurun("prune", "--older-than", "1000d", "-y", "-H", "demo").code == 0
    laptop.ok("fetch", bad)
    laptop.ok("rm", "-y", *old_files.RUNS)
    assert not [run for run in laptop.json("ps", "-a", "-H", "demo")["runs"] if run["id"] in old_files.RUNS]

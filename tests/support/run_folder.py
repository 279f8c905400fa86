"""A run directory on disk, as the agent's verbs find it: what a test writes into it is what a job wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpurun.agent.paths import HostPaths, RunPaths
from gpurun.agent.state import journal, origin

RUN = "train-7f3k"
LONG_AGO = 1_700_000_000.0  # unix seconds
HOST_ID = "5f3c"


class RunFolder:
    """One run of one host below a temporary folder; live until `end` is called."""

    def __init__(self, folder: Path, run_id: str = RUN, **job: Any) -> None:
        self.host = HostPaths(str(folder))
        self.paths: RunPaths = self.host.run(run_id)
        self.root = Path(self.paths.root)
        for name in ("snapshot", "workspace", "out", "ro"):
            (self.root / name).mkdir(parents=True)
        project = {"name": "vision", "root": "/home/ada/vision", **job.pop("project", {})}
        facts = {"schema": 1, "id": run_id, "name": "train", "created": 1.0, "mounts": [], **job, "project": project}
        # As of another machine that shares the home: no verb takes a supervisor of ours for dead, and this one shows its life.
        facts["host"] = {"id": HOST_ID, "runtime": "bare", "machine_id": "another", **facts.get("host", {})}
        Path(self.paths.job).write_text(json.dumps(facts))
        journal.record(self.paths, "running", boot_id="boot")
        self.life = os.fdopen(origin.show_life(self.paths), "rb")

    def write(self, name: str | bytes, content: bytes = b"x", *, to: str = "workspace", at: float = LONG_AGO) -> Path:
        """Write a file and date it; `to` is the folder of the run that it lands in."""
        path = self.root / to / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (at, at))
        return path

    def submit(self, name: str, content: bytes) -> Path:
        """A file of the project: in the snapshot, and copied to the workspace."""
        self.write(name, content, to="snapshot")
        return self.write(name, content)

    def end(self) -> None:
        journal.record_end(self.paths, "succeeded", "exit", exit_code=0)

"""`ps` of a host that has more runs than one answer tells of; the real agent answers on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpurun.cli.app import main
from gpurun.commands import runs
from tests.support.run_folder import RunFolder

LOCAL_SSH = Path(__file__).parents[2] / "support" / "local_ssh.sh"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The laptop's and the host's."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "GPURUN_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "GPURUN_LOCKS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("GPURUN_SSH", str(LOCAL_SSH))
    return tmp_path


def test_ps_tells_of_all_pages(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(runs, "PAGE", 2)
    for at in range(7):
        run = RunFolder(home / ".gpurun", f"train-{at:04}", created=float(at), owner="ada")
        os.utime(run.paths.job, (1000 + at, 1000 + at))
        if at != 3:
            run.end()
    assert main(["ps", "-a", "--all-users", "-H", "box", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["runs"]
    assert sorted(record["id"] for record in told) == [f"train-{at:04}" for at in range(7)]


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"name": 5}', '{"name": "x", "created": "x", "args": null}'])
def test_run_that_cannot_be_read_takes_no_other_along(
    home: Path, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    RunFolder(home / ".gpurun", "train-1111", owner="ada").end()
    bad = RunFolder(home / ".gpurun", "train-2222", owner="ada")
    Path(bad.paths.job).write_text(spoilt)
    assert main(["ps", "-a", "--all-users", "-H", "box", "--json"]) == 0
    told = {record["id"]: record for record in json.loads(capsys.readouterr().out)["runs"]}
    assert told["train-1111"]["state"] == "succeeded"
    assert main(["ps", "-a", "--all-users", "-H", "box"]) == 0

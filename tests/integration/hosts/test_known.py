"""Names that mean a host, and names that are nearly one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.cli import app
from gpurun.config import hosts
from gpurun.errors import UsageError
from gpurun.hosts.known import check_known, did_you_mean


@pytest.fixture(autouse=True)
def three(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One host that was added, one alias, and a pattern that says where its hosts are."""
    hosts.add("trainbox", {})
    (home / ".ssh").mkdir(exist_ok=True)
    monkeypatch.setenv("GPURUN_SSH", f"ssh -F {home}/.ssh/config")
    config = "Host far\n  HostName 192.0.2.7\nHost node-*\n  HostName 127.0.0.1\nHost *.cluster\n  ProxyJump far\n"
    (home / ".ssh/config").write_text(config)


@pytest.mark.parametrize("name", ["trainbox", "far", "node-3", "127.0.0.1", "n1.cluster"])
def test_what_means_a_host(name: str) -> None:
    check_known(name)


def test_what_means_none_may_be_nearly_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no host trainbx was added") as error:
        check_known("trainbx")
    assert error.value.next_step.startswith("did you mean trainbox? Else gpurun host add trainbx")
    assert did_you_mean("quite another") == ""
    assert did_you_mean("trainbox") == "", "it is known, whatever else is wrong with it"
    assert app.main(["host", "use", "trainbx"]) == 2
    assert hosts.read().default is None


def test_a_host_that_cannot_be_found_may_be_nearly_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["ps", "-H", "trainbx"]) == 255
    assert "did you mean trainbox? Else check the name" in capsys.readouterr().err


def test_submit_to_a_name_that_means_no_host_says_so_before_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()
    assert app.main(["submit", "train.py", "-H", "trainbx"]) == 255
    said = capsys.readouterr().err
    assert said.startswith("error: no machine is known by the name `trainbx`\nnext: did you mean trainbox?")

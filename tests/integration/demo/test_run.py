"""The steps of the demo, without gpurun itself."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from gpurun.demo import run
from gpurun.demo.host import EmbeddedHost
from gpurun.errors import GpurunError, UsageError


@pytest.fixture
def laptop(embedded_host: EmbeddedHost, tmp_path: Path) -> run.Laptop:
    return run.new_laptop(tmp_path, embedded_host, lambda line: None)


def test_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(run, "NEEDED_PACKAGES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="ssh and rsync"):
        run.check_needs()


def test_missing_packages_are_named_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "NEEDED_PACKAGES", ("json", "no_such_package", "nor_this"))
    with pytest.raises(UsageError, match="needs no_such_package, nor_this") as caught:
        run.check_needs()
    assert caught.value.next_step == "pip install '.[demo]'"
    assert caught.value.exit_code == 2


def test_laptop_has_none_of_the_users_files(
    monkeypatch: pytest.MonkeyPatch, embedded_host: EmbeddedHost, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPURUN_HOST", "mine")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/mine")
    environment = run.new_laptop(tmp_path, embedded_host, print).environment
    assert "GPURUN_HOST" not in environment
    assert "XDG_CONFIG_HOME" not in environment
    assert Path(environment["HOME"]).is_relative_to(tmp_path)
    assert shlex.split(environment["GPURUN_SSH"]) == embedded_host.ssh_command
    assert Path(environment["XDG_RUNTIME_DIR"]).stat().st_mode & 0o777 == 0o700


def test_command_is_shown_and_its_failure_raised(embedded_host: EmbeddedHost, tmp_path: Path) -> None:
    said: list[str] = []
    laptop = run.new_laptop(tmp_path, embedded_host, said.append)
    with pytest.raises(GpurunError, match="`gpurun no-such-verb 'a b'` ended with exit code"):
        laptop.gpurun("no-such-verb", "a b")
    assert said == ["\n$ gpurun no-such-verb 'a b'"]


def test_missing_fetched_checkpoint_is_an_error(laptop: run.Laptop) -> None:
    with pytest.raises(GpurunError, match="found 0"):
        run.fetched_checkpoint(laptop.project)
    best = laptop.project / "fetched" / "train-7f3k" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    best.touch()
    assert run.fetched_checkpoint(laptop.project) == Path("fetched/train-7f3k/checkpoints/best.ckpt")


def test_accuracy_is_that_of_predict(laptop: run.Laptop) -> None:
    (laptop.project / "predict.py").write_text(f"print({json.dumps(json.dumps({'val_acc': 0.98}))})\n")
    assert run.measure(laptop, Path("best.ckpt")) == 0.98
    (laptop.project / "predict.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(GpurunError, match="exit code 3"):
        run.measure(laptop, Path("best.ckpt"))


@pytest.mark.parametrize(
    ("end", "kept"), [(GpurunError("no"), True), (OSError(28, "full"), True), (KeyboardInterrupt(), False)]
)
def test_files_are_kept_only_after_a_failure(monkeypatch: pytest.MonkeyPatch, end: BaseException, kept: bool) -> None:
    made: list[Path] = []

    def step(laptop: run.Laptop) -> float:
        made.append(laptop.project.parents[1])
        raise end

    said: list[str] = []
    monkeypatch.setattr(run, "NEEDED_PACKAGES", ("asyncssh",))
    monkeypatch.setattr(run, "train_and_measure", step)
    try:
        with pytest.raises(type(end)):
            run.run_demo(said.append)
        assert made[0].is_dir() == kept
        assert (f"kept in {made[0]}" in said[-1]) == kept
    finally:
        shutil.rmtree(made[0], ignore_errors=True)

"""Driver and disk against an image, before anything is pulled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.images import preflight
from tests.support.scripted_engine import ScriptedEngine
from tests.unit.agent.images.test_preflight import BASE

ABSENT = ("image inspect", 1, "", "Error: No such image: x")


def engine(folder: Path, *answers: Any) -> Any:
    return {"argv": ScriptedEngine(folder, list(answers)).engine.argv, "root": str(folder / "docker")}


def test_an_image_that_does_not_fit_is_refused_before_it_is_pulled(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="B free") as told:
        preflight.check_room(BASE, engine(tmp_path, ABSENT, ABSENT))
    assert told.value.code == "no_room"
    assert told.value.where == str(tmp_path / "docker")
    assert "prune" in told.value.next_step


def test_image_that_does_not_fit_is_told_what_it_needs_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda place: 400_000_000)
    with pytest.raises(AgentError, match=r"needs up to .* TB, but the engine's disk has 400 MB free"):
        preflight.check_room(BASE, engine(tmp_path, ABSENT, ABSENT))


def test_an_image_that_is_there_needs_no_room(tmp_path: Path) -> None:
    preflight.check_room(BASE, engine(tmp_path, ABSENT, ("image inspect", 0, json.dumps({"Id": "sha256:1"}), "")))

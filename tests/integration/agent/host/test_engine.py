"""The one reader of what an engine prints, and the questions to it."""

from __future__ import annotations

import pytest

from gpurun.agent.host.engine import Engine, EngineError


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(EngineError) as error:
        Engine(["no-engine-of-this-name"]).ask("ps")
    assert error.value.code == "engine_missing"
    assert error.value.what == "the host has no engine `no-engine-of-this-name`"


def test_an_engine_that_does_not_answer() -> None:
    with pytest.raises(EngineError) as error:
        Engine(["sh", "-c", "exec sleep 60"]).ask("ps", timeout=0.2)
    assert error.value.kind == "no_answer"

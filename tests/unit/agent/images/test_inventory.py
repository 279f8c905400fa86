"""What a run ran on: asked of a real Python, kept for the next run on the same."""

from __future__ import annotations

import pytest

from gpurun.agent.errors import AgentError
from gpurun.agent.images import inventory, inventory_probe
from gpurun.agent.programs import Result


@pytest.mark.parametrize(("number", "text"), [(91002, "9.10.2"), (90501, "9.5.1"), (8907, "8.9.7")])
def test_how_torch_counts_cudnn(number: int, text: str) -> None:
    assert inventory_probe.spelled(number) == text


def test_an_image_without_python_has_nothing_to_tell() -> None:
    assert inventory.parse(Result(127, b"", b"")) is None
    with pytest.raises(AgentError, match="could not report its packages: no such daemon"):
        inventory.parse(Result(1, b"", b"no such daemon\n"))

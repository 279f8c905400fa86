"""How far the making of an image is, from what engines really print."""

from __future__ import annotations

import pytest

from gpurun.hosts.warm import Steps

PULL = b"""\
2.8.0: Pulling from pytorch/pytorch
eb76878b20ec: Pulling fs layer
ccfd3542bee0: Pulling fs layer
f9ca5d4b79ca: Waiting
ccfd3542bee0: Already exists
f9ca5d4b79ca: Verifying Checksum
f9ca5d4b79ca: Download complete
"""


def test_layers_then_steps_of_the_older_builder() -> None:
    steps = Steps()
    steps.feed(PULL.splitlines(keepends=True)[0])
    assert steps.step == "pulling the image"
    steps.feed(PULL)
    assert steps.now == "layer 1 of 3"
    assert steps.fraction == pytest.approx(0.7 * 1.5 / 3)
    steps.feed(b"f9ca5d4b79ca: Pull complete\neb76878b20ec: Download complete\neb76878b20ec: Pull complete\n")
    assert steps.fraction == pytest.approx(0.7)
    steps.feed(b"Step 1/4 : ARG BASE\nStep 3/4 : RUN pip install\n")
    assert steps.now == "step 3 of 4: RUN"
    assert steps.fraction == pytest.approx(0.7 + 0.3 * 0.5)
    steps.feed(b"Collecting lightning==2.6.6 (from -r x)\n")
    assert steps.now == "Collecting lightning==2.6.6"


def test_buildkit_alone_and_lines_in_pieces() -> None:
    steps = Steps()
    steps.feed(b"#5 [internal] load metadata\n#6 [2/")
    assert steps.fraction == 0.0
    steps.feed(b"4] RUN make\n#7 [stage-1 3/4] COPY a b\n")
    assert steps.fraction == 0.5
    assert steps.now == "step 3 of 4: COPY"


@pytest.mark.parametrize(
    "said", ["Step 1/0 : x", "#3 [1/0] RUN x", f"Step {'9' * 5000}/9 : x", "Step 1/٠ : x", "Step 9/3 : x"]
)
def test_what_a_build_prints_that_looks_like_a_step_is_no_error(said: str) -> None:
    """The `RUN` of somebody's Dockerfile prints what it likes."""
    steps = Steps()
    steps.feed(f"{said}\n".encode())
    assert 0.0 <= steps.fraction <= 1.0


def test_it_never_goes_back() -> None:
    steps = Steps()
    steps.feed(b"Step 4/4 : RUN x\n")
    before = steps.fraction
    steps.feed(PULL)
    assert steps.fraction == before

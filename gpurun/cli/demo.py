"""`gpurun demo`."""

from __future__ import annotations

from gpurun.cli import output

EXAMPLES = "gpurun demo"


def demo() -> None:
    """Train on an SSH host inside this program: submit, follow, fetch, and measure what came back.

    It needs no GPU, no other machine and nothing of your ~/.ssh, and leaves nothing behind. Install it with
    pip install '.[demo]'.
    """
    from gpurun.demo.run import run_demo

    run_demo(output.say)

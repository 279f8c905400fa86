"""The local port of a service."""

from __future__ import annotations

import subprocess
import sys

from gpurun.tunnel.ports import stable


def test_service_gets_the_same_port_in_every_process() -> None:
    """So bookmarks and cookies stay valid."""
    code = "from gpurun.tunnel.ports import stable; print(stable('box', 'digits', 'jupyter', ''))"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert outputs == {b"%d\n" % stable("box", "digits", "jupyter", "")}

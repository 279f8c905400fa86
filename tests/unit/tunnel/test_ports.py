"""The local port of a service."""

from __future__ import annotations

import subprocess
import sys

from gpurun.tunnel.ports import COUNT, FIRST, stable


def test_service_gets_the_same_port_in_every_process() -> None:
    """So bookmarks and cookies stay valid."""
    code = "from gpurun.tunnel.ports import stable; print(stable('box', 'digits', 'jupyter', ''))"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert outputs == {b"%d\n" % stable("box", "digits", "jupyter", "")}


def test_different_services_rarely_share_a_port() -> None:
    hosts, projects, kinds = ("box", "box2"), [f"project-{n}" for n in range(10)], ("tensorboard", "jupyter")
    chosen = {stable(host, project, kind, "") for host in hosts for project in projects for kind in kinds}
    assert len(chosen) >= 38


def test_stable_separates_its_words() -> None:
    assert stable("ab", "c") != stable("a", "bc")


def test_ports_are_unprivileged_and_below_the_ephemeral_range() -> None:
    chosen = [stable(str(number)) for number in range(5000)]
    assert min(chosen) >= FIRST > 1023
    assert max(chosen) < FIRST + COUNT <= 32768

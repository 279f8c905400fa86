"""Which port a service gets."""

from __future__ import annotations

import subprocess
import sys

from gpurun.tunnel.ports import COUNT, FIRST, stable


def test_the_same_service_gets_the_same_port_in_every_process() -> None:
    """A bookmark stays good, and so do a browser's cookies."""
    code = "from gpurun.tunnel.ports import stable; print(stable('box', 'digits', 'jupyter', ''))"
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert said == {b"%d\n" % stable("box", "digits", "jupyter", "")}


def test_services_that_differ_hardly_ever_meet() -> None:
    hosts, projects, kinds = ("box", "box2"), [f"project-{n}" for n in range(10)], ("tensorboard", "jupyter")
    found = {stable(host, project, kind, "") for host in hosts for project in projects for kind in kinds}
    assert len(found) >= 38


def test_words_are_not_run_together() -> None:
    assert stable("ab", "c") != stable("a", "bc")


def test_none_is_one_that_needs_root_or_that_the_system_hands_out() -> None:
    found = [stable(str(number)) for number in range(5000)]
    assert min(found) >= FIRST > 1023
    assert max(found) < FIRST + COUNT <= 32768

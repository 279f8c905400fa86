"""The local port of a service."""

from __future__ import annotations

from gpurun.tunnel.ports import COUNT, FIRST, stable


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

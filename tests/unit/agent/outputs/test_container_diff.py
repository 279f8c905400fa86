"""What of `docker diff` is the script's own."""

from __future__ import annotations

import pytest

from gpurun.agent.outputs.container_diff import is_wanted, parse_diff, to_copy

DIFF = b"""C /root
A /root/results
A /root/results/a.csv
A /root/results/deep
A /root/results/deep/b.csv
C /etc
C /etc/hosts
A /workspace
A /gpurun
A /gpurun/out
C /opt
A /opt/lib/python3.11/site-packages/x.py
C /opt/settings.ini
D /opt/gone
A /tmp
A /tmp/pymp-abc
A /tmp/pymp-abc/s
A /tmp/plot.png
A /data
A /data/imagenet
A /data/index
C /srv
A /srv/new
line
"""


def test_the_lines_of_a_diff() -> None:
    changes = parse_diff(DIFF)
    assert changes[0] == ("C", b"/root")
    assert changes[-1] == ("A", b"/srv/new\nline")
    assert ("D", b"/opt/gone") in changes


def test_only_the_topmost_of_what_was_added_is_asked_for_and_never_a_mount() -> None:
    chosen = to_copy(parse_diff(DIFF), ["/data/imagenet"])
    assert chosen == [
        ("A", b"/data/index"),
        ("C", b"/opt/settings.ini"),
        ("A", b"/root/results"),
        ("A", b"/srv/new\nline"),
        ("A", b"/tmp"),
    ]


@pytest.mark.parametrize(
    "path",
    [b"/etc/hosts", b"/proc/1/x", b"/workspace/a", b"/gpurun/out/log", b"/usr/lib/x", b"/data/imagenet/1.jpg",
     b"/root/.cache/pip/x", b"/home/a/__pycache__/b.pyc", b"/tmp/pymp-x/s", b"/tmp/torchinductor_root/k"],
)  # fmt: skip
def test_what_a_script_did_not_compute_stays(path: bytes) -> None:
    assert not is_wanted(path, ["/data/imagenet/"])


@pytest.mark.parametrize("path", [b"/root/x.pt", b"/tmp/plot.png", b"/workspaces/x", b"/etc/mine.conf", b"/data/other"])
def test_what_a_script_wrote_is_wanted(path: bytes) -> None:
    assert is_wanted(path, ["/data/imagenet"])

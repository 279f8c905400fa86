"""What the host's sshd is tried out with, and what stands in front of a run's own socket."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from gpurun.agent import loopback
from tests.support.descriptors import no_descriptors_left
from tests.unit.agent.test_loopback import all_of, answer_at_the_end, connected, leading_to, send_all, serve


def test_when_no_descriptor_is_left_the_way_lasts(tmp_path: Path) -> None:
    port = loopback.listen(leading_to(str(tmp_path / "s")))
    with socket.socket() as one_too_many, no_descriptors_left():
        one_too_many.connect(("127.0.0.1", port))
        time.sleep(0.5)
    for _ in serve(tmp_path / "s", answer_at_the_end):
        with connected(port) as client:
            send_all(client, b"abc")
            assert all_of(client) == b"cbaend"

"""What the doctor makes of what the agent found."""

from __future__ import annotations

import pytest

from gpurun.errors import HostUnreachable
from gpurun.hosts import check
from gpurun.hosts.findings import FAIL
from gpurun.ssh.openssh import Address, Connection


@pytest.mark.parametrize("next_step", ["gpurun host check box", "try again; `gpurun host check box` looks closer"])
def test_a_check_does_not_advise_itself(next_step: str) -> None:
    class Dark:
        host, connection = "box", Connection("box", Address("gpubox", "ada", 2222))

        def stream(self, *_: object, **__: object) -> None:
            raise HostUnreachable("no connection", next_step, where="box")

    last = check.check(Dark()).findings[-1]  # type: ignore[arg-type]
    assert (last.topic, last.status) == ("connection", FAIL)
    assert last.mend == "try again; where it stops shows: ssh -v -l ada -p 2222 gpubox true"

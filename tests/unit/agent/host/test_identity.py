"""Who a job is inside its container, for every kind of engine."""

from __future__ import annotations

from typing import Any

import pytest

from gpurun.agent.host.identity import Identity, Login, identity
from tests.support.part import only

ADA = Login(1000, 1001, (27, 999, 1001), "ada")
ROOT = Login(0, 0, (0,), "root")
CAPS = [word for cap in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID") for word in ("--cap-add", cap)]
OWN = ["--user", "1000:1001", "--group-add", "27", "--group-add", "999"]


@pytest.mark.parametrize(
    ("who", "engine", "user", "expected"),
    [
        (ADA, {}, None, Identity(OWN, "ada", 1000, 1001)),
        (ADA, {"userns": True}, None, Identity([*OWN, "--userns", "host"], "ada", 1000, 1001)),
        (ADA, {"selinux": True}, None, Identity([*OWN, "--security-opt", "label=disable"], "ada", 1000, 1001)),
        (ADA, {"rootless": True}, None, Identity(["--user", "0:0"], "root", 0, 0, may_raise_limits=False)),
        (ADA, {"rootless": True}, "root", Identity(["--user", "0:0"], "root", 0, 0, may_raise_limits=False)),
        (ADA, {}, "root", Identity(["--user", "0:0", *CAPS], "root", 0, 0, hand_over=True)),
        (ROOT, {}, None, Identity(["--user", "0:0"], "root", 0, 0)),
        (ROOT, {}, "root", Identity(["--user", "0:0"], "root", 0, 0)),
    ],
)
def test_identity(who: Login, engine: Any, user: str | None, expected: Identity) -> None:
    assert identity(who, engine, user) == expected


def test_a_passwd_and_a_group_file_of_two_lines() -> None:
    who = identity(ADA, only())
    assert who.passwd() == b"root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001::/gpurun/cache/home:/bin/sh\n"
    assert who.group() == b"root:x:0:\nada:x:1001:\n"

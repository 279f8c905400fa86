"""Choose the user and groups of a job inside its container, so that its files belong to the user on the host."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence

from .. import vocabulary as words

if TYPE_CHECKING:
    from ..schema.host import EngineInfo

# What a program that must be root inside, such as apt, needs besides access to the user's files.
ROOT_CAPS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID")


@dataclass(frozen=True)
class Login:
    """Describe the user of the agent, on the host."""

    uid: int
    gid: int
    groups: Sequence[int]
    name: str


def login() -> Login:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "user"
    return Login(uid, os.getgid(), sorted(set(os.getgroups())), name)


@dataclass(frozen=True)
class Identity:
    """Hold the `options` for the engine, and the name and ids inside the container.

    `hand_over`: the job writes files as root, which must be given to the user. `may_raise_limits`: False for a rootless
    engine.
    """

    options: List[str]
    name: str
    uid: int
    gid: int
    hand_over: bool = False
    may_raise_limits: bool = True

    def passwd(self) -> bytes:
        """Return a passwd file of two lines: without an entry `getpwuid` fails, and HOME is /."""
        home = words.CACHE_MOUNT + "/home"
        lines = ["root:x:0:0:root:/root:/bin/sh", "%s:x:%d:%d::%s:/bin/sh" % (self.name, self.uid, self.gid, home)]
        return "".join(line + "\n" for line in lines).encode()

    def group(self) -> bytes:
        lines = ["root:x:0:"] + (["%s:x:%d:" % (self.name, self.gid)] if self.gid else [])
        return "".join(line + "\n" for line in lines).encode()


def identity(who: Login, engine: EngineInfo, user: Optional[str] = None) -> Identity:
    """Return the identity for an engine with these facts ("rootless", "userns", "selinux"); `user` is None or "root"."""
    options = ["--security-opt", "label=disable"] if engine.get("selinux") else []
    if engine.get("rootless"):  # root inside is the user outside
        return Identity(["--user", "0:0", *options], "root", 0, 0, may_raise_limits=False)
    if engine.get("userns"):
        options = ["--userns", "host", *options]
    if who.uid == 0:
        return Identity(["--user", "0:0", *options], "root", 0, 0)
    if user == "root":
        caps = [word for cap in ROOT_CAPS for word in ("--cap-add", cap)]
        return Identity(["--user", "0:0", *caps, *options], "root", 0, 0, hand_over=True)
    groups = [word for group in who.groups if group != who.gid for word in ("--group-add", str(group))]
    return Identity(["--user", "%d:%d" % (who.uid, who.gid), *groups, *options], who.name, who.uid, who.gid)

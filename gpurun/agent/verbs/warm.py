"""`warm`: make the pinned image ready in the background, so that the first job need not wait for it.

Request: `{profile: {pip_index, registry_mirror, base_image}}`. Answer: `{started: bool}`, false when it is being made already or there
is no engine. What the engine says goes to `cache/warm.log`; a job that comes meanwhile waits for the same build.
"""

from __future__ import annotations

import os
import traceback
from typing import Any, Dict

from .. import facts, image, locks
from ..engine import Engine
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    known = facts.host_facts(host, request.get("engine"))
    path = os.path.join(locks.folder(), "host-warm")
    held = locks.acquire(path) if known["engine"] else None
    if held is None:
        return {"started": False}
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        try:
            _redirect(os.path.join(host.cache, "warm.log"))
            engine = Engine(known["engine"]["argv"])
            image.ensure(engine, None, request.get("profile") or {}, _say)
        except BaseException:  # noqa: BLE001 (a job that needs the image meets the same failure, and tells it)
            os.write(2, traceback.format_exc().encode())
        os._exit(0)
    os.waitpid(child, 0)
    held.release()  # the child's copy of the descriptor holds the lock on
    return {"started": True}


def _say(said: bytes) -> None:
    os.write(1, said)


def _redirect(log: str) -> None:
    """Let go of the connection: a descriptor that stays open keeps the SSH channel until the build ends."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    for source in (nothing, file):
        os.close(source)

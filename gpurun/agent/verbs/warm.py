"""`warm`: prepare an image ahead of time, in the background, so that no job has to wait for it.

Request: `{image: reference or null, base: see gpurun/job/images.py, profile: {pip_index, registry_mirror}, gpus: bool,
follow: bool}`. Answer: `{name, started: bool, engine: bool}`; not started when the image is already being made, or the
host has no engine. The output goes to a file; a job that comes in the meantime waits for the same build. With `follow`
the file is sent as the stream `prepare`, and the end is `{ok, image, digest, id, seconds}` or `{ok: false, what,
next}`. The client may go away at any time.
"""

from __future__ import annotations

import hashlib
import os
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import AgentError, RunFailed
from ..files import read_json, remove, write_json
from ..frames import Frames
from ..host import facts, locks
from ..host.engine import Engine
from ..images import image, inventory, preflight
from ..paths import HostPaths
from ..runtimes.docker import inspect_image

if TYPE_CHECKING:
    from ..schema.answers import WarmAnswer
    from ..schema.requests import WarmRequest
    from ..schema.wire import Made

TICK = 0.2


def answer(request: WarmRequest, host: HostPaths) -> WarmAnswer:
    host_facts = facts.host_facts(host, request.get("engine"))
    name = _name(request)
    if not host_facts["engine"]:
        if host_facts["engine_error"]:
            error = host_facts["engine_error"]
            raise AgentError(error["code"], error["what"], error["next"], where=error["where"])
        return {"name": name, "started": False, "engine": False}
    preflight.check(request["base"], host_facts, gpus=bool(host_facts["gpus"]))
    held = locks.acquire(_lock(name))
    if held is None:
        return {"name": name, "started": False, "engine": True}
    _remove_old(host, name)
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        try:
            _redirect(host.warm_log(_key(name)))
            write_json(host.warm(_key(name)), _make(Engine(host_facts["engine"]["argv"]), request, host))
        except BaseException:  # noqa: BLE001 (this process must not continue as the verb that started it)
            os.write(2, traceback.format_exc().encode())
        os._exit(0)
    os.waitpid(child, 0)
    held.release()  # the child's copy of the descriptor still holds the lock
    return {"name": name, "started": True, "engine": True}


def stream(request: WarmRequest, host: HostPaths, out: Frames) -> None:
    """Send the output of the build from its first byte, and how it ended."""
    key, offset = _key(_name(request)), 0
    if not request.get("follow"):
        return
    while True:
        over = locks.is_free(_lock(_name(request)))  # before the last read of the log
        offset = _send_new(host.warm_log(key), offset, out)
        if over:
            break
        out.beat()
        time.sleep(TICK)
    interrupted: Made = {
        "ok": False,
        "what": "the preparation of the image was interrupted",
        "next": "run the command again",
    }
    out.end(read_json(host.warm(key)) or interrupted)


def _make(engine: Engine, request: WarmRequest, host: HostPaths) -> Made:
    began = time.time()
    try:
        profile = request["profile"]
        wanted = image.Wanted(
            request["image"],
            request["base"],
            pip_index=profile.get("pip_index"),
            registry_mirror=profile.get("registry_mirror"),
        )
        made = image.ensure(engine, wanted, "", _say)
    except (RunFailed, AgentError) as error:
        rest = "the whole output is on the host, in " + host.warm_log(_key(_name(request)))
        return {
            "ok": False,
            "what": error.what,
            "next": rest if error.next_step == image.SEE_BUILD else error.next_step,
        }
    seconds = round(time.time() - began, 1)
    with suppress(AgentError):  # the build has succeeded without it
        _cache_inventory(engine, host, made.id)
    return {"ok": True, "image": made.reference, "digest": made.digest, "id": made.id, "seconds": seconds}


def _cache_inventory(engine: Engine, host: HostPaths, image_id: str) -> None:
    """Cache the image's inventory, for the record of the runs in it."""
    if read_json(host.about(inventory.key(image_id))) is None:
        contents = inspect_image(engine, image_id)
        if contents is not None:
            inventory.store(host, inventory.key(image_id), contents)


def _send_new(path: str, offset: int, out: Frames) -> int:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return offset
    if data:
        out.chunk("prepare", offset, data)
    return offset + len(data)


def _name(request: WarmRequest) -> str:
    name, base = request["image"], request["base"]
    if name:
        return name
    assert base is not None
    return image.own_tag(base)


def _key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _lock(name: str) -> str:
    return os.path.join(locks.folder(), "host-warm-" + _key(name))


def _remove_old(host: HostPaths, name: str) -> None:
    for path in (host.warm(_key(name)), host.warm_log(_key(name))):
        remove(path)


def _say(output: bytes) -> None:
    if output:
        os.write(1, output)


def _redirect(log: str) -> None:
    """Release the connection: an open descriptor would keep the SSH channel open until the build ends."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    for source in (nothing, file):
        os.close(source)

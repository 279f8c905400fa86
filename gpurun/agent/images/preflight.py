"""Check whether this host can run an image at all, before anything is sent, pulled or built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Optional, Tuple

from .. import error_codes
from ..errors import AgentError
from ..host import facts
from ..host.engine import Engine, EngineError
from ..sizes import size
from . import image

if TYPE_CHECKING:
    from ..schema.host import EngineFacts, HostFacts
    from ..schema.job import Base


def check(base: Optional[Base], host_facts: HostFacts, *, gpus: bool) -> None:
    """Raise AgentError when the driver or the engine's disk cannot hold or run the gpurun image of the job.

    `host_facts`: HostFacts. Other images cannot be checked before they are on the host.
    """
    if not base or not host_facts["engine"]:
        return
    if gpus:
        check_driver(base, host_facts["driver"])
    check_room(base, host_facts["engine"])


def check_driver(base: Base, driver: Optional[str]) -> None:
    if not driver or number(driver) >= number(base["driver"]):
        return
    raise AgentError(
        error_codes.DRIVER_TOO_OLD,
        "the NVIDIA driver %s is too old for the image %s (PyTorch %s, CUDA %s), which requires %s or later"
        % (driver, base["name"], base["torch"], base["cuda"], base["driver"]),
        "update the driver on the host, or name an image for an older CUDA: --image REF",
    )


def check_room(base: Base, engine: EngineFacts) -> None:
    place = engine.get("root")
    free = free_bytes(place)
    if free is None or free >= base["room"] or _is_there(base, engine):
        return
    raise AgentError(
        error_codes.NO_ROOM,
        "the image %s needs up to %s, but the engine's disk has %s free"
        % (base["name"], size(base["room"]), size(free)),
        "docker system prune on the host, or give the engine a larger disk (data-root in /etc/docker/daemon.json)",
        where=str(place),
    )


def free_bytes(place: Optional[str]) -> Optional[int]:
    """Return the free bytes where the engine stores its images, or None when that disk is invisible here."""
    if not place or not os.path.isdir(os.path.dirname(place)):
        return None
    try:
        return facts.disk(place)["free"]
    except OSError:
        return None


def _is_there(base: Base, engine: EngineFacts) -> bool:
    docker = Engine(engine["argv"])
    try:
        return any(image.find_image(docker, name) is not None for name in (image.own_tag(base), base["reference"]))
    except EngineError:
        return True  # an engine that does not answer now reports its problem later


def number(version: str) -> Tuple[int, ...]:
    """`525.60.13` -> (525, 60, 13)."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())

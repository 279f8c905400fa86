"""The images that go by a name of ours: docker/images.toml, the bases that gpurun's own image is built on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from gpurun import toml
from gpurun.errors import UsageError

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Base as BaseOfJob
    from gpurun.config.hosts import HostProfile

_NAME = re.compile(r"v\d+(\.\d+)*")  # what can only be meant as a name of the catalogue


class ImageOfJob(TypedDict):
    """What job.json says of an image, one of the two: a reference, or an entry of the catalogue to build on."""

    image: str | None
    base: BaseOfJob | None


@dataclass(frozen=True)
class Base:
    """One entry: the base image by digest, what is in it, the lowest driver that runs it, the bytes that it wants free."""

    name: str
    base: str
    torch: str
    torchvision: str
    cuda: str
    driver: str
    room: int


@dataclass(frozen=True)
class Catalogue:
    default: Base
    images: Mapping[str, Base]


def read(file: Path | None = None) -> Catalogue:
    """The catalogue of this gpurun."""
    from gpurun.remote.bundle import image_folder

    told = toml.read(file or image_folder() / "images.toml")
    images = {name: Base(name, **entry) for name, entry in told["images"].items()}
    return Catalogue(images[told["default"]], images)


def wanted(image: str | None, host: HostProfile | None) -> ImageOfJob:
    """What job.json says of an image: `image`, a reference, or else `base`, a catalogue entry to build on.

    `image` may be a name of the catalogue; None is its default. The host's `base_image` stands in for an entry's base.
    Raises UsageError for a name that looks like one of the catalogue's and is none.
    """
    known = read()
    found = known.default if image is None else known.images.get(image)
    if found is None and image is not None and _NAME.fullmatch(image):
        names = ", ".join(known.images)
        raise UsageError(f"image: there is no {image}", f"take one of {names}, or any image by its whole name")
    if found is None:
        return {"image": image, "base": None}
    base: BaseOfJob = {
        "name": found.name,
        "reference": stand_in(found, known, host) or found.base,
        "torch": found.torch,
        "cuda": found.cuda,
        "driver": found.driver,
        "room": found.room,
        "asked": image is not None,
    }
    return {"image": None, "base": base}


def for_host(base: BaseOfJob | None, host: HostProfile) -> BaseOfJob | None:
    """`base` of a job (or None) as another host has it: what stood in for it on the first host may be unknown there."""
    known = read()
    entry = known.images.get(base["name"]) if base else None
    if not base or entry is None:
        return base
    return {**base, "reference": stand_in(entry, known, host) or entry.base}


def stand_in(base: Base, known: Catalogue, host: HostProfile | None) -> str | None:
    """The image that the host's profile names for this entry: one for each name, or one alone, for the default."""
    told = host.base_image if host else None
    if isinstance(told, Mapping):
        return told.get(base.name)
    return told if base == known.default else None

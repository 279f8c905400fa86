"""Making an image ready on a host ahead of time, so that a first submit is as quick as any other."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpurun.config.hosts import HostProfile
from gpurun.errors import ContactLost, GpurunError
from gpurun.job import images
from gpurun.remote.wire import Wire

if TYPE_CHECKING:
    from gpurun.agent.schema.requests import ProfileOfImage, WarmRequest
    from gpurun.agent.schema.wire import Made

QUESTION_IN = 60.0  # seconds: nvidia-smi and the engine may each take their time
PULL_PART = 0.7  # of the whole, where layers are pulled before the build

# What an engine says where it cannot redraw a line: a layer's state, a step of either builder.
_LAYER = re.compile(
    r"([0-9a-f]{12}): (Pulling fs layer|Waiting|Verifying Checksum|Download complete|Pull complete|Already exists)"
)
# Numbers of steps, and no others: a job's own Dockerfile prints what it likes.
_STEP = re.compile(
    r"(?:Step ([0-9]{1,4})/([1-9][0-9]{0,3}) : |#[0-9]+ \[(?:\S+ )?([0-9]{1,4})/([1-9][0-9]{0,3})\] )(.*)"
)
_PIP = ("Collecting ", "Downloading ", "Installing collected ", "Building wheel", "Processing ")
_LAYER_DONE = {"Download complete": 0.5, "Pull complete": 1.0, "Already exists": 1.0}


@dataclass
class Steps:
    """How far the making of an image is, as its engine's own words tell."""

    fraction: float = 0.0
    now: str = ""  # what it does, in a word or two
    doing: str = ""  # `building the image`; empty as long as nothing is made
    at: str = ""  # `step 4 of 9`
    counted: bool = False  # `at` is a step of a build, of which there are few
    _layers: dict[str, float] = field(default_factory=dict)
    _build: float = 0.0
    _rest: bytes = b""

    @property
    def step(self) -> str:
        """What is worth a line of its own: `building the image, step 4 of 9`, of which there are few."""
        return ", ".join(filter(None, (self.doing, self.at if self.counted else "")))

    def feed(self, data: bytes) -> None:
        """Read what came. A line may come in pieces."""
        *lines, self._rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        for line in lines:
            self._read(line.decode("utf-8", "replace").strip())
        pulled = sum(self._layers.values()) / len(self._layers) if self._layers else 0.0
        part = PULL_PART if self._layers else 0.0
        self.fraction = max(self.fraction, part * pulled + (1 - part) * self._build)

    def _read(self, line: str) -> None:
        layer, step = _LAYER.match(line), _STEP.match(line)
        if layer:
            done = _LAYER_DONE.get(layer[2], 0.0)
            self._layers[layer[1]] = max(done, self._layers.get(layer[1], 0.0))
            whole = sum(1 for part in self._layers.values() if part == 1.0)
            self._does("pulling the image", f"layer {whole} of {len(self._layers)}")
            self.now = self.at
        elif step:
            at, of = (step[1], step[2]) if step[1] else (step[3], step[4])
            self._build = min(max(self._build, (int(at) - 1) / int(of)), 1.0)
            self._does("building the image", f"step {at} of {of}", counted=True)
            self.now = f"{self.at}: {step[5].split(' ', 1)[0]}"
        elif ": Pulling from " in line:
            self._does("pulling the image")
        elif line.startswith("building "):  # what follows are the agent's own words, see agent/images/image.py
            self._does("building the image")
        elif line.startswith("installing the requirements of "):
            self._does("installing the dependencies")
        elif line.startswith(_PIP):  # in a step of the build, or behind it
            self.now = " ".join(line.split()[:2])
            if self.doing != "building the image":
                self._does("installing the dependencies", self.now[0].lower() + self.now[1:])

    def _does(self, doing: str, at: str = "", *, counted: bool = False) -> None:
        self.doing, self.at, self.counted = doing, at, counted


@dataclass(frozen=True)
class Ready:
    """An image that is on the host now; `image` is None on one that runs jobs without an engine."""

    image: str | None
    digest: str | None = None
    id: str | None = None
    seconds: float = 0.0


def request(host: HostProfile, image: str | None = None) -> WarmRequest:
    """What the host is told of the image. Raises UsageError for a name that is none."""
    profile: ProfileOfImage = {"pip_index": host.pip_index, "registry_mirror": host.registry_mirror}
    asked = images.wanted(image, host)
    return {"image": asked["image"], "base": asked["base"], "profile": profile}


def warm(wire: Wire, host: HostProfile) -> bool:
    """Begin with gpurun's image in the background. True when that is under way."""
    return bool(wire.ask("warm", {**request(host), "stream": False}, timeout=QUESTION_IN)["started"])


def make_ready(wire: Wire, host: HostProfile, image: str | None, hear: Callable[[bytes], None]) -> Ready:
    """Have the image made, or wait for whoever makes it already; `hear` gets what the host says.

    Raises what the host refuses, GpurunError when it could not be made, ContactLost; it is made in the background all the same.
    """
    with wire.stream("warm", {**request(host, image), "follow": True}, timeout=QUESTION_IN) as stream:
        if not stream.answer["engine"]:
            return Ready(None)
        try:
            for frame in stream:
                if frame.data:
                    hear(frame.data)
                if frame.end is not None:
                    return _end(wire, frame.end)
        except ContactLost as lost:
            next_step = f"it goes on there; see how far it is: gpurun host prepare {wire.host}"
            raise ContactLost(lost.what, next_step, where=lost.where) from lost
    raise AssertionError("a stream without an end raises")


def _end(wire: Wire, end: Made) -> Ready:
    if not end["ok"]:
        raise GpurunError(end["what"], end["next"], where=wire.host)
    return Ready(end["image"], end["digest"], end["id"], end["seconds"])

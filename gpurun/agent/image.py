"""The image of a job, on the host: gpurun's own is built there at first use, any other is pulled when it is not there."""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence

from . import locks
from .engine import Engine, EngineError, classify, essence
from .errors import RunFailed
from .programs import Answer, Say

REPOSITORY = "gpurun/pytorch"
PAUSES = (2.0, 5.0, 15.0)  # seconds before a pull that broke off is tried again
_TRANSIENT = ("network", "down", "unknown", "no_answer")

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Image:
    reference: str  # as it was asked for
    digest: str  # of the registry; of the image itself for one that was made here
    id: str


def folder() -> str:
    """Where the Dockerfile lies: beside this file in the agent on a host, in `docker/` of a source checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, "image")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(os.path.dirname(here)), "docker")


def ensure(
    engine: Engine, reference: Optional[str], profile: Mapping[str, Any], say: Say, sleep: Sleep = time.sleep
) -> Image:
    """The image of this name, or gpurun's own for None, present on the host. Raises RunFailed, EngineError."""
    if reference is None:
        return ensure_own(engine, profile, say, sleep)
    return ensure_present(engine, mirrored(reference, profile.get("registry_mirror")), say, sleep)


def ensure_own(engine: Engine, profile: Mapping[str, Any], say: Say, sleep: Sleep = time.sleep) -> Image:
    """gpurun's image, built once for each content of Dockerfile, lock and base."""
    context = folder()
    base = profile.get("base_image") or default_base(context)
    tag = "%s:%s" % (REPOSITORY, content_hash(context, base))
    found = look(engine, tag)
    if found is not None:
        return found
    with locks.host_lock("image", lambda: say(b"")):
        found = look(engine, tag)  # another run may have built it while we waited
        if found is None:
            say(("building %s on %s\n" % (tag, base)).encode())
            source = mirrored(base, profile.get("registry_mirror"))
            ensure_present(engine, source, say, sleep)
            _build(engine, build(context, tag, source, profile.get("pip_index")), say, sleep)
            found = look(engine, tag)
    if found is None:
        raise RunFailed("image", "the image was built and is gone again", "submit again")
    return found


def build(context: str, tag: str, base: str, pip_index: Optional[str]) -> Sequence[str]:
    """`docker build`, without the engine's own argv. On the host's network: a bridge may lack its proxy or its DNS."""
    index = ["--build-arg", "PIP_INDEX_URL=" + pip_index] if pip_index else []
    return ["build", "--network", "host", "--tag", tag, "--build-arg", "BASE=" + base, *index, context]


def _build(engine: Engine, command: Sequence[str], say: Say, sleep: Sleep) -> None:
    answer = _again(lambda: engine.watch(*command, say=say), say, sleep, attempts=2)
    if answer.ok:
        return
    kind = classify(answer.text)
    if kind == "no_space":
        raise EngineError(kind, "", engine.argv[-1])
    raise RunFailed(
        "image", "the image could not be built: " + essence(answer.text), "`gpurun logs` shows all that the build said"
    )


def default_base(context: str) -> str:
    with open(os.path.join(context, "Dockerfile"), encoding="utf-8") as file:
        found = re.search(r"^ARG BASE=(\S+)", file.read(), re.MULTILINE)
    assert found is not None
    return found.group(1)


def content_hash(context: str, base: str) -> str:
    """Names what is built: all files of the build's folder, and what it stands on."""
    digest = hashlib.sha256(base.encode())
    for name in sorted(os.listdir(context)):
        path = os.path.join(context, name)
        if os.path.isfile(path) and not name.startswith("."):
            with open(path, "rb") as file:
                digest.update(name.encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:16]


def ensure_present(engine: Engine, reference: str, say: Say, sleep: Sleep = time.sleep) -> Image:
    """Pull it unless it is there. A pull that breaks off is tried again: the engine keeps the layers that are whole."""
    found = look(engine, reference)
    if found is not None:
        return found
    answer = _again(lambda: engine.watch("pull", reference, say=say), say, sleep, attempts=len(PAUSES) + 1)
    if not answer.ok:
        raise refused(reference, answer)
    found = look(engine, reference)
    if found is None:
        raise RunFailed("image", "%s was pulled and is gone again" % reference, "submit again")
    return found


def refused(reference: str, answer: Answer) -> RunFailed:
    error = EngineError(classify(answer.text), essence(answer.text))
    reason = "disk" if error.kind == "no_space" else "image"
    return RunFailed(reason, "%s: %s" % (reference, error.what), error.next_step)


def _again(attempt: Callable[[], Answer], say: Say, sleep: Sleep, attempts: int) -> Answer:
    """Try until it works, or fails for a reason that another try cannot mend."""
    for pause in PAUSES[: attempts - 1]:
        answer = attempt()
        if answer.ok or classify(answer.text) not in _TRANSIENT:
            return answer
        say(("%s; again in %g s\n" % (essence(answer.text), pause)).encode())
        _pause(pause, say, sleep)
    return attempt()


def _pause(seconds: float, say: Say, sleep: Sleep) -> None:
    """In small pieces, so that `say` can give up meanwhile."""
    for _ in range(int(seconds * 2)):
        sleep(0.5)
        say(b"")


def look(engine: Engine, reference: str) -> Optional[Image]:
    """The image if the host has it."""
    found = engine.inspect("image", reference)
    return None if found is None else parse_image(reference, found)


def parse_image(reference: str, found: Mapping[str, Any]) -> Image:
    """`docker image inspect`. Of several digests the one of the repository that was asked for."""
    name = repository(reference)
    digests = found.get("RepoDigests") or []
    digest = next((one for one in digests if repository(one) == name), digests[0] if digests else found["Id"])
    return Image(reference, digest.rpartition("@")[2], found["Id"])


def repository(reference: str) -> str:
    """`host:5000/a/b:tag@sha256:...` -> `host:5000/a/b`."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def pinned(reference: str, prepared: Mapping[str, Any]) -> str:
    """What an earlier attempt had under this name, as any host can pull it; the name alone for one that was made there."""
    digest = prepared.get("digest")
    if not digest or digest == prepared.get("base_id") or prepared.get("base_id") is None:
        return reference
    return "%s@%s" % (repository(reference), digest)


def mirrored(reference: str, mirror: Optional[str]) -> str:
    """The same image at the mirror, for a name that belongs to Docker Hub; others name their registry themselves."""
    first, slash, rest = reference.partition("/")
    if not mirror or re.match(r"(sha256:)?[0-9a-f]{64}$", reference):
        return reference
    if slash and first in ("docker.io", "index.docker.io"):
        reference = rest
    elif slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return "%s/%s" % (mirror.rstrip("/"), reference if "/" in reference else "library/" + reference)

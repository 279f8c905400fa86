"""Provide the image of a job on the host: gpurun's own and a project's Dockerfile are built there, any other is pulled.

Three fields of the job choose the image: `image` (a reference), `dockerfile` (a path in the snapshot), or `base` (the
base of gpurun's own image: {"name", "reference", "torch", ...}, see gpurun/job/images.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, List, Mapping, NamedTuple, Optional, Sequence

from .. import manifest
from ..errors import RunFailed
from ..host import locks
from ..host.engine import Engine, EngineError, Kind, classify, essence
from ..programs import Result, Say, Step, ignore_step

if TYPE_CHECKING:
    from ..schema.host import Inspected
    from ..schema.job import Base, Job
    from ..schema.run import Prepared

REPOSITORY = "gpurun/pytorch"
PROJECTS = "gpurun/project"
RECIPE = ("Dockerfile", "requirements.lock")  # the files that determine gpurun's own image
PAUSES = (2.0, 5.0, 15.0)  # seconds before a broken pull is retried
SEE_BUILD = "gpurun logs --build prints the whole output"
_TRANSIENT = (Kind.NETWORK, Kind.DOWN, Kind.UNKNOWN, Kind.NO_ANSWER)

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Image:
    reference: str  # as the job requested it
    digest: str  # of the registry; for an image that was made here, of the image itself
    id: str
    base: Optional[str] = None  # the base of an image that was made here
    content: Optional[str] = None  # the hash of everything that it was made from


class Wanted(NamedTuple):
    """Name the image of a job: a reference, a Dockerfile in the snapshot, or else the base of gpurun's own image."""

    image: Optional[str]
    base: Optional[Base]  # see gpurun/job/images.py
    dockerfile: Optional[str] = None
    pip_index: Optional[str] = None
    registry_mirror: Optional[str] = None


def wanted_by(job: Job) -> Wanted:
    """Return which image a job needs."""
    profile = job["profile"]
    return Wanted(
        job["image"], job.get("base"), job.get("dockerfile"), profile.get("pip_index"), profile.get("registry_mirror")
    )


def folder() -> str:
    """Return where the Dockerfile is: in the agent on a host, in `docker/` of a source checkout."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = os.path.join(here, "image")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(os.path.dirname(here)), "docker")


def ensure(
    engine: Engine,
    wanted: Wanted,
    project: str,
    say: Say,
    sleep: Sleep = time.sleep,
    *,
    step: Step = ignore_step,
) -> Image:
    """Return the job's image and make sure that the host has it. `project`: the snapshot.

    Raises RunFailed, EngineError.
    """
    if wanted.dockerfile:
        return ensure_project(engine, wanted, project, say, sleep, step)
    if wanted.image is None:
        return ensure_own(engine, wanted, say, sleep, step)
    reference = mirrored(wanted.image, wanted.registry_mirror)
    return ensure_present(engine, reference, say, sleep, step=step)


def ensure_own(engine: Engine, wanted: Wanted, say: Say, sleep: Sleep, step: Step) -> Image:
    """Return gpurun's image, built once for each content of Dockerfile, lock and base."""
    base = wanted.base
    assert base is not None

    def make() -> List[str]:
        source = mirrored(base["reference"], wanted.registry_mirror)
        ensure_present(engine, source, say, sleep, step=step)
        step("building the image on " + source)
        arguments = {"BASE": source, "TORCH": base["torch"], "PIP_INDEX_URL": wanted.pip_index}
        return build(folder(), own_tag(base), arguments)

    return _ensure_built(engine, own_tag(base), base["reference"], make, say, sleep, step)


def own_tag(base: Base) -> str:
    """Return a tag such as `gpurun/pytorch:v2.8-0123456789abcdef`: the name of the base, and the hash of what is built
    on it.
    """
    return "%s:%s-%s" % (REPOSITORY, base["name"], content_hash(folder(), base["reference"], base["torch"]))


def ensure_project(engine: Engine, wanted: Wanted, project: str, say: Say, sleep: Sleep, step: Step) -> Image:
    """Return the image of the project's own Dockerfile, built once for each content of the snapshot.

    The engine's cache saves the build steps whose inputs have not changed.
    """
    file = wanted.dockerfile
    assert file is not None
    tag = "%s:%s" % (PROJECTS, tree_hash(project, file))

    def make() -> List[str]:
        arguments = {"PIP_INDEX_URL": wanted.pip_index}
        step("building the image of " + file)
        return build(project, tag, arguments, os.path.join(project, file))

    return _ensure_built(engine, tag, file, make, say, sleep, step)


def _ensure_built(
    engine: Engine, tag: str, base: str, make: Callable[[], Sequence[str]], say: Say, sleep: Sleep, step: Step
) -> Image:
    """Return the image of this tag. When it is missing, `make` fetches its base and returns the build command."""
    image = find_image(engine, tag)
    if image is None:

        def wait() -> None:
            step("waiting for another run, which builds the same image")
            say(b"")

        with locks.host_lock("image-" + tag.replace("/", "-").replace(":", "-"), wait):
            image = find_image(engine, tag)  # another run may have built it while we waited
            if image is None:
                say(("building %s on %s\n" % (tag, base)).encode())
                _build(engine, make(), say, sleep)
                image = find_image(engine, tag)
    if image is None:
        raise RunFailed("image", "the image was removed right after it was built", "submit again")
    return replace(image, base=base, content=tag.rpartition(":")[2].rpartition("-")[2])


def build(context: str, tag: str, arguments: Mapping[str, Optional[str]], file: Optional[str] = None) -> List[str]:
    """Return `docker build` without the engine's own argv.

    It uses the host's network: a bridge may lack the host's proxy or DNS.
    """
    build_arguments = ["%s=%s" % (name, value) for name, value in arguments.items() if value]
    return [
        "build", "--network", "host", "--tag", tag,
        *(word for value in build_arguments for word in ("--build-arg", value)),
        *(["--file", file] if file else []),
        context,
    ]  # fmt: skip


def _build(engine: Engine, command: Sequence[str], say: Say, sleep: Sleep) -> None:
    answer = _retry(engine, lambda: engine.watch(*engine.with_login(), *command, say=say), say, sleep, attempts=2)
    if answer.ok:
        return
    kind = classify(answer.text)
    if kind == Kind.NO_SPACE:
        raise EngineError(kind, "", engine.argv[-1])
    raise RunFailed("image", "the engine could not build the image: " + essence(answer.text), SEE_BUILD)


def content_hash(context: str, base: str, torch: str) -> str:
    """Return a hash of what is built: the recipe in `context`, its base, and the torch that it requires."""
    digest = hashlib.sha256(("%s\0%s" % (base, torch)).encode())
    for name in RECIPE:
        with open(os.path.join(context, name), "rb") as file:
            digest.update(name.encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:16]


def tree_hash(folder: str, dockerfile: str) -> str:
    """Return a hash of a project's build context: every file that could be copied, its executable bit, every link."""
    digest = hashlib.sha256(dockerfile.encode("utf-8", "surrogateescape"))
    top = os.fsencode(folder)
    for entry in manifest.walk(folder):
        digest.update(b"\0%b\0%b\0%b\0" % (entry.path, entry.kind.encode(), entry.target))
        if entry.kind == "f":
            path = os.path.join(top, entry.path)
            digest.update(b"x" if os.access(path, os.X_OK) else b"-")
            with open(path, "rb") as file:
                for piece in iter(lambda: file.read(1 << 20), b""):
                    digest.update(piece)
    return digest.hexdigest()[:16]


def ensure_present(
    engine: Engine, reference: str, say: Say, sleep: Sleep = time.sleep, *, step: Step = ignore_step
) -> Image:
    """Pull the image when it is missing. A pull that breaks is retried: the engine keeps the complete layers."""
    image = find_image(engine, reference)
    if image is not None:
        return image
    step("pulling " + reference)
    pull = (*engine.with_login(), "pull", reference)
    answer = _retry(engine, lambda: engine.watch(*pull, say=say), say, sleep, attempts=len(PAUSES) + 1)
    if not answer.ok:
        raise refused(reference, answer)
    image = find_image(engine, reference)
    if image is None:
        raise RunFailed("image", "%s was removed right after it was pulled" % reference, "submit again")
    return image


def refused(reference: str, answer: Result) -> RunFailed:
    """Return the error for a pull that the registry or the engine refused."""
    kind = classify(answer.text)
    # The engine itself answers (see `_retry`): the connection to the registry broke.
    error = EngineError(Kind.NETWORK if kind == Kind.DOWN else kind, essence(answer.text))
    reason = "disk" if error.kind == Kind.NO_SPACE else "image"
    return RunFailed(reason, "%s: %s" % (reference, error.what), error.next_step)


def _retry(engine: Engine, attempt: Callable[[], Result], say: Say, sleep: Sleep, attempts: int) -> Result:
    """Try until the attempt succeeds, or fails for a reason that a retry cannot change.

    Raises EngineError when the engine does not answer: then the attempt itself has not failed, and the caller waits for
    the engine.
    """
    for pause in (*PAUSES[: attempts - 1], None):
        answer = attempt()
        kind = "" if answer.ok else classify(answer.text)
        if kind not in _TRANSIENT:
            break
        if pause is not None:
            say(("%s; retrying in %g s\n" % (essence(answer.text), pause)).encode())
            _pause(pause, say, sleep)
        engine.check()
    return answer


def _pause(seconds: float, say: Say, sleep: Sleep) -> None:
    """Sleep in short steps, so that `say` can cancel the wait."""
    for _ in range(int(seconds * 2)):
        sleep(0.5)
        say(b"")


def find_image(engine: Engine, reference: str) -> Optional[Image]:
    """Return the image if the host has it, else None."""
    document = engine.inspect("image", reference)
    return None if document is None else parse_image(reference, document)


def parse_image(reference: str, document: Inspected) -> Image:
    """Parse `docker image inspect`. Of several digests, choose the digest of the requested repository."""
    name = repository(reference)
    digests = document.get("RepoDigests") or []
    digest = next((text for text in digests if repository(text) == name), digests[0] if digests else document["Id"])
    return Image(reference, digest.rpartition("@")[2], document["Id"])


def repository(reference: str) -> str:
    """Return the repository of a reference: `host:5000/a/b:tag@sha256:...` -> `host:5000/a/b`."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def pinned(reference: str, prepared: Optional[Prepared]) -> str:
    """Return a reference to the image that an earlier attempt used, which any host can pull.

    An image that was made on the host has only its name.
    """
    digest = prepared.get("digest") if prepared else None
    if not prepared or not digest or digest == prepared.get("base_id") or prepared.get("base_id") is None:
        return reference
    return "%s@%s" % (repository(reference), digest)


def mirrored(reference: str, mirror: Optional[str]) -> str:
    """Return the same image at the mirror when the name belongs to Docker Hub; other names contain their registry."""
    first, slash, rest = reference.partition("/")
    if not mirror or re.match(r"(sha256:)?[0-9a-f]{64}$", reference):
        return reference
    if slash and first in ("docker.io", "index.docker.io"):
        reference = rest
    elif slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return "%s/%s" % (mirror.rstrip("/"), reference if "/" in reference else "library/" + reference)

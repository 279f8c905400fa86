"""The image of a job, on the host: gpurun's own and a project's Dockerfile are built there, any other is pulled."""

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
RECIPE = ("Dockerfile", "requirements.lock")  # what decides about gpurun's own image
PAUSES = (2.0, 5.0, 15.0)  # seconds before a pull that broke off is tried again
SEE_BUILD = "gpurun logs --build prints all of it"
_TRANSIENT = (Kind.NETWORK, Kind.DOWN, Kind.UNKNOWN, Kind.NO_ANSWER)

Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Image:
    reference: str  # as it was asked for
    digest: str  # of the registry; of the image itself for one that was made here
    id: str
    base: Optional[str] = None  # what one that was made here stands on
    content: Optional[str] = None  # the hash of all that it was made from


class Wanted(NamedTuple):
    """Which image a job wants: a reference, a Dockerfile in the snapshot, or else what gpurun's own is built on."""

    image: Optional[str]
    base: Optional[Base]  # see gpurun/job/images.py
    dockerfile: Optional[str] = None
    pip_index: Optional[str] = None
    registry_mirror: Optional[str] = None


def wanted_by(job: Job) -> Wanted:
    """Return which image a job wants."""
    profile = job["profile"]
    return Wanted(
        job["image"], job.get("base"), job.get("dockerfile"), profile.get("pip_index"), profile.get("registry_mirror")
    )


def folder() -> str:
    """Where the Dockerfile lies: in the agent on a host, in `docker/` of a source checkout."""
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
    """The image that the job wants, present on the host. `project`: its snapshot. Raises RunFailed, EngineError."""
    if wanted.dockerfile:
        return ensure_project(engine, wanted, project, say, sleep, step)
    if wanted.image is None:
        return ensure_own(engine, wanted, say, sleep, step)
    reference = mirrored(wanted.image, wanted.registry_mirror)
    return ensure_present(engine, reference, say, sleep, step=step)


def ensure_own(engine: Engine, wanted: Wanted, say: Say, sleep: Sleep, step: Step) -> Image:
    """gpurun's image, built once for each content of Dockerfile, lock and base."""
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
    """`gpurun/pytorch:v2.8-0123456789abcdef`: the name of the base, and the hash of what is built on it."""
    return "%s:%s-%s" % (REPOSITORY, base["name"], content_hash(folder(), base["reference"], base["torch"]))


def ensure_project(engine: Engine, wanted: Wanted, project: str, say: Say, sleep: Sleep, step: Step) -> Image:
    """The image of the project's own Dockerfile, built once for each content of what was sent.

    The engine's own cache spares the steps that nothing changed for.
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
    """The image of this tag; when there is none, `make` gets what it stands on, and says how it is built."""
    found = look(engine, tag)
    if found is None:

        def wait() -> None:
            step("waiting for another run, which builds the same image")
            say(b"")

        with locks.host_lock("image-" + tag.replace("/", "-").replace(":", "-"), wait):
            found = look(engine, tag)  # another run may have built it while we waited
            if found is None:
                say(("building %s on %s\n" % (tag, base)).encode())
                _build(engine, make(), say, sleep)
                found = look(engine, tag)
    if found is None:
        raise RunFailed("image", "the image was built and is gone again", "submit again")
    return replace(found, base=base, content=tag.rpartition(":")[2].rpartition("-")[2])


def build(context: str, tag: str, arguments: Mapping[str, Optional[str]], file: Optional[str] = None) -> List[str]:
    """`docker build`, without the engine's own argv. On the host's network: a bridge may lack its proxy or its DNS."""
    told = ["%s=%s" % (name, value) for name, value in arguments.items() if value]
    return [
        "build", "--network", "host", "--tag", tag,
        *(word for value in told for word in ("--build-arg", value)),
        *(["--file", file] if file else []),
        context,
    ]  # fmt: skip


def _build(engine: Engine, command: Sequence[str], say: Say, sleep: Sleep) -> None:
    answer = _again(engine, lambda: engine.watch(*engine.with_login(), *command, say=say), say, sleep, attempts=2)
    if answer.ok:
        return
    kind = classify(answer.text)
    if kind == Kind.NO_SPACE:
        raise EngineError(kind, "", engine.argv[-1])
    raise RunFailed("image", "the image could not be built: " + essence(answer.text), SEE_BUILD)


def content_hash(context: str, base: str, torch: str) -> str:
    """Names what is built: the recipe in `context`, what it stands on, and what it looks for there."""
    digest = hashlib.sha256(("%s\0%s" % (base, torch)).encode())
    for name in RECIPE:
        with open(os.path.join(context, name), "rb") as file:
            digest.update(name.encode() + b"\0" + hashlib.sha256(file.read()).digest())
    return digest.hexdigest()[:16]


def tree_hash(folder: str, dockerfile: str) -> str:
    """Names what a project's Dockerfile makes: every file that it could copy, its right to be executed, every link."""
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
    """Pull it unless it is there. A pull that breaks off is tried again: the engine keeps the layers that are whole."""
    found = look(engine, reference)
    if found is not None:
        return found
    step("pulling " + reference)
    pull = (*engine.with_login(), "pull", reference)
    answer = _again(engine, lambda: engine.watch(*pull, say=say), say, sleep, attempts=len(PAUSES) + 1)
    if not answer.ok:
        raise refused(reference, answer)
    found = look(engine, reference)
    if found is None:
        raise RunFailed("image", "%s was pulled and is gone again" % reference, "submit again")
    return found


def refused(reference: str, answer: Result) -> RunFailed:
    kind = classify(answer.text)
    # The engine itself answers (see `_again`): it was the connection to the registry that broke.
    error = EngineError(Kind.NETWORK if kind == Kind.DOWN else kind, essence(answer.text))
    reason = "disk" if error.kind == Kind.NO_SPACE else "image"
    return RunFailed(reason, "%s: %s" % (reference, error.what), error.next_step)


def _again(engine: Engine, attempt: Callable[[], Result], say: Say, sleep: Sleep, attempts: int) -> Result:
    """Try until it works, or fails for a reason that another try cannot mend.

    Raises EngineError when the engine is away: that is no failure of what was tried, and to be waited for.
    """
    for pause in (*PAUSES[: attempts - 1], None):
        answer = attempt()
        kind = "" if answer.ok else classify(answer.text)
        if kind not in _TRANSIENT:
            break
        if pause is not None:
            say(("%s; again in %g s\n" % (essence(answer.text), pause)).encode())
            _pause(pause, say, sleep)
        engine.check()
    return answer


def _pause(seconds: float, say: Say, sleep: Sleep) -> None:
    """In small pieces, so that `say` can give up meanwhile."""
    for _ in range(int(seconds * 2)):
        sleep(0.5)
        say(b"")


def look(engine: Engine, reference: str) -> Optional[Image]:
    """The image if the host has it."""
    found = engine.inspect("image", reference)
    return None if found is None else parse_image(reference, found)


def parse_image(reference: str, found: Inspected) -> Image:
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


def pinned(reference: str, prepared: Optional[Prepared]) -> str:
    """What an earlier attempt had under this name, as any host can pull it; the name alone for one that was made there."""
    digest = prepared.get("digest") if prepared else None
    if not prepared or not digest or digest == prepared.get("base_id") or prepared.get("base_id") is None:
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

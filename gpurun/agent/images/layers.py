"""A project's dependencies, on top of an image: made once for each content, and used again."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Optional, cast

from ..errors import RunFailed
from ..programs import Result, last_lines
from ..setup import services
from . import layer_install

if TYPE_CHECKING:
    from ..schema.job import Dependencies, Job, Profile
    from ..schema.programs import InstallOrder

INSTALLER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layer_install.py")
VERSION = "1"  # counted up when the same requirements would be installed in another way


def key(*parts: str) -> str:
    """A short name for what is made from these parts."""
    return hashlib.sha256("\0".join([VERSION, *parts]).encode("utf-8", "surrogateescape")).hexdigest()[:20]


def asked(job: Job) -> Optional[Dependencies]:
    """What is to be installed for the job: its project's dependencies, and what a service needs besides."""
    tools = services.tools(job)
    if not tools:
        return job["dependencies"]
    if job["dependencies"] is None:
        return {"kind": "pyproject", "file": str(services.kind(job)), "requirements": tools}
    return {**job["dependencies"], "tools": tools}


def fingerprint(project: str, dependencies: Optional[Dependencies]) -> str:
    """What decides about the installation: the requirements with every file that they name. Raises RunFailed."""
    digest = hashlib.sha256()
    if dependencies is None:
        return "none"
    path = os.path.join(project, dependencies["file"])
    digest.update(repr((dependencies["kind"], dependencies.get("requirements"))).encode("utf-8", "surrogateescape"))
    if dependencies.get("tools"):
        digest.update(repr(dependencies["tools"]).encode())
    if dependencies["kind"] == "pyproject":
        lines = [(project, line) for line in dependencies["requirements"]]
    elif dependencies["kind"] == "uv":
        _add_file(digest, path)
        lines = []
    else:
        try:
            lines = list(layer_install.read_lines(path))
        except OSError as error:
            raise RunFailed(
                "dependencies", "%s cannot be read: %s" % (dependencies["file"], error), "look at its -r and -c lines"
            ) from None
    for folder, line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
        local = layer_install.local_path(line, folder)
        if local is not None and local != os.path.normpath(project):
            _add_tree(digest, local)
    return digest.hexdigest()


def _add_tree(digest: Any, path: str) -> None:
    if os.path.isfile(path):
        _add_file(digest, path)
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            digest.update(os.fsencode(os.path.relpath(os.path.join(folder, name), path)))
            _add_file(digest, os.path.join(folder, name))


def _add_file(digest: Any, path: str) -> None:
    try:
        with open(path, "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    except OSError:
        digest.update(b"absent")


def order(asked: Dependencies, profile: Profile, *, project: str, where: str) -> InstallOrder:
    """Return what the installer is told. `where` names the base in its messages."""
    told = {**asked, "project": project, "index": profile.get("pip_index"), "where": where}
    return cast("InstallOrder", told)


def is_disk_full(said: bytes) -> bool:
    return b"No space left on device" in said or b"Errno 28" in said or b"Disk quota exceeded" in said


def check(answer: Result, file: str, conflict_next: str) -> bool:
    """Whether anything was installed. Raises RunFailed when it could not be."""
    if answer.code in (layer_install.INSTALLED, layer_install.SATISFIED):
        return answer.code == layer_install.INSTALLED
    said = " ".join(last_lines(answer.out, 1)) or "it ended with exit code %d" % answer.code
    if is_disk_full(answer.out):
        raise RunFailed("disk", "the host's disk is full: " + said, "make room there: gpurun prune --fetched")
    if answer.code == layer_install.CONFLICT:
        raise RunFailed("dependencies", said, conflict_next)
    raise RunFailed("dependencies", said, "gpurun logs --build prints all that pip printed; fix %s" % file)

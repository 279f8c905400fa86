"""Describe a project's dependencies on top of an image: installed once for each content, and used again."""

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
VERSION = "1"  # raised when the same requirements would be installed differently


def key(*parts: str) -> str:
    """Return a short name for what is made from these parts."""
    return hashlib.sha256("\0".join([VERSION, *parts]).encode("utf-8", "surrogateescape")).hexdigest()[:20]


def requested(job: Job) -> Optional[Dependencies]:
    """Return what is installed for the job: its project's dependencies, and what a service needs besides."""
    tools = services.tools(job)
    if not tools:
        return job["dependencies"]
    if job["dependencies"] is None:
        return {"kind": "pyproject", "file": str(services.kind(job)), "requirements": tools}
    return {**job["dependencies"], "tools": tools}


def fingerprint(project: str, dependencies: Optional[Dependencies]) -> str:
    """Return a hash of everything that determines the installation: the requirements and each file that they name.

    Raises RunFailed.
    """
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
                "dependencies", "%s cannot be read: %s" % (dependencies["file"], error), "check its -r and -c lines"
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


def order(requested: Dependencies, profile: Profile, *, project: str, where: str) -> InstallOrder:
    """Return the instructions for the installer. `where` names the base in its messages."""
    instructions = {**requested, "project": project, "index": profile.get("pip_index"), "where": where}
    return cast("InstallOrder", instructions)


def is_disk_full(output: bytes) -> bool:
    return b"No space left on device" in output or b"Errno 28" in output or b"Disk quota exceeded" in output


def check(answer: Result, file: str, conflict_next: str) -> bool:
    """Return whether anything was installed. Raises RunFailed when the installation failed."""
    if answer.code in (layer_install.INSTALLED, layer_install.SATISFIED):
        return answer.code == layer_install.INSTALLED
    output = " ".join(last_lines(answer.out, 1)) or "the installer ended with exit code %d" % answer.code
    if is_disk_full(answer.out):
        raise RunFailed("disk", "the host's disk is full: " + output, "free space there: gpurun prune --fetched")
    if answer.code == layer_install.CONFLICT:
        raise RunFailed("dependencies", output, conflict_next)
    raise RunFailed("dependencies", output, "gpurun logs --build prints the output of pip; correct %s" % file)

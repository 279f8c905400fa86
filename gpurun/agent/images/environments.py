"""Make Python environments for jobs without an engine: one for each Python and each content of the project's
requirements.

The base is the Python that has torch. An environment sees all its packages and adds the project's own; it is made once,
and nothing is ever installed into the host's Python.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterator, List, Optional, cast

from .. import programs
from ..errors import RunFailed
from ..files import opened_below, read_json, sync_disk, write_json
from ..host import locks
from ..paths import RunPaths
from ..programs import Say
from ..state import journal
from . import layers

if TYPE_CHECKING:
    from ..schema.host import BasePython, FoundPython
    from ..schema.job import Dependencies, Job

MARKER = "gpurun.json"  # written last: an environment without this file is unfinished

# Where rented hosts and users install the Python that has torch.
_PLACES = (
    "/venv/main/bin/python",
    "/workspace/venv/bin/python",
    "/opt/venv/bin/python",
    "/opt/conda/bin/python",
    "/opt/conda/envs/*/bin/python",
    "~/venv/bin/python",
    "~/.venv/bin/python",
    "~/*conda*/bin/python",
    "~/*conda*/envs/*/bin/python",
    "~/*mamba*/bin/python",
    "~/*mamba*/envs/*/bin/python",
    "/usr/local/bin/python3",
    "/usr/bin/python3",
)
_ABOUT = """
import json, site, sys
from importlib.metadata import version
try:
    torch = version("torch")
except Exception:
    torch = None
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3], "torch": torch, "prefix": sys.prefix,
    "venv": sys.prefix != sys.base_prefix, "packages": site.getsitepackages(),
}))
"""


@dataclass(frozen=True)
class Environment:
    path: str  # the environment's folder
    python: str
    folders: List[str]  # to come first on PATH


def find_pythons() -> List[FoundPython]:
    """Return every Python >= 3.8 in the usual places, in order of preference: {"path", "version", "torch"}."""
    described = _describe_each(_candidates())
    return [{"path": python["path"], "version": python["version"], "torch": python["torch"]} for python in described]


def choose(profile_python: Optional[str]) -> BasePython:
    """Return the Python of the host's profile, else the first that has torch, else the first.

    Raises RunFailed without any.
    """
    if profile_python:
        candidate = about(os.path.expanduser(profile_python))
        if candidate is None:
            raise RunFailed(
                "dependencies",
                "%s does not run on the host, or is older than 3.8" % profile_python,
                'correct python = "…" in the host\'s profile',
            )
        return candidate
    first = None
    for candidate in _describe_each(_candidates()):
        if candidate["torch"] is not None:
            return candidate
        first = first or candidate
    if first is None:
        raise RunFailed("dependencies", "the host has no Python >= 3.8", "install one, or name it in its profile")
    return first


def about(python: str) -> Optional[BasePython]:
    """Return the facts of this Python, or None when it does not run or is too old."""
    try:
        # -E: the login's PYTHONPATH does not belong to the job. "/": the home may contain a json.py.
        answer = programs.run([python, "-E", "-c", _ABOUT], timeout=30.0, cwd="/")
        facts = cast("BasePython", {**json.loads(answer.text), "path": python})
    except (OSError, ValueError):
        return None
    return facts if _number(facts["version"]) >= (3, 8) else None


def _number(version: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in version.split("."))


def _candidates() -> Iterator[str]:
    for prefix in (os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")):
        if prefix:
            yield os.path.join(prefix, "bin", "python")
    for name in ("python3", "python"):
        path_found = shutil.which(name)
        if path_found:
            yield path_found
    for place in _PLACES:
        for path in sorted(glob.glob(os.path.expanduser(place))):
            yield path


def _describe_each(candidates: Iterator[str]) -> Iterator[BasePython]:
    """Yield the facts of each environment once, however many names it has."""
    paths, prefixes = set(), set()
    for path in candidates:
        if path in paths:
            continue
        paths.add(path)
        facts = about(path)
        if facts is not None and facts["prefix"] not in prefixes:
            prefixes.add(facts["prefix"])
            yield facts


def ensure(run: RunPaths, job: Job, say: Say) -> Environment:
    """Return the environment of this job, and make it when it is missing. Raises RunFailed."""
    base = choose(job["profile"].get("python"))
    say(("Python %s of %s, torch %s\n" % (base["version"], base["prefix"], base["torch"] or "absent")).encode())
    requested = layers.requested(job)
    content = layers.fingerprint(run.workspace, requested)
    key = layers.key(base["prefix"], base["version"], str(base["torch"]), content)
    folder = run.host.environment(key)
    python = os.path.join(folder, "bin", "python")
    environment = Environment(folder, python, [os.path.join(folder, "bin"), os.path.join(base["prefix"], "bin")])
    if read_json(os.path.join(folder, MARKER)) is not None and os.path.exists(python):
        return environment

    def wait() -> None:
        journal.record_step(run, "waiting for another run, which makes the same environment")
        say(b"")

    with locks.host_lock("environment-" + key, wait):
        if read_json(os.path.join(folder, MARKER)) is None or not os.path.exists(python):
            shutil.rmtree(folder, ignore_errors=True)
            journal.record_step(run, "making a Python environment")
            _make(folder, base, say)
            if requested is not None:
                _install(run, job, requested, python, say)
            sync_disk(folder)  # the marker survives a power cut, so its environment must survive too
            write_json(os.path.join(folder, MARKER), {"base": base, "dependencies": requested})
    return environment


def _make(folder: str, base: BasePython, say: Say) -> None:
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    argv = [base["path"], "-E", "-m", "venv", "--without-pip", "--system-site-packages", folder]
    answer = programs.watch(argv, say, cwd="/")
    if not answer.ok:
        reason = "disk" if layers.is_disk_full(answer.out) else "dependencies"
        output = " ".join(programs.last_lines(answer.out, 2))
        raise RunFailed(reason, "%s could not make an environment: %s" % (base["path"], output))
    if base["venv"]:
        _see_parent(folder, base)


def _see_parent(environment: str, base: BasePython) -> None:
    """Add the parent's packages by a .pth file: a venv made from a venv sees the packages of the base Python, not its
    parent's.
    """
    lines = ["import site; site.addsitedir(%r)\n" % folder for folder in base["packages"]]
    for packages in glob.glob(os.path.join(environment, "lib", "python*", "site-packages")):
        with open(os.path.join(packages, "gpurun-parent.pth"), "w") as file:
            file.writelines(lines)


def _install(run: RunPaths, job: Job, requested: Dependencies, python: str, say: Say) -> None:
    journal.record_step(run, "installing the requirements of %s" % requested["file"])
    where = "the host's Python"
    next_step = 'change it there, or name a Python that has the version: python = "…" in the host\'s profile'
    spec = layers.order(requested, job["profile"], project=run.workspace, where=where)
    write_json(run.layer, spec, 0o600)
    try:
        os.makedirs(run.host.job_cache, exist_ok=True)
        with opened_below(run.host.job_cache, "pip"):  # a job may have replaced it by a link
            pass
        env = {**os.environ, "PIP_CACHE_DIR": os.path.join(run.host.job_cache, "pip")}
        answer = programs.watch([python, "-E", layers.INSTALLER, run.layer], say, env=env, cwd="/")
    finally:
        os.unlink(run.layer)
    layers.check(answer, requested["file"], next_step)

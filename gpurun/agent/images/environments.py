"""Python environments for jobs without an engine: one for each Python and each content of the project's requirements.

The Python is the one that has torch. An environment sees all its packages and adds the project's own; it is made once,
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

MARKER = "gpurun.json"  # written last: an environment without it is half-made

# Where rented boxes and people keep the Python that has torch.
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
    folders: List[str]  # to stand first on PATH


def find_pythons() -> List[FoundPython]:
    """Every Python >= 3.8 in the usual places, in the order in which one is chosen: {"path", "version", "torch"}."""
    known = _known(_candidates())
    return [{"path": one["path"], "version": one["version"], "torch": one["torch"]} for one in known]


def choose(profile_python: Optional[str]) -> BasePython:
    """The Python of the host's profile, else the first that has torch, else the first. Raises RunFailed without any."""
    if profile_python:
        found = about(os.path.expanduser(profile_python))
        if found is None:
            raise RunFailed(
                "dependencies",
                "%s does not run on the host, or is older than 3.8" % profile_python,
                'mend python = "…" in the host\'s profile',
            )
        return found
    first = None
    for found in _known(_candidates()):
        if found["torch"] is not None:
            return found
        first = first or found
    if first is None:
        raise RunFailed("dependencies", "the host has no Python >= 3.8", "install one, or name it in its profile")
    return first


def about(python: str) -> Optional[BasePython]:
    """What this Python is; None when it does not run or is too old."""
    try:
        # -E: a PYTHONPATH of the login is none of the job's. / : the home may hold a json.py.
        answer = programs.run([python, "-E", "-c", _ABOUT], timeout=30.0, cwd="/")
        found = cast("BasePython", {**json.loads(answer.text), "path": python})
    except (OSError, ValueError):
        return None
    return found if _number(found["version"]) >= (3, 8) else None


def _number(version: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in version.split("."))


def _candidates() -> Iterator[str]:
    for prefix in (os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX")):
        if prefix:
            yield os.path.join(prefix, "bin", "python")
    for name in ("python3", "python"):
        found = shutil.which(name)
        if found:
            yield found
    for place in _PLACES:
        for path in sorted(glob.glob(os.path.expanduser(place))):
            yield path


def _known(candidates: Iterator[str]) -> Iterator[BasePython]:
    """Each environment once, however many names it has."""
    asked, seen = set(), set()
    for path in candidates:
        if path in asked:
            continue
        asked.add(path)
        found = about(path)
        if found is not None and found["prefix"] not in seen:
            seen.add(found["prefix"])
            yield found


def ensure(run: RunPaths, job: Job, say: Say) -> Environment:
    """The environment of this job, made if it is not there. Raises RunFailed."""
    base = choose(job["profile"].get("python"))
    say(("Python %s of %s, torch %s\n" % (base["version"], base["prefix"], base["torch"] or "absent")).encode())
    asked = layers.asked(job)
    content = layers.fingerprint(run.workspace, asked)
    key = layers.key(base["prefix"], base["version"], str(base["torch"]), content)
    made = run.host.environment(key)
    python = os.path.join(made, "bin", "python")
    environment = Environment(made, python, [os.path.join(made, "bin"), os.path.join(base["prefix"], "bin")])
    if read_json(os.path.join(made, MARKER)) is not None and os.path.exists(python):
        return environment

    def wait() -> None:
        journal.record_step(run, "waiting for another run, which makes the same environment")
        say(b"")

    with locks.host_lock("environment-" + key, wait):
        if read_json(os.path.join(made, MARKER)) is None or not os.path.exists(python):
            shutil.rmtree(made, ignore_errors=True)
            journal.record_step(run, "making a Python environment")
            _make(made, base, say)
            if asked is not None:
                _install(run, job, asked, python, say)
            sync_disk(made)  # the marker outlives a power cut, and what it speaks of does too
            write_json(os.path.join(made, MARKER), {"base": base, "dependencies": asked})
    return environment


def _make(made: str, base: BasePython, say: Say) -> None:
    os.makedirs(os.path.dirname(made), exist_ok=True)
    argv = [base["path"], "-E", "-m", "venv", "--without-pip", "--system-site-packages", made]
    answer = programs.watch(argv, say, cwd="/")
    if not answer.ok:
        reason = "disk" if layers.is_disk_full(answer.out) else "dependencies"
        said = " ".join(programs.last_lines(answer.out, 2))
        raise RunFailed(reason, "no environment could be made with %s: %s" % (base["path"], said))
    if base["venv"]:
        _see_parent(made, base)


def _see_parent(made: str, base: BasePython) -> None:
    """A venv made from a venv sees the packages of the Python below both, not its parent's: add them by a .pth file."""
    lines = ["import site; site.addsitedir(%r)\n" % folder for folder in base["packages"]]
    for packages in glob.glob(os.path.join(made, "lib", "python*", "site-packages")):
        with open(os.path.join(packages, "gpurun-parent.pth"), "w") as file:
            file.writelines(lines)


def _install(run: RunPaths, job: Job, asked: Dependencies, python: str, say: Say) -> None:
    journal.record_step(run, "installing what %s asks for" % asked["file"])
    where = "the host's Python"
    next_step = 'change it there, or name a Python that has it: python = "…" in the host\'s profile'
    spec = layers.order(asked, job["profile"], project=run.workspace, where=where)
    write_json(run.layer, spec, 0o600)
    try:
        os.makedirs(run.host.job_cache, exist_ok=True)
        with opened_below(run.host.job_cache, "pip"):  # a job may have put a link in its place
            pass
        env = {**os.environ, "PIP_CACHE_DIR": os.path.join(run.host.job_cache, "pip")}
        answer = programs.watch([python, "-E", layers.INSTALLER, run.layer], say, env=env, cwd="/")
    finally:
        os.unlink(run.layer)
    layers.check(answer, asked["file"], next_step)

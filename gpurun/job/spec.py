"""The job as the host gets it: job.json, made of what was loaded and of the files that travel. It holds no secret."""

from __future__ import annotations

import getpass
import os
import secrets
import sys
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, cast

from gpurun.agent import vocabulary as words
from gpurun.errors import UsageError
from gpurun.job import images
from gpurun.store import run_ids

if TYPE_CHECKING:
    from gpurun.agent.schema.job import Dependencies, Git, GpuRequest, JobSpec, Mount, Notebook, Profile, Service
    from gpurun.config.hosts import HostProfile
    from gpurun.config.load import Loaded
    from gpurun.config.schema import JobConfig
    from gpurun.job.files import FileList
    from gpurun.job.images import ImageOfJob

# Packages that need no word when one of their modules is named: `-m torch.distributed.run`.
_EVERYWHERE = sys.stdlib_module_names | {"torch", "lightning"}


def make_job(
    loaded: Loaded,
    files: FileList,
    *,
    now: float,
    dependencies: Dependencies | None,
    git: Git | None = None,
    run_id: str | None = None,
    service: Service | None = None,
    notebook: Notebook | None = None,
) -> JobSpec:
    """job.json without the part that the host adds. `now` in seconds since 1970. `service`: see agent/setup/services.py.
    `notebook`: see agent/setup/notebooks.py; its script travels in the job.

    Raises UsageError when the script is not sent, cannot be started, or when the host lacks data that is asked for.
    """
    spec, project = loaded.spec, loaded.project
    if spec.script and notebook is None:
        _check_script(spec.script, files)
    if spec.module:
        _check_module(spec.module, files)
    name = service["kind"] if service else spec.name or _name_of(spec)
    image = _image(spec, loaded.host, files)
    run = run_id or run_ids.new_id(name)
    return {
        "schema": words.JOB_SCHEMA,
        "id": run,
        "token": secrets.token_hex(16),
        "name": name,
        "owner": getpass.getuser(),
        "created": now,
        "project": {"name": project.name, "root": str(project.root)},
        "job_file": str(loaded.job_file.resolve()) if loaded.job_file else None,
        "command": [] if service else _command(spec, files, notebook),
        "script": service["kind"] if service else spec.script or f"-m {spec.module}",
        "service": service,
        "notebook": notebook,
        "ports": [{"local": port.local, "remote": port.remote} for port in spec.ports],
        "args": list(spec.args),
        "resources": {"gpus": spec.gpus, "memory": spec.memory, "cpus": spec.cpus, "shm": spec.shm_size},
        "runtime": spec.runtime,
        "image": image["image"],
        "base": image["base"],
        "dockerfile": spec.dockerfile and str(PurePosixPath(spec.dockerfile)),
        "env": sorted(loaded.env),
        "mounts": _mounts(spec, loaded.host, loaded.sources.get("data", "")),
        "data": spec.data[0] if spec.data else None,
        "max_duration": spec.max_duration,
        "grace": spec.grace,
        "retries": 0 if service else spec.retries,
        "on_checkpoint": None if service else spec.on_checkpoint,
        "on_end": None if service else spec.on_end,
        "dependencies": dependencies,
        "git": git,
        "keep_caps": list(spec.keep_caps),
        "user": spec.user,
        "profile": _profile(loaded.host),
        "fetch_hint": run_ids.fetch_hint(run),
    }


def _image(spec: JobConfig, host: HostProfile | None, files: FileList) -> ImageOfJob:
    """What `images.wanted` says; neither where the job names a `dockerfile`, which must travel. Raises UsageError."""
    if spec.dockerfile is None:
        return images.wanted(spec.image, host)
    if spec.image is not None:
        raise UsageError("image and dockerfile are both named, and a job runs in one image", "leave one of them out")
    file = str(PurePosixPath(spec.dockerfile))
    if not files.has(file):
        why = files.why_not(file) if os.path.lexists(files.root / file) else "there is no such file"
        raise UsageError(
            f"dockerfile: {file} is not sent to the host: {why}", "name a file, relative to the project's root"
        )
    return {"image": None, "base": None}


def _command(spec: JobConfig, files: FileList, notebook: Notebook | None) -> list[str]:
    """The argv in words: a notebook's script leaves a copy of itself in the job's `notebook/`."""
    return ["python", f"notebook/{notebook['script']}", *spec.args] if notebook else command(spec, files)


def command(spec: JobConfig, files: FileList) -> list[str]:
    """The argv that runs in the workspace; "python" stands for the runtime's Python."""
    if spec.module:
        return ["python", "-m", spec.module, *spec.args]
    assert spec.script is not None
    script = str(PurePosixPath(spec.script))
    plain = f"./{script}" if script.startswith("-") else script
    suffix = PurePosixPath(script).suffix
    if suffix == ".py":
        return ["python", plain, *spec.args]
    if suffix == ".sh":
        return ["bash", plain, *spec.args]
    if os.access(files.root / script, os.X_OK):
        return [f"./{script}", *spec.args]
    raise UsageError(f"{script} is neither a .py, an .ipynb nor a .sh, nor executable", f"chmod +x {script}")


def _check_script(script: str, files: FileList) -> None:
    plain = str(PurePosixPath(script))
    if files.has(plain):
        return
    why = files.why_not(plain)
    if not os.path.lexists(files.root / plain):
        raise UsageError(f"there is no script {script} in the project {files.root}", "name a file of the project")
    raise UsageError(
        f"the script {script} stays on the laptop: {why}",
        f"bring it back with a line `!/{plain}` in .gpurunignore",
    )


def module_note(module: str | None, files: FileList) -> str | None:
    """What is to be said of a module that must be installed where the job runs."""
    if module is None or _has_module(module, files) or module.partition(".")[0] in _EVERYWHERE:
        return None
    return f"{module} is not among the files that are sent: it has to be installed in the job's environment"


def _has_module(module: str, files: FileList) -> bool:
    path = module.replace(".", "/")
    return any(files.has(f"{top}{path}{end}") for top in ("", "src/") for end in (".py", "/__main__.py"))


def _check_module(module: str, files: FileList) -> None:
    """A module of a package that the project has must be there; of others the image may have it."""
    path = module.replace(".", "/")
    package = path.partition("/")[0]
    if _has_module(module, files):
        return
    if any(files.has(f"{top}{package}{end}") for top in ("", "src/") for end in (".py", "/__init__.py")):
        raise UsageError(
            f"the project's {package} has no module {module} that could be run",
            f"check the name: {path}.py or {path}/__main__.py must be among the files that are sent",
            where=files.root,
        )


def _name_of(spec: JobConfig) -> str:
    if spec.module:
        return spec.module.removesuffix(".__main__").rpartition(".")[2]
    return PurePosixPath(spec.script or "run").stem


def for_host(job: JobSpec, host: HostProfile, env: Iterable[str], gpus: GpuRequest | None) -> JobSpec:
    """The job of a run that goes on, on `host`: with the paths and the profile of that one. Raises UsageError."""
    own = [mount for mount in job["mounts"] if not mount.get("name")]
    data = _data([name for mount in job["mounts"] if (name := mount.get("name"))], host, job["id"])
    asked = cast("JobSpec", {key: value for key, value in job.items() if key != "host"})
    return {
        **asked,
        "base": images.for_host(job.get("base"), host),
        "mounts": [*own, *data],
        "profile": _profile(host),
        "env": sorted(env),
        "resources": job["resources"] if gpus is None else {**job["resources"], "gpus": gpus},
    }


def _mounts(spec: JobConfig, host: HostProfile | None, source: str) -> list[Mount]:
    mounts: list[Mount] = [
        {"name": None, "source": mount.source, "target": mount.target, "readonly": mount.readonly}
        for mount in spec.mounts
    ]
    return mounts if host is None else [*mounts, *_data(spec.data, host, source)]


def _data(names: Sequence[str], host: HostProfile, source: str) -> list[Mount]:
    """The mounts of the host's data of these names. Raises UsageError, which tells that `source` asks for them."""
    missing = [name for name in names if name not in host.data]
    if missing:
        lines = "\n".join(f'  {name} = "/where/it/lies"' for name in missing)
        raise UsageError(
            f"{source}: the host {host.name} has no data called {', '.join(missing)}",
            f"gpurun push DIR {host.name}:{missing[0]}\n"
            f"gpurun data ls -H {host.name} lists what is there. For data that gpurun did not bring, name its path in hosts.toml:\n  [hosts.{host.name}.data]\n{lines}",
        )
    return [{"name": name, "source": host.data[name], "target": f"/data/{name}", "readonly": True} for name in names]


def _profile(host: HostProfile | None) -> Profile:
    """What of the host's profile the agent needs for this job."""
    return {
        "python": host.python if host else None,
        "engine": list(host.engine) if host and host.engine else None,
        "pip_index": host.pip_index if host else None,
        "registry_mirror": host.registry_mirror if host else None,
    }

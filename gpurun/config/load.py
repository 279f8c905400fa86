"""Merge the configuration of a submit: flags > job file > project file > host profile. The source of every value is kept.

`env`, `mounts` and `data` of all layers add up, the higher layer wins by name, and its data comes first; every other value
replaces the one below.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurun import toml
from gpurun.config import hosts, problems
from gpurun.config.envfile import read_env_file
from gpurun.config.hosts import HostProfile
from gpurun.config.project import Project, find_project, project_at
from gpurun.config.readers import nearest
from gpurun.config.schema import JOB_FILE_ONLY, JobConfig, MountConfig
from gpurun.errors import UsageError
from gpurun.secret import Secret

if TYPE_CHECKING:
    from gpurun.config.session import Session

# How a key is typed, where that is not `--key`.
_OPTIONS = {"script": "SCRIPT", "module": "-m", "args": "ARGS", "env": "-e/--env", "mounts": "--mount"}


@dataclass(frozen=True)
class Loaded:
    """A job as it was meant. `sources` names the option or file that each value came from; defaults have none."""

    spec: JobConfig
    project: Project
    host: HostProfile | None
    env: Mapping[str, Secret]
    sources: Mapping[str, str]
    job_file: Path | None
    env_files: tuple[Path, ...]  # they never travel with the project's files
    session: Session | None = None  # the script is a notebook of that session on a host
    notes: tuple[str, ...] = ()  # for the person


@dataclass(frozen=True)
class _Layer:
    """One place where values stand. `folder` is what its relative paths start from."""

    values: Mapping[str, Any]  # of the keys of JobConfig that it has
    folder: Path
    names: Mapping[str, str]  # key -> how its place is called


def load(
    flags: Mapping[str, Any],
    target: str | None,
    cwd: Path | None = None,
    *,
    need_host: bool = True,
    need_script: bool = True,
) -> Loaded:
    """Read every layer for `target` (a script, a job file ending in .toml, or None with `module` among `flags`).

    `flags` has keys of JobConfig as typed; None means not said. A service has no script. Raises UsageError that lists everything that is wrong.
    """
    here = cwd or Path.cwd()
    wrong: list[problems.Problem] = []
    job_file = here / target if target and target.endswith(".toml") else None
    job = _job_layer(job_file, wrong) if job_file else None
    project = _project(job, target, here)
    told = {key: value for key, value in flags.items() if value is not None}
    if target and not job_file:
        told["script"] = script_in(project, target, here)
    layers = [_project_layer(project, wrong), job, _flag_layer(told, here, wrong)]
    problems.refuse(wrong, "the keys and options are in the README, and in gpurun submit --help")
    given = [layer for layer in layers if layer]
    if need_script:
        _check_script_named(given, job_file)
    return _merge(given, project, job_file, need_host)


def script_in(project: Project, target: str, here: Path) -> str:
    """`target`, typed in the folder `here`, relative to the project's root. Raises UsageError when it is not there."""
    found = next((base / target for base in (here, project.root) if (base / target).is_file()), None)
    if found is None and (here / target).is_dir():
        raise UsageError(f"{target} is a folder", "name the script in it: gpurun submit SCRIPT")
    if found is None:
        raise UsageError(f"there is no script {target} in {here}" + _near(target, here), "name a file of the project")
    # A script may be a link: the link itself is meant. Only a root that was reached through links needs resolving.
    plain = (os.path.abspath(found), project.root)  # noqa: PTH100
    for path, root in (plain, (os.path.realpath(found), os.path.realpath(project.root))):
        relative = Path(os.path.relpath(path, root))
        if relative.parts[0] != os.pardir:
            return relative.as_posix()
    raise UsageError(
        f"{target} lies outside the project {project.root}",
        "run the command inside the script's project, or move the script",
    )


def _near(target: str, here: Path) -> str:
    try:
        names = [entry.name for entry in (here / target).parent.iterdir() if entry.is_file()]
    except OSError:
        return ""
    close = nearest(Path(target).name, names)
    return close if close.startswith(";") else ""


def _project(job: _Layer | None, target: str | None, here: Path) -> Project:
    if job is not None:
        if not job.values.get("project"):
            return find_project(job.folder)
        root = job.folder / Path(job.values["project"]).expanduser()
        if not root.is_dir():
            raise UsageError(f"{job.names['project']}: project: there is no folder {root}", "mend `project` there")
        return project_at(root)
    script = here / target if target else None
    return find_project(script if script is not None and script.exists() else here)


def _job_layer(file: Path, wrong: list[problems.Problem]) -> _Layer:
    if not file.is_file():
        what = f"there is no job file {file}" + _near(str(file), file.parent)
        raise UsageError(what, "name one that is there, or a script: gpurun submit train.py")
    return _file_layer(file, toml.read(file), wrong)


def _project_layer(project: Project, wrong: list[problems.Problem]) -> _Layer:
    told, file = dict(project.settings()), project.settings_file
    for key in JOB_FILE_ONLY:
        if key in told:
            text = f"{key}: belongs in a job file, not in the project's defaults"
            wrong.append(problems.Problem(str(file), text, _source(file).line_of([key])))
    layer = _file_layer(file, told, wrong)
    # In this file `name` is the project's, not that of a run.
    ours = {key: value for key, value in layer.values.items() if key not in ("name", *JOB_FILE_ONLY)}
    return replace(layer, values=ours)


def _file_layer(file: Path, told: Mapping[str, Any], wrong: list[problems.Problem]) -> _Layer:
    values, found = problems.read(JobConfig, told, _source(file))
    wrong += found
    return _Layer(values, file.parent, dict.fromkeys(values, str(file)))


def _source(file: Path) -> problems.Source:
    table = ("tool", "gpurun") if file.name == "pyproject.toml" else ()
    return problems.Source(str(file), lambda: file.read_text(encoding="utf-8-sig"), table)


def _flag_layer(told: Mapping[str, Any], here: Path, wrong: list[problems.Problem]) -> _Layer:
    names = {key: _OPTIONS.get(key, "--" + key.replace("_", "-")) for key in told}
    taken: dict[str, Any] = {}
    for key, value in told.items():
        values, found = problems.read(JobConfig, {key: value}, problems.Source(names[key]))
        wrong += found
        taken |= values
    return _Layer(taken, here, names)


def _check_script_named(layers: Sequence[_Layer], job_file: Path | None) -> None:
    if not any(layer.values.get("script") or layer.values.get("module") for layer in layers):
        raise UsageError(
            f"{job_file}: neither script nor module says what to run" if job_file else "no script was named",
            'Write `script = "train.py"` there.' if job_file else "gpurun submit train.py",
        )


def _merge(layers: Sequence[_Layer], project: Project, job_file: Path | None, need_host: bool) -> Loaded:
    taken: dict[str, Any] = {}
    sources: dict[str, str] = {}
    mounts: dict[str, MountConfig] = {}
    data: dict[str, None] = {}
    for layer in layers:
        for one_of in ({"script", "module"}, {"image", "dockerfile"}):
            if layer.values.keys() & one_of:
                taken.update(dict.fromkeys(one_of))
        taken.update(layer.values)
        sources.update(layer.names)
        mounts.update({mount.target: mount for mount in layer.values.get("mounts", ())})
        data = dict.fromkeys(layer.values.get("data", ())) | data  # the highest layer's come first
    taken.update(mounts=tuple(mounts.values()), data=tuple(data))
    host = _host(layers) if need_host else None
    env, files = _environment(layers, host)
    spec = JobConfig(**{**taken, "env": env})
    return Loaded(spec, project, host, env, sources, job_file, files, notes=_replaced_args(layers))


def _replaced_args(layers: Sequence[_Layer]) -> tuple[str, ...]:
    """A line for a job file whose `args` are not taken: other keys are replaced one by one, these all at once."""
    *files, flags = layers
    if "args" not in flags.values:
        return ()
    replaced = [layer for layer in files if layer.values.get("args")]
    args = shlex.join(flags.values["args"]) or "no arguments"
    return tuple(
        f"{args} in place of the args of {layer.names['args']}: {shlex.join(layer.values['args'])}"
        for layer in replaced
    )


def _host(layers: Sequence[_Layer]) -> HostProfile:
    project, *middle, flags = [layer.values.get("host") for layer in layers]
    return hosts.choose(flags, job=middle[0] if middle else None, project=project)


def _environment(layers: Sequence[_Layer], host: HostProfile | None) -> tuple[dict[str, Secret], tuple[Path, ...]]:
    """Every variable of the job and the files they were read from. Raises UsageError for all that are unset here."""
    wanted: dict[str, tuple[Secret | None, str]] = {}
    files: list[Path] = []
    if host is not None:
        profile = f"[hosts.{host.name}] of hosts.toml"
        wanted.update({k: (value, profile) for k, value in host.env.items()})
    for layer in layers:
        if layer.values.get("env_file"):
            file = layer.folder / Path(layer.values["env_file"]).expanduser()
            files.append(file)
            wanted.update({k: (value, str(file)) for k, value in read_env_file(file).items()})
        wanted.update({k: (value, layer.names["env"]) for k, value in layer.values.get("env", {}).items()})
    missing = {name: where for name, (value, where) in wanted.items() if value is None and name not in os.environ}
    if missing:
        lines = [
            f"{where}: {name} takes its value from this shell, where it is not set" for name, where in missing.items()
        ]
        raise UsageError("\n".join(lines), "set it first: export " + " ".join(f"{name}=..." for name in missing))
    return {k: Secret(os.environ[k]) if value is None else value for k, (value, _) in wanted.items()}, tuple(files)

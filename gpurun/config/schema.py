"""The schema of a job. README's reference is made from the descriptions below (config/reference.py).

Every field of `JobConfig` may be set on the command line, in a job file, or (a few apart) in the project's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gpurun.config.readers import (
    flag,
    key,
    list_of,
    number_above,
    one_of,
    required,
    table,
    text,
    variables,
    whole_number,
)
from gpurun.config.units import size, span
from gpurun.secret import Secret

# These say which job it is, so they make no sense as a project's defaults.
JOB_FILE_ONLY = ("script", "module", "args", "project")


def _gpus(value: Any) -> int | Literal["all"]:
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if value == "all":
        return "all"
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError('wants a number of GPUs, 0 or more, or "all"')
    return value


def _longer_than_zero(value: Any) -> float:
    seconds = span(value)
    if seconds == 0:
        raise ValueError("wants a time span that is longer than zero")
    return seconds


def _capability(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_-]+", value):
        raise ValueError('wants names such as "SYS_PTRACE" or "no-new-privileges"')
    return value if "-" in value else value.upper().removeprefix("CAP_")


def _dependencies(value: Any) -> str | Literal[False]:
    if value is False or (isinstance(value, str) and value):
        return value
    raise ValueError('wants false, or the path of a file such as "requirements/train.txt"')


def _run_name(value: Any) -> str:
    name = text(value)
    if not name.strip() or not name.isprintable() or len(name) > 60:
        raise ValueError("wants 1 to 60 printable characters")
    return name


@dataclass(frozen=True)
class PortConfig:
    remote: int = required(whole_number(1, 65535))
    """The port that the program listens on, where it runs."""
    local: int | None = key(whole_number(1, 65535))
    """The port of this laptop. Default: the same number."""


@dataclass(frozen=True)
class MountConfig:
    source: str = required(text)
    """A directory or file of the host; may begin with `~/`."""
    target: str = required(text)
    """Where the job sees it."""
    readonly: bool = key(flag, False)
    """Mount it read-only."""


def port(value: Any) -> PortConfig:
    """Read `8080`, "8080" or "9000:8080" (local:remote). Raise ValueError."""
    if isinstance(value, Mapping):
        return table(PortConfig)(value)
    words = str(value).split(":")
    if (
        isinstance(value, bool)
        or len(words) > 2
        or not all(word.isdecimal() and 0 < int(word) < 65536 for word in words)
    ):
        raise ValueError(f'{value!r} is not a port; write 8080, or "9000:8080" for port 9000 of the laptop')
    return PortConfig(int(words[-1]), int(words[0]) if len(words) == 2 else None)


def _mount(value: Any) -> MountConfig:
    if not isinstance(value, str):
        return table(MountConfig)(value)
    source, _, rest = value.partition(":")
    target, _, mode = rest.partition(":")
    if mode not in ("", "ro", "rw") or not target:
        raise ValueError(f'{value!r} is not a mount; write "SRC:DST" or "SRC:DST:ro"')
    if not source.startswith(("/", "~/")):
        raise ValueError(f'{source!r} is a path of the host: begin it with "/" or "~/"')
    if not target.startswith("/"):
        raise ValueError(f'{target!r} is where the job sees it: begin it with "/"')
    return MountConfig(source, target, readonly=mode == "ro")


@dataclass(frozen=True)
class JobConfig:
    """What a job says."""

    script: str | None = key(text)
    """The program, relative to the project's root: a `.py`, an `.ipynb`, a `.sh` or an executable. Job file only."""
    module: str | None = key(text)
    """A Python module to run in place of a script, as `python -m` does. Job file only."""
    args: tuple[str, ...] = key(list_of(text), ())
    """The program's own arguments; those behind `--` replace all of them. Job file only."""
    project: str | None = key(text)
    """The project's root, relative to the job file. Job file only; default: the project that the job file lies in."""
    name: str | None = key(_run_name)
    """The name of the runs. Default: the script's name. In the project's file: the project's name."""
    host: str | None = key(text)
    """A name from `gpurun host add`, or any alias of your SSH configuration."""
    gpus: int | Literal["all"] = key(_gpus, 1)
    """How many GPUs, or `"all"`; 0 for a job on the CPU."""
    image: str | None = key(text)
    """The container image: one of gpurun's own by its PyTorch, such as `"v2.7"`, or any other. Default: `"v2.8"`."""
    dockerfile: str | None = key(text)
    """A Dockerfile of the project, relative to its root, in place of `image`: the host builds it from the files that were sent."""
    runtime: Literal["docker", "bare"] | None = key(one_of("docker", "bare"))
    """How the job runs. Default: what the host has."""
    memory: int | None = key(size)
    """The most memory the job may take, e.g. `"32GB"`; it is ended when it takes more."""
    cpus: float | None = key(number_above(0))
    """How many CPUs the job may use, e.g. `8` or `1.5`."""
    shm_size: int | None = key(size)
    """Shared memory for DataLoader workers, e.g. `"8GB"`. Default: half of the memory."""
    env: Mapping[str, Secret | None] = key(variables, {})
    """Variables: `["WANDB_API_KEY", "LEVEL=debug"]` (without `=` your shell's value), or a table.
    Added to those of lower layers."""
    env_file: str | None = key(text)
    """A file with lines `K=V`, relative to the file that names it. It travels with the run and is never synced."""
    mounts: tuple[MountConfig, ...] = key(list_of(_mount), ())
    """Paths of the host for the job: `["/data/scans:/data/scans:ro"]`. Added to those of lower layers."""
    data: tuple[str, ...] = key(list_of(text), ())
    """Data of the host by name, as `gpurun push` or `[hosts.NAME.data]` names it: mounted read-only at `/data/NAME`. The first
    of them is `$GPURUN_DATA`, in place of the project's own folder. Put before those of lower layers."""
    ports: tuple[PortConfig, ...] = key(list_of(port), ())
    """Ports of the job that `gpurun tunnel` opens here: `[8080, "9000:8000"]` (local:remote)."""
    idle: float = key(_longer_than_zero, 7200.0)
    """When TensorBoard, Jupyter or a shell that nobody uses ends by itself; a kernel that computes counts as used."""
    max_duration: float | None = key(_longer_than_zero)
    """The host ends the run after this time, e.g. `"12h"`: `retries` count together, `gpurun resume` begins anew."""
    grace: float = key(span, 60.0)
    """How long a job that is to end may take to save its work, e.g. `"2m"`."""
    retries: int = key(whole_number(0), 0)
    """How often the run begins again by itself, from its newest checkpoint, after a crash, an out-of-memory kill or a
    reboot of the host."""
    on_checkpoint: str | None = key(text)
    """A shell command that the host runs in the workspace at each checkpoint, with `GPURUN_CHECKPOINT`, `GPURUN_METRIC`
    and the like in its environment."""
    on_end: str | None = key(text)
    """A shell command that the host runs in the workspace when the run has ended, with `GPURUN_STATE`, `GPURUN_EXIT_CODE`
    and the like in its environment."""
    user: Literal["root"] | None = key(one_of("root"))
    """`"root"` when the program must be root in its container. Default: your user."""
    keep_caps: tuple[str, ...] = key(list_of(_capability), ())
    """Container restrictions to give up: capabilities by name, e.g. `["SYS_PTRACE"]`, or `"no-new-privileges"`."""
    fetch: bool = key(flag, False)
    """Fetch when the job has ended (with `--follow`)."""
    exclude: tuple[str, ...] = key(list_of(text), ())
    """Further patterns of files that stay on the laptop, in the syntax of `.gitignore`."""
    dependencies: str | Literal[False] | None = key(_dependencies)
    """`false` to install nothing, or the file to take in place of the one that is found."""

"""The one schema of the configuration. README's reference is made from the descriptions below (config/reference.py).

Every field of `JobConfig` may stand on the command line, in a job file, or (a few apart) in the project's file.
"""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, TypeAdapter

from gpurun.config.units import refuse_bare_number, span
from gpurun.secret import Secret

# These say which job it is, so they make no sense as a project's defaults.
JOB_FILE_ONLY = ("script", "module", "args", "project")

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = TypeAdapter(ByteSize)


def _gpus(value: Any) -> Any:
    if isinstance(value, str) and (value == "all" or value.isdecimal()):
        return value if value == "all" else int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError('wants a number of GPUs, 0 or more, or "all"')
    return value


def _size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('wants a size such as "32GB"')  # noqa: TRY004 - pydantic lets a TypeError through
    if value != 0:
        refuse_bare_number(str(value), "GB", "MB")
    try:
        size = int(_SIZE.validate_python(value))
    except ValueError:
        size = 0
    if size <= 0:
        raise ValueError('wants a size such as "32GB" or "512MiB"')
    return size


def _longer_than_zero(value: Any) -> float:
    seconds = span(value)
    if seconds == 0:
        raise ValueError("wants a time span that is longer than zero")
    return seconds


def variable_name(name: str) -> str:
    """`name`, when it can be a variable's. Raises ValueError, which never shows a value."""
    if not VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    return name


def _variables(value: Any) -> Any:
    """A list of "K" and "K=V", or a table K = "V", as a dict; None stands for the laptop's own value."""
    if isinstance(value, dict):
        pairs = [(str(name), text) for name, text in value.items()]
    elif isinstance(value, list | tuple) and all(isinstance(line, str) for line in value):
        pairs = [(name, text if sign else None) for name, sign, text in (line.partition("=") for line in value)]
    else:
        raise ValueError('wants a list such as ["WANDB_API_KEY", "LEVEL=debug"], or a table')
    taken: dict[str, Secret | None] = {}
    for name, text in pairs:
        variable_name(name)
        if isinstance(text, Secret) or text is None:
            taken[name] = text
        elif isinstance(text, str | int | float) and not isinstance(text, bool):
            if "\0" in str(text):
                raise ValueError(f"the value of {name} holds a NUL byte")
            taken[name] = Secret(str(text))
        else:
            raise ValueError(f"the value of {name} wants to be text in quotes")
    return taken


def _mount(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    source, _, rest = value.partition(":")
    target, _, mode = rest.partition(":")
    if mode not in ("", "ro", "rw") or not target:
        raise ValueError(f'{value!r} is no mount; write "SRC:DST" or "SRC:DST:ro"')
    if not source.startswith(("/", "~/")):
        raise ValueError(f'{source!r} is a path of the host: begin it with "/" or "~/"')
    if not target.startswith("/"):
        raise ValueError(f'{target!r} is where the job sees it: begin it with "/"')
    return {"source": source, "target": target, "readonly": mode == "ro"}


def port(value: Any) -> Any:
    """`8080`, "8080" or "9000:8080" (local:remote) as a PortConfig's values. Raises ValueError."""
    if isinstance(value, dict | BaseModel):
        return value
    words = str(value).split(":")
    if (
        isinstance(value, bool)
        or len(words) > 2
        or not all(word.isdecimal() and 0 < int(word) < 65536 for word in words)
    ):
        raise ValueError(f'{value!r} is no port; write 8080, or "9000:8080" for port 9000 of the laptop')
    return {"remote": int(words[-1]), "local": int(words[0]) if len(words) == 2 else None}


def _capability(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_-]+", value):
        raise ValueError('wants names such as "SYS_PTRACE" or "no-new-privileges"')
    return value if "-" in value else value.upper().removeprefix("CAP_")


def _dependencies(value: Any) -> Any:
    if value is True or not isinstance(value, bool | str) or value == "":
        raise ValueError('wants false, or the path of a file such as "requirements/train.txt"')
    return value


def _run_name(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or not value.isprintable() or len(value) > 60):
        raise ValueError("wants 1 to 60 printable characters")
    return value


def _engine(value: Any) -> Any:
    if isinstance(value, str):
        value = shlex.split(value)
    if not value or not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError('wants a command such as "docker" or ["sudo", "-n", "docker"]')
    return tuple(value)


Size = Annotated[int, BeforeValidator(_size)]
Variables = Annotated[dict[str, Secret | None], BeforeValidator(_variables)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )


class PortConfig(_Table):
    remote: int
    """The port that the program listens on, where it runs."""
    local: int | None = None
    """The port of this laptop; the same unless told."""


class MountConfig(_Table):
    source: str
    """A directory or file of the host; may begin with `~/`."""
    target: str
    """Where the job sees it."""
    readonly: bool = False
    """Whether the job may only read it."""


class JobConfig(_Table):
    """What a job says."""

    script: str | None = None
    """The program, relative to the project's root: a `.py`, an `.ipynb`, a `.sh` or an executable. Job file only."""
    module: str | None = None
    """A Python module to run in place of a script, as `python -m` does. Job file only."""
    args: tuple[str, ...] = ()
    """The program's own arguments; those behind `--` replace all of them. Job file only."""
    project: str | None = None
    """The project's root, relative to the job file. Job file only; found from the job file's folder unless told."""
    name: Annotated[str | None, BeforeValidator(_run_name)] = None
    """What runs are called; the script's name unless told. In the project's file: the project's name."""
    host: str | None = None
    """A name from `gpurun host add`, or any alias of your SSH configuration."""
    gpus: Annotated[int | Literal["all"], BeforeValidator(_gpus)] = 1
    """How many GPUs, or `"all"`; 0 for a job on the CPU."""
    image: str | None = None
    """The container image: one of gpurun's own by its PyTorch, such as `"v2.7"`, or any other; `"v2.8"` unless told."""
    dockerfile: str | None = None
    """A Dockerfile of the project, relative to its root, in place of `image`: the host builds it from the files that were sent."""
    runtime: Literal["docker", "bare"] | None = None
    """How the job runs; chosen from what the host has unless told."""
    memory: Size | None = None
    """The most memory the job may take, e.g. `"32GB"`; it is ended when it takes more."""
    cpus: Annotated[float | None, Field(gt=0)] = None
    """How many CPUs the job may use, e.g. `8` or `1.5`."""
    shm_size: Size | None = None
    """Shared memory for DataLoader workers, e.g. `"8GB"`; half of the memory unless told."""
    env: Variables = Field(default_factory=dict)
    """Variables: `["WANDB_API_KEY", "LEVEL=debug"]` (without `=` your shell's value), or a table.
    Added to those of lower layers."""
    env_file: str | None = None
    """A file with lines `K=V`, relative to the file that names it. It travels with the run and is never synced."""
    mounts: tuple[Annotated[MountConfig, BeforeValidator(_mount)], ...] = ()
    """Paths of the host for the job: `["/data/scans:/data/scans:ro"]`. Added to those of lower layers."""
    data: tuple[str, ...] = ()
    """Data of the host by name, as `gpurun push` or `[hosts.NAME.data]` names it: mounted read-only at `/data/NAME`. The first
    of them is `$GPURUN_DATA`, in place of the project's own folder. Put before those of lower layers."""
    ports: tuple[Annotated[PortConfig, BeforeValidator(port)], ...] = ()
    """Ports of the job that `gpurun tunnel` opens here: `[8080, "9000:8000"]` (local:remote)."""
    idle: Annotated[float, BeforeValidator(_longer_than_zero)] = 7200.0
    """When TensorBoard, Jupyter or a shell that nobody uses ends by itself; a kernel that computes counts as used."""
    max_duration: Annotated[float | None, BeforeValidator(lambda v: None if v is None else _longer_than_zero(v))] = None
    """The host ends the run after this time, e.g. `"12h"`: `retries` count together, `gpurun resume` begins anew."""
    grace: Annotated[float, BeforeValidator(span)] = 60.0
    """How long a job that is to end may take to save its work, e.g. `"2m"`."""
    retries: Annotated[int, Field(ge=0)] = 0
    """How often the run begins again by itself, from its newest checkpoint, after a crash, an out-of-memory kill or a
    reboot of the host."""
    on_checkpoint: str | None = None
    """A shell command that the host runs in the workspace at each checkpoint, with `GPURUN_CHECKPOINT`, `GPURUN_METRIC`
    and the like in its environment."""
    on_end: str | None = None
    """A shell command that the host runs in the workspace when the run has ended, with `GPURUN_STATE`, `GPURUN_EXIT_CODE`
    and the like in its environment."""
    user: Literal["root"] | None = None
    """`"root"` when the program must be root in its container; you, unless told."""
    keep_caps: tuple[Annotated[str, BeforeValidator(_capability)], ...] = ()
    """Container restrictions to give up: capabilities by name, e.g. `["SYS_PTRACE"]`, or `"no-new-privileges"`."""
    fetch: bool = False
    """Fetch when the job has ended (with `--follow`)."""
    exclude: tuple[str, ...] = ()
    """Further patterns of files that stay on the laptop, in the syntax of `.gitignore`."""
    dependencies: Annotated[
        Literal[False] | str | None, BeforeValidator(lambda v: None if v is None else _dependencies(v))
    ] = None
    """`false` to install nothing, or the file to take in place of the one that is found."""


class AddressConfig(_Table):
    host: str
    """Name or address of the machine."""
    user: str | None = None
    """Login name."""
    port: Annotated[int | None, Field(ge=1, le=65535)] = None
    """Port of its SSH server."""
    identity_file: str | None = None
    """The private key to offer."""
    jump: str | None = None
    """The host to go through, as in `ssh -J`."""


def _without_password(index: str | None) -> str | None:
    if index is not None and "@" in index.partition("://")[2].partition("/")[0]:
        raise ValueError("must hold no user or password: keep them in ~/.netrc of the host")
    return index


class HostProfile(_Table):
    """What `[hosts.NAME]` says about one host."""

    address: AddressConfig | None = None
    """Where the host is, when NAME is no alias of your SSH configuration: `host`, `user`, `port`, `identity_file`, `jump`."""
    root: str | None = None
    """A folder on a roomy disk: gpurun's files go to `.gpurun` in it. Without it, to `~/.gpurun`."""
    python: str | None = None
    """The host's Python, 3.8 or later; `python3` unless told. Without an engine: the one that has torch."""
    engine: Annotated[tuple[str, ...] | None, BeforeValidator(lambda v: None if v is None else _engine(v))] = None
    """The engine's command, e.g. `"sudo -n docker"`; `docker` unless told."""
    env: Variables = Field(default_factory=dict)
    """Variables for every job on this host."""
    data: dict[str, str] = Field(default_factory=dict)
    """Where this host keeps data: `[hosts.NAME.data]` with lines `imagenet = "/mnt/imagenet"`."""
    pip_index: Annotated[str | None, AfterValidator(_without_password)] = None
    """The package index that pip asks on this host. A password has no place in it: it would be seen in `ps` there."""
    registry_mirror: str | None = None
    """The registry that images are pulled from in place of Docker Hub."""
    base_image: str | dict[str, str] | None = None
    """The image that gpurun's own is built on, in place of the pinned one; `{ "v2.7" = "..." }` for several."""


class HostsFile(_Table):
    """hosts.toml, in your configuration directory."""

    default: str | None = None
    """The host that is taken when nothing names one (`gpurun host use NAME`)."""
    hosts: dict[str, HostProfile] = Field(default_factory=dict)
    """One table a host: `[hosts.NAME]`."""

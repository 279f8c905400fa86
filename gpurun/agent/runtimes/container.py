"""Build the engine's command lines for a job's container. Builders return argv and do no I/O."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, List, Sequence

from .. import vocabulary as words
from ..host.gpus import Gpu
from ..host.identity import Identity
from ..paths import RunPaths
from ..setup import services, wrapper
from ..setup.mounts import bind
from . import keeper

if TYPE_CHECKING:
    from ..schema.job import AttemptJob, Job

PIDS = 32768
STACK = 64 << 20
NVIDIA_CONTROL = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


@dataclass(frozen=True)
class Container:
    """Hold everything that determines a job's container."""

    image: str  # id or digest
    who: Identity
    memory_of_host: int  # bytes
    run: RunPaths
    job: AttemptJob
    gpus: Sequence[Gpu] = ()
    devices: Sequence[str] = field(default_factory=list)


def name_of(run: RunPaths) -> str:
    """Return the name with which a container is made. gpurun finds it by its labels, because others may rename it."""
    return words.CONTAINER_PREFIX + run.id


def create(container: Container) -> List[str]:
    """Return `docker create` for the job, without the engine's own argv."""
    job, run = container.job, container.run
    return [
        "create",
        "--name",
        name_of(run),
        *labels(job, container.gpus),
        *confinement(container),
        *gpu_options(container.gpus, container.devices),
        *mounts(container),
        "--entrypoint",
        "/bin/sh",
        container.image,
        *wrapper.start(wrapper.IN_CONTAINER, services.command(job, wrapper.IN_CONTAINER.ro))[1:],
    ]


def fresh_shell(container: Container, command: Sequence[str], *, tty: bool) -> List[str]:
    """Return `docker run` for a shell in a container like the one of an ended job, without its GPUs."""
    return [
        "run",
        "--rm",
        "--interactive",
        *(["--tty"] if tty else []),
        *confinement(container),
        *gpu_options([], []),
        *mounts(container),
        "--env",
        keeper.SHELL_MARK + "=1",  # marks the shell as not part of the job
        "--label",
        "%s=%s" % (words.LABEL_SHELL, container.job["id"]),
        "--label",
        "%s=%s" % (words.LABEL_TOKEN, wrapper.token_label(container.job)),
        "--entrypoint",
        "/bin/sh",
        container.image,
        *wrapper.shell(wrapper.IN_CONTAINER, command)[1:],
    ]


def shell_beside(container: str, command: Sequence[str], *, tty: bool, holder: Sequence[str] = ()) -> List[str]:
    """Return `docker exec` for a shell in the live job's container, which is named by its id."""
    terminal = ["--tty"] if tty else []
    return ["exec", "--interactive", *terminal, container, *wrapper.shell(wrapper.IN_CONTAINER, command, holder)]


def relay(container: str, socket: str, port: int, user: Sequence[str] = ()) -> List[str]:
    """Return `docker exec` for a relay from the run's folder of sockets to a port of the container's own loopback."""
    places = wrapper.IN_CONTAINER
    program = "%s/%s" % (places.ro, services.RELAY)
    # Use the image's own Python, whatever is on the job's PYTHONPATH.
    start = 'for python in python3 python; do command -v $python >/dev/null && exec $python -I "$@"; done; exit 127'
    return [
        "exec",
        "--interactive",
        *user,
        container,
        "/bin/sh",
        "-c",
        start,
        "-",
        program,
        places.sockets + "/" + socket,
        str(port),
    ]


def labels(job: AttemptJob, gpus: Sequence[Gpu]) -> List[str]:
    values = {
        words.LABEL_RUN: job["id"],
        words.LABEL_GPUS: ",".join(gpu.uuid for gpu in gpus),
        words.LABEL_OWNER: job["owner"],
        words.LABEL_TOKEN: wrapper.token_label(job),
        words.LABEL_ATTEMPT: str(job["attempt"]),
    }
    return [word for label, value in values.items() for word in ("--label", "%s=%s" % (label, value))]


def confinement(container: Container) -> List[str]:
    """Return the options that limit the rights and the resources of the job."""
    resources, kept = container.job["resources"], container.job["keep_caps"]
    memory = resources["memory"]
    shm = resources["shm"] or (memory or container.memory_of_host) // 2
    options = ["--init", "--restart=no", "--cap-drop", "ALL"]
    for cap in kept:
        options += [] if cap == "no-new-privileges" else ["--cap-add", cap]
    if "no-new-privileges" not in kept:
        options += ["--security-opt", "no-new-privileges"]
    options += container.who.options
    options += ["--pids-limit", str(PIDS), "--ulimit", "stack=%d" % STACK]
    if container.who.may_raise_limits:
        options += ["--ulimit", "memlock=-1"]
    options += ["--shm-size", str(shm)]
    if memory is not None:
        options += ["--memory", str(memory), "--memory-swap", str(memory)]
    if resources["cpus"] is not None:
        options += ["--cpus", "%g" % resources["cpus"]]
    return options


def gpu_options(gpus: Sequence[Gpu], devices: Sequence[str]) -> List[str]:
    if not gpus:  # else an engine with nvidia's runtime as its default gives it all GPUs
        return ["--env", "NVIDIA_VISIBLE_DEVICES=void"]
    # The inner quotes keep the list in one field of the CSV that the option is.
    options = ["--gpus", '"device=%s"' % ",".join(gpu.uuid for gpu in gpus)]
    return options + [word for device in devices for word in ("--device", device)]


def places_of(job: Job) -> wrapper.Places:
    """Return the paths of a job's folders in its container.

    A TensorBoard gets neither the caches of other jobs nor data.
    """
    if services.kind(job) != words.TENSORBOARD:
        return wrapper.IN_CONTAINER
    own = "/".join((words.WORKSPACE_MOUNT, words.WORKSPACE_PRIVATE, "cache"))
    return replace(wrapper.IN_CONTAINER, cache=own)


def mounts(container: Container) -> List[str]:
    run, job = container.run, container.job
    places = wrapper.IN_CONTAINER
    binds = [
        bind(run.workspace, places.workspace),
        bind(run.out, places.out),
        bind(run.ro, places.ro, readonly=True),
        bind(run.secrets, places.secrets, readonly=True),
    ]
    if services.kind(job) == words.TENSORBOARD:  # not runs/: it sees only the event files of its project
        binds.append(bind(run.board, places.board, readonly=True))
    else:
        binds += [
            bind(run.host.job_cache, places.cache),
            bind(run.host.data(job["project"]["name"]), places.data),
        ]
    if container.who.uid != 0:
        binds += [bind(run.passwd, "/etc/passwd", readonly=True), bind(run.group, "/etc/group", readonly=True)]
    for mount in job["mounts"]:
        source = os.path.expanduser(mount["source"])
        binds.append(bind(source, mount["target"], readonly=mount.get("readonly", False)))
    return [word for value in binds for word in ("--mount", value)]


def device_files(gpus: Sequence[Gpu], dev: str = "/dev", proc: str = "/proc/driver/nvidia/gpus") -> List[str]:
    """Return the device files of the GPUs and of the driver: a reload of the engine takes away devices that only --gpus
    gave.

    A file is found by UUID, because the driver's minor numbers may differ from the indexes. An unknown file is left
    out, because it might belong to another run's GPU.
    """
    if not gpus:
        return []
    names = list(NVIDIA_CONTROL)
    wanted = {gpu.uuid for gpu in gpus}
    for path in sorted(glob.glob(os.path.join(proc, "*", "information"))):
        try:
            with open(path) as file:
                text = file.read()
        except OSError:
            continue
        uuid = re.search(r"^GPU UUID:\s*(\S+)", text, re.MULTILINE)
        minor = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
        if uuid and minor and uuid.group(1) in wanted:
            names.append("nvidia" + minor.group(1))
    return [path for path in (os.path.join(dev, name) for name in names) if os.path.exists(path)]

"""Install a project's dependencies as a layer on an image: pip runs in a container of the image, which is then
committed.

This requires neither BuildKit nor a Dockerfile of the project. A base that already has all dependencies is recorded
too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, List, Mapping, Optional, Sequence

from .. import vocabulary as words
from ..files import read_json, write_json
from ..host import locks
from ..host.engine import Engine, EngineError, Kind, essence
from ..paths import RunPaths
from ..programs import Result, Say
from ..setup.mounts import bind
from ..state import journal
from . import layer_install, layers
from .image import Image, find_image

if TYPE_CHECKING:
    from ..schema.host import EngineFacts, Inspected
    from ..schema.job import Dependencies, Job
    from ..schema.programs import SshOfInstaller

REPOSITORY = "gpurun/layer"
PIP_CACHE = "gpurun-pip"  # a volume: pip runs as root there, and would fill a folder of the user with root's files
_PROJECT, _ORDER, _INSTALLER, _CACHE = (
    "/gpurun/project",
    "/gpurun/order.json",
    "/gpurun/layer_install.py",
    "/gpurun/pip",
)
_AGENT, _KNOWN_HOSTS = "/gpurun/agent.sock", "/gpurun/known_hosts"
# Passed to a shell on stdin: arguments would stay in the layer's configuration, where `commit` cannot unset them.
_SCRIPT = b"""
if command -v python >/dev/null 2>&1; then python=python; else python=python3; fi
exec $python %s %s </dev/null
""" % (_INSTALLER.encode(), _ORDER.encode())


@dataclass(frozen=True)
class Layer:
    tag: str
    id: str


def ensure(
    engine: Engine, facts: Callable[[], EngineFacts], run: RunPaths, job: Job, base: Image, say: Say
) -> Optional[Layer]:
    """Return the image with the dependencies, and make it when it is missing. Return None when the base has all.

    `facts`: the engine's.

    Raises RunFailed, EngineError.
    """
    requested = layers.requested(job)
    if requested is None:
        return None
    key = layers.key(base.id, layers.fingerprint(run.workspace, requested))
    tag = "%s:%s" % (REPOSITORY, key)

    def wait() -> None:
        journal.record_step(run, "waiting for another run, which installs the same dependencies")
        say(b"")

    with locks.host_lock("layer-" + key, wait):
        image = find_image(engine, tag)
        if image is not None:
            return Layer(tag, image.id)
        if (read_json(run.host.layer(key)) or {}).get("satisfied"):
            return None
        step = "installing the requirements of %s" % requested["file"]
        journal.record_step(run, step)
        say((step + "\n").encode())
        if not _install(engine, facts, run, job, requested, base, "gpurun.layer.%s.%d" % (key, os.getuid()), tag, say):
            os.makedirs(os.path.dirname(run.host.layer(key)), exist_ok=True)
            write_json(run.host.layer(key), {"satisfied": True, "base": base.id})
            return None
    image_made = find_image(engine, tag)
    if image_made is None:
        raise EngineError(Kind.UNKNOWN, "the layer was removed right after it was made", engine.argv[-1])
    return Layer(tag, image_made.id)


def _install(
    engine: Engine,
    facts: Callable[[], EngineFacts],
    run: RunPaths,
    job: Job,
    requested: Dependencies,
    base: Image,
    container: str,
    tag: str,
    say: Say,
) -> bool:
    """Run pip in a container and commit it. Return False when there was nothing to install."""
    ssh = ssh_agent(os.environ)
    order = layers.order(requested, job["profile"], project=_PROJECT, where="the image")
    order["cache"], order["ssh"] = _CACHE, _ssh_order(ssh)
    # Root of a remapped engine is another user on the host, who cannot read a private file of this user.
    write_json(run.layer, order, 0o644 if facts().get("userns") else 0o600)
    remove = ["rm", "--force", "--volumes", container]
    try:
        if engine.inspect("container", container) is not None:  # left by a supervisor that was killed
            engine.ask(*remove, timeout=120.0)
        config = (engine.inspect("image", base.id) or {}).get("Config") or {}
        options = ["--security-opt", "label=disable"] if facts().get("selinux") else []
        # Use the id from here on: others can change a name.
        container = engine.ask(*create(container, base.id, config, run, ssh, options), timeout=300.0).text.strip()
        remove[-1] = container
        answer = engine.watch("start", "--attach", "--interactive", container, say=say, stdin=_SCRIPT)
        if not answer.ok and _is_broken_off(engine, answer, container):
            raise EngineError(Kind.DOWN, essence(answer.text), engine.argv[-1])
        installed = layers.check(
            answer, requested["file"], 'change it there, or name an image that has the version: image = "…"'
        )
        if installed:
            say(b"storing the layer as " + tag.encode() + b"\n")
            engine.ask("commit", *restored(config), container, tag, timeout=3600.0)
        return installed
    finally:
        os.unlink(run.layer)
        try:
            engine.ask(*remove, timeout=120.0)
        except EngineError:
            pass  # the next try removes it


def _is_broken_off(engine: Engine, answer: Result, container: str) -> bool:
    """Return whether the engine stopped during the installation.

    Raises EngineError when the engine still does not answer.
    """
    if answer.code in (layer_install.SATISFIED, layer_install.CONFLICT):
        return False
    engine.check()
    record = engine.inspect("container", container)
    # When its engine stops, the client's exit code is not the container's, and the container may not have ended at all.
    return record is None or record["State"]["Status"] != "exited" or record["State"]["ExitCode"] != answer.code


def create(
    container: str,
    base: str,
    config: Inspected,
    run: RunPaths,
    ssh: Mapping[str, str],
    options: Sequence[str] = (),
) -> List[str]:
    """Return `docker create` for pip, in an image with this configuration.

    No --env: it would stay in the layer's configuration.
    """
    mounts = [
        bind(run.workspace, _PROJECT, readonly=True),
        bind(run.layer, _ORDER, readonly=True),
        bind(layers.INSTALLER, _INSTALLER, readonly=True),
        "type=volume,source=%s,target=%s" % (PIP_CACHE, _CACHE),
        *(bind(source, target) for target, source in ssh.items()),
    ]
    return [
        "create", "--name", container, "--interactive", "--init", "--network", "host", "--user", "0:0", "--workdir", "/",
        *options,
        *(word for mount in mounts for word in ("--mount", mount)),
        # An entrypoint can be reset, but not removed again.
        *(["--entrypoint", "/bin/sh", base] if config.get("Entrypoint") else [base, "/bin/sh"]),
    ]  # fmt: skip


def restored(config: Inspected) -> List[str]:
    """Return options for `docker commit` that restore the base image's settings; else the layer would keep how pip was
    run.
    """
    changes = [
        *(["ENTRYPOINT " + json.dumps(config["Entrypoint"])] if config.get("Entrypoint") else []),
        *(["CMD " + json.dumps(config["Cmd"])] if config.get("Cmd") else []),
        "USER " + (config.get("User") or "0"),
        "WORKDIR " + (config.get("WorkingDir") or "/"),
        "LABEL %s=" % words.LABEL_LAYER,
    ]
    return [word for change in changes for word in ("--change", change)]


def ssh_agent(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return what pip needs for git+ssh, as path in the container -> path on the host; empty without an agent."""
    socket = environ.get("SSH_AUTH_SOCK", "")
    if not os.path.exists(socket):
        return {}
    paths = {_AGENT: socket}
    known_hosts = os.path.expanduser("~/.ssh/known_hosts")
    if os.path.exists(known_hosts):
        paths[_KNOWN_HOSTS] = known_hosts
    return paths


def _ssh_order(ssh: Mapping[str, str]) -> Optional[SshOfInstaller]:
    return {"agent": _AGENT, "known_hosts": _KNOWN_HOSTS} if ssh else None

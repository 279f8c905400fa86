"""Send commands to the container engine: all go through `Engine`, and only `classify` interprets the engine's messages."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from .. import error_codes, programs
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json
from ..programs import Result, Say

if TYPE_CHECKING:
    from ..schema.host import EngineFacts, EngineInfo, Inspected

T = TypeVar("T")


class Kind:
    """Name the kinds of refusals of an engine. Behind `error_codes.ENGINE`, the kind is the code of the error."""

    MISSING = "missing"
    NO_RIGHT = "no_right"
    DOWN = "down"
    NO_ANSWER = "no_answer"
    NO_SPACE = "no_space"
    RATE_LIMIT = "rate_limit"
    UNAUTHORIZED = "unauthorized"
    IMAGE_ABSENT = "image_absent"
    BAD_REFERENCE = "bad_reference"
    PLATFORM = "platform"
    DRIVER = "driver"
    GPU = "gpu"
    MOUNT = "mount"
    RLIMIT = "rlimit"
    LIMIT = "limit"
    HALF_STARTED = "half_started"
    ABSENT = "absent"
    NAME_TAKEN = "name_taken"
    RUNNING = "running"
    NOT_RUNNING = "not_running"
    NO_PROGRAM = "no_program"
    NETWORK = "network"
    UNKNOWN = "unknown"


# What a piece of an engine's message means. The first match counts; all pieces are lower case.
_MEANINGS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    (Kind.NO_RIGHT, ("permission denied while trying to connect", "docker.sock: connect: permission denied")),
    (Kind.NO_RIGHT, ("sudo: a password is required", "sudo: a terminal is required", "is not in the sudoers file")),
    (Kind.DOWN, ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect")),
    # The first: the client's first question, what the engine runs on, got no answer. The second: the connection broke.
    (Kind.DOWN, ("unknown server os", "error waiting for container: unexpected eof")),
    (Kind.NO_SPACE, ("no space left on device", "disk quota exceeded")),
    (Kind.NAME_TAKEN, ("is already in use by container",)),
    # The engine was killed while it started a container: it has no record of the container and cannot start it again.
    (Kind.HALF_STARTED, (": already exists", "container with id exists", "id already in use")),
    (Kind.ABSENT, ("no such container", "no such object")),
    (
        Kind.RUNNING,
        ("cannot remove a running container", "container is running: stop", "cannot remove a paused container"),
    ),
    (Kind.RUNNING, ("container is paused and must be unpaused",)),
    (Kind.NOT_RUNNING, ("is not running", "is already stopped", "cannot kill container")),
    (Kind.RATE_LIMIT, ("toomanyrequests", "rate limit", "429 too many requests")),
    (Kind.BAD_REFERENCE, ("invalid reference format", "repository name must be", "invalid repository name")),
    (Kind.PLATFORM, ("no matching manifest for", "does not match the specified platform")),
    (Kind.IMAGE_ABSENT, ("pull access denied", "repository does not exist")),
    (
        Kind.UNAUTHORIZED,
        ("unauthorized", "authentication required", "no basic auth credentials", "denied: ", "403 forbidden"),
    ),
    (Kind.IMAGE_ABSENT, ("manifest unknown", "no such image")),
    (Kind.IMAGE_ABSENT, ("not found: manifest", "failed to resolve reference", "name unknown")),
    (Kind.DRIVER, ("unsatisfied condition: cuda", "unsatisfied condition: driver")),
    (Kind.GPU, ("could not select device driver", "nvidia-container-cli", "failed to discover gpu vendor from cdi")),
    (Kind.GPU, ("unknown or invalid runtime name: nvidia", "cdi device injection failed", "unresolvable cdi devices")),
    (Kind.MOUNT, ("bind source path does not exist", "invalid mount config", "duplicate mount point")),
    (Kind.RLIMIT, ("error setting rlimit",)),
    (Kind.LIMIT, ("minimum memory limit", "range of cpus is from", "can not be set, as your kernel")),
    (
        Kind.NO_PROGRAM,
        ("executable file not found", "no such file or directory: unknown", "stat /bin/sh: no such file"),
    ),
    (Kind.NETWORK, ("i/o timeout", "handshake timeout", "connection reset", "connection refused", "unexpected eof")),
    (
        Kind.NETWORK,
        ("no such host", "name resolution", "network is unreachable", "deadline exceeded", "client.timeout"),
    ),
    (
        Kind.NETWORK,
        ("could not resolve", "no route to host", "request canceled", "broken pipe", ": eof", "server misbehaving"),
    ),
    (Kind.NETWORK, ("failed to register layer: unexpected", "bad gateway", "service unavailable", "gateway timeout")),
)

# Kind -> what happened, and the next step.
_MESSAGES: Dict[str, Tuple[str, str]] = {
    Kind.MISSING: ("the host has no engine `%s`", "install Docker there, or use --runtime bare"),
    Kind.NO_RIGHT: ("you may not use the engine: permission denied", "ask the host's administrator to add you to the docker group, then log out of the host"),
    Kind.DOWN: ("the engine is not running", "start it on the host: sudo systemctl start docker"),
    Kind.NO_ANSWER: ("the engine did not answer in time", "check the engine on the host: docker ps; sudo systemctl status docker"),
    Kind.NO_SPACE: ("the host's disk is full", "free space: gpurun prune --fetched, or docker system prune on the host"),
    Kind.RATE_LIMIT: ("the registry's rate limit for pulls is reached", "docker login on the host, or registry_mirror in its profile"),
    Kind.UNAUTHORIZED: ("the registry requires a login", "docker login on the host, then submit again"),
    Kind.IMAGE_ABSENT: ("the image does not exist, or is private", "check its name; for a private image: docker login on the host"),
    Kind.BAD_REFERENCE: ("the name of the image is invalid", "write it as name:tag or name@sha256:..."),
    Kind.PLATFORM: ("the image does not exist for this host's processor", "use an image that was built for it"),
    Kind.DRIVER: ("the host's NVIDIA driver is too old for this image", "update it there, or use an image for an older CUDA: --image"),
    Kind.GPU: ("the engine cannot give GPUs to a container", words.TOOLKIT_NEXT_STEP),
    Kind.MOUNT: ("the engine cannot make a mount", "check that the path exists on the host"),
    Kind.LIMIT: ("the engine refuses a limit", "request no more than the host has"),
    Kind.HALF_STARTED: ("the engine was killed while it started the job, and lost the job", "restart the engine there, then gpurun resume"),
    Kind.RUNNING: ("the job was started in the meantime", "check it again: gpurun ps"),
    Kind.NO_PROGRAM: ("the image has no /bin/sh", "use an image with a shell and Python"),
    Kind.NETWORK: ("the connection to the registry broke", "check the host's network, then submit again"),
    Kind.UNKNOWN: ("the engine refused", ""),
}  # fmt: skip


class EngineError(AgentError):
    """Report that the engine refused. `kind` is one of `Kind`; `output` is the engine's own text."""

    def __init__(self, kind: str, output: str, program: str = ""):
        meaning, next_step = _MESSAGES.get(kind, _MESSAGES[Kind.UNKNOWN])
        what = meaning % program if "%s" in meaning else meaning
        super().__init__(
            error_codes.ENGINE + kind,
            what + (": " + output if output else ""),
            next_step,
            where=program and "engine: " + program,
        )
        self.kind = kind
        self.output = output

    @property
    def is_away(self) -> bool:
        """Return whether the engine did not answer and may answer soon: it may be restarting."""
        return self.kind in (Kind.DOWN, Kind.NO_ANSWER)


def classify(output: str) -> str:
    """Return the kind of refusal that this text of an engine means; `unknown` for a text that no rule matches."""
    text = output.lower()
    if text.strip() == "unexpected eof":  # the client's whole text when the engine stops in the middle of an answer
        return Kind.DOWN
    return next((kind for kind, signs in _MEANINGS if any(sign in text for sign in signs)), Kind.UNKNOWN)


def essence(output: str) -> str:
    """Return the one line of an engine's message that names the cause."""
    lines = [line.strip() for line in output.replace("\r", "\n").splitlines() if line.strip()]
    # `docker start` names the container once more after the engine's own words.
    lines = [line for line in lines if not line.startswith("Error: failed to start containers")] or lines
    error_lines = [line for line in lines if line.lower().startswith(("error", "docker: error", "failed", "sudo:"))]
    line = (error_lines or lines or [""])[-1]
    for prefix in ("docker: ", "Error response from daemon: ", "ERROR: ", "Error: "):
        if line.startswith(prefix):
            line = line[len(prefix) :]
    return line[:500]


class Engine:
    """Run the commands of one engine, named by the argv of its program, such as ["sudo", "-n", "docker"]."""

    def __init__(self, argv: Sequence[str]):
        self.argv = list(argv)

    def command(self, *args: str) -> List[str]:
        return [*self.argv, *args]

    def with_login(self) -> List[str]:
        """Return options that make a pull or a build use the user's own logins at registries.

        An engine called under sudo reads root's configuration by default.
        """
        if os.path.basename(self.argv[0]) != "sudo":
            return []
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        config = read_json(os.path.join(folder, "config.json")) or {}
        return ["--config", folder] if config.get("auths") or config.get("credHelpers") else []

    @property
    def can_be_killed(self) -> bool:
        """Return whether the engine's client is a process of this user: under sudo it belongs to root."""
        return len(self.argv) == 1

    def ask(self, *args: str, timeout: float = 30.0, patience: float = 0.0) -> Result:
        """Run a short command and return its result. Raises EngineError.

        While the engine is down, the command is retried until `patience` seconds are over: the engine may be
        restarting.
        """
        return _retry_while_away(lambda: self._ask(*args, timeout=timeout), patience)

    def _ask(self, *args: str, timeout: float) -> Result:
        try:
            answer = programs.run(self.command(*args), timeout=timeout)
        except FileNotFoundError:
            raise EngineError(Kind.MISSING, "", self.argv[0]) from None
        if answer.timed_out:
            raise EngineError(Kind.NO_ANSWER, "%s, %g s" % (args[0], timeout), self.argv[-1])
        if not answer.ok:
            raise EngineError(classify(answer.error_text), essence(answer.error_text), self.argv[-1])
        return answer

    def check(self) -> None:
        """Raise EngineError when the engine is away."""
        try:
            self.ask("version", "--format", "{{.Server.Version}}", timeout=10.0)
        except EngineError as error:
            if error.is_away:
                raise

    def watch(self, *args: str, say: Say, stdin: bytes = b"") -> Result:
        """Run a command that takes long, and pass on its output. The caller judges the exit code."""
        return programs.watch(self.command(*args), say, stdin=stdin)

    def inspect(self, kind: str, name: str, patience: float = 0.0) -> Optional[Inspected]:
        """Return the engine's record of a `container`, an `image` or a `volume`, or None when it does not exist.

        Raises EngineError.
        """
        try:
            answer = self.ask(kind, "inspect", "--format", "{{json .}}", name, patience=patience)
        except EngineError as error:
            if error.kind in (Kind.ABSENT, Kind.IMAGE_ABSENT) or "no such" in error.output.lower():
                return None
            raise
        record: Inspected = json.loads(answer.text)
        return record

    def facts(self, timeout: float = 15.0, patience: float = 0.0) -> EngineFacts:
        """Return {"argv", "version", "root", "rootless", "userns", "selinux", "toolkit"}. Raises EngineError."""
        return _retry_while_away(lambda: self._facts(timeout), patience)

    def _facts(self, timeout: float) -> EngineFacts:
        info = json.loads(self.ask("info", "--format", "{{json .}}", timeout=timeout).text or "{}")
        problems = info.get("ServerErrors") or []
        if problems or not info.get("ServerVersion"):  # some versions exit with 0 all the same
            output = " ".join(problems)
            raise EngineError(classify(output) if output else Kind.DOWN, essence(output), self.argv[-1])
        return {"argv": self.argv, **parse_info(info), "toolkit": has_toolkit(info)}


def _retry_while_away(question: Callable[[], T], patience: float) -> T:
    """Ask the question again while the engine is away, for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return question()
        except EngineError as error:
            if not error.is_away or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def parse_info(info: Inspected) -> EngineInfo:
    """Convert `docker info` into the facts that decide which user a job is inside its container."""
    options = {
        part[len("name=") :]
        for option in info.get("SecurityOptions") or []
        for part in option.split(",")
        if part.startswith("name=")
    }
    return {
        "version": info["ServerVersion"],
        "root": info.get("DockerRootDir"),  # where its images are stored
        "rootless": "rootless" in options,
        "userns": "userns" in options,
        "selinux": "selinux" in options,
    }


def has_toolkit(info: Inspected) -> bool:
    """Return whether containers can get GPUs, as far as this account can see."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return True
    if any(device.get("ID", "").startswith("nvidia.com/gpu") for device in info.get("DiscoveredDevices") or []):
        return True
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin", "/usr/sbin"])
    return shutil.which("nvidia-container-runtime-hook", path=path) is not None

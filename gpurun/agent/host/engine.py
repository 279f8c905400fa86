"""The container engine: every command to it goes through `Engine`, and only `classify` reads what it prints."""

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
    """What a refusal of the engine means. Behind `error_codes.ENGINE`, it is the code of the error."""

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


# What a piece of an engine's message means. The first that fits counts; all is lower case.
_MEANINGS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    (Kind.NO_RIGHT, ("permission denied while trying to connect", "docker.sock: connect: permission denied")),
    (Kind.NO_RIGHT, ("sudo: a password is required", "sudo: a terminal is required", "is not in the sudoers file")),
    (Kind.DOWN, ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect")),
    # A client whose first question, what the engine runs on, got no answer; and one whose connection broke meanwhile.
    (Kind.DOWN, ("unknown server os", "error waiting for container: unexpected eof")),
    (Kind.NO_SPACE, ("no space left on device", "disk quota exceeded")),
    (Kind.NAME_TAKEN, ("is already in use by container",)),
    # It was killed while it started a container: it does not know of what it had begun, and cannot begin it again.
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

# Kind -> what it means, and the next step.
_MESSAGES: Dict[str, Tuple[str, str]] = {
    Kind.MISSING: ("there is no engine `%s` on this host", "install Docker there, or use --runtime bare"),
    Kind.NO_RIGHT: ("no right to use the engine", "let its owner add you to the docker group, then log out of the host"),
    Kind.DOWN: ("the engine is not running", "start it on the host: sudo systemctl start docker"),
    Kind.NO_ANSWER: ("the engine gave no answer in time", "look at it on the host: docker ps; sudo systemctl status docker"),
    Kind.NO_SPACE: ("the host's disk is full", "make room: gpurun prune --fetched, or docker system prune on the host"),
    Kind.RATE_LIMIT: ("the registry refuses more pulls for now", "docker login on the host, or registry_mirror in its profile"),
    Kind.UNAUTHORIZED: ("the registry wants a login", "docker login on the host, then submit again"),
    Kind.IMAGE_ABSENT: ("there is no such image, or it is private", "check its name; when it is private: docker login on the host"),
    Kind.BAD_REFERENCE: ("this is no name of an image", "write it as name:tag or name@sha256:..."),
    Kind.PLATFORM: ("there is no such image for this machine's processor", "take one that was built for it"),
    Kind.DRIVER: ("the host's NVIDIA driver is too old for this image", "update it there, or take an image for an older CUDA: --image"),
    Kind.GPU: ("the engine cannot give GPUs to a container", words.TOOLKIT_MEND),
    Kind.MOUNT: ("a mount is not possible", "check that the path is there on the host"),
    Kind.LIMIT: ("the engine refuses a limit", "ask for what the host has"),
    Kind.HALF_STARTED: ("the engine was killed while it started the job, and has lost it", "restart the engine there, then gpurun resume"),
    Kind.RUNNING: ("the job was started meanwhile", "look again: gpurun ps"),
    Kind.NO_PROGRAM: ("the image has no /bin/sh", "take an image with a shell and Python"),
    Kind.NETWORK: ("the connection to the registry broke off", "check the host's network, then submit again"),
    Kind.UNKNOWN: ("the engine refused", ""),
}  # fmt: skip


class EngineError(AgentError):
    """The engine said no. `kind` is one of `Kind`; `said` its own words."""

    def __init__(self, kind: str, said: str, program: str = ""):
        meaning, next_step = _MESSAGES.get(kind, _MESSAGES[Kind.UNKNOWN])
        what = meaning % program if "%s" in meaning else meaning
        super().__init__(
            error_codes.ENGINE + kind,
            what + (": " + said if said else ""),
            next_step,
            where=program and "engine: " + program,
        )
        self.kind = kind
        self.said = said

    @property
    def is_away(self) -> bool:
        """No answer, which may come in a while: the engine may be restarting."""
        return self.kind in (Kind.DOWN, Kind.NO_ANSWER)


def classify(said: str) -> str:
    """What kind of refusal this text of an engine is; `unknown` for one that nobody has met."""
    text = said.lower()
    if text.strip() == "unexpected eof":  # all that a client says whose engine goes away in the middle of an answer
        return Kind.DOWN
    return next((kind for kind, signs in _MEANINGS if any(sign in text for sign in signs)), Kind.UNKNOWN)


def essence(said: str) -> str:
    """The one line of an engine's complaint that says what happened."""
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    # `docker start` names the container once more after the engine's own words.
    lines = [line for line in lines if not line.startswith("Error: failed to start containers")] or lines
    telling = [line for line in lines if line.lower().startswith(("error", "docker: error", "failed", "sudo:"))]
    line = (telling or lines or [""])[-1]
    for prefix in ("docker: ", "Error response from daemon: ", "ERROR: ", "Error: "):
        if line.startswith(prefix):
            line = line[len(prefix) :]
    return line[:500]


class Engine:
    """One engine, named by the argv of its program, such as ["sudo", "-n", "docker"]."""

    def __init__(self, argv: Sequence[str]):
        self.argv = list(argv)

    def command(self, *args: str) -> List[str]:
        return [*self.argv, *args]

    def with_login(self) -> List[str]:
        """Options that make a pull or a build use the user's own logins at registries.

        An engine asked under sudo looks into root's configuration, unless it is told.
        """
        if os.path.basename(self.argv[0]) != "sudo":
            return []
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        told = read_json(os.path.join(folder, "config.json")) or {}
        return ["--config", folder] if told.get("auths") or told.get("credHelpers") else []

    @property
    def can_be_killed(self) -> bool:
        """Whether a client of it is a process of ours: one under sudo is root's."""
        return len(self.argv) == 1

    def ask(self, *args: str, timeout: float = 30.0, patience: float = 0.0) -> Result:
        """The answer to a question. Raises EngineError.

        One that is down is asked again until `patience` seconds are over: it may be restarting.
        """
        return _patiently(lambda: self._ask(*args, timeout=timeout), patience)

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
        """Run a command that takes long, and pass on what it says. Its exit code is the caller's to judge."""
        return programs.watch(self.command(*args), say, stdin=stdin)

    def inspect(self, kind: str, name: str, patience: float = 0.0) -> Optional[Inspected]:
        """What the engine knows of a `container`, an `image` or a `volume`; None when there is none. Raises EngineError."""
        try:
            answer = self.ask(kind, "inspect", "--format", "{{json .}}", name, patience=patience)
        except EngineError as error:
            if error.kind in (Kind.ABSENT, Kind.IMAGE_ABSENT) or "no such" in error.said.lower():
                return None
            raise
        found: Inspected = json.loads(answer.text)
        return found

    def facts(self, timeout: float = 15.0, patience: float = 0.0) -> EngineFacts:
        """{"argv", "version", "root", "rootless", "userns", "selinux", "toolkit"}. Raises EngineError."""
        return _patiently(lambda: self._facts(timeout), patience)

    def _facts(self, timeout: float) -> EngineFacts:
        info = json.loads(self.ask("info", "--format", "{{json .}}", timeout=timeout).text or "{}")
        problems = info.get("ServerErrors") or []
        if problems or not info.get("ServerVersion"):  # some versions end with 0 all the same
            said = " ".join(problems)
            raise EngineError(classify(said) if said else Kind.DOWN, essence(said), self.argv[-1])
        return {"argv": self.argv, **parse_info(info), "toolkit": has_toolkit(info)}


def _patiently(question: Callable[[], T], patience: float) -> T:
    deadline = time.monotonic() + patience
    while True:
        try:
            return question()
        except EngineError as error:
            if not error.is_away or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def parse_info(info: Inspected) -> EngineInfo:
    """`docker info` -> what decides about who a job is inside its container."""
    options = {
        part[len("name=") :]
        for option in info.get("SecurityOptions") or []
        for part in option.split(",")
        if part.startswith("name=")
    }
    return {
        "version": info["ServerVersion"],
        "root": info.get("DockerRootDir"),  # where its images lie
        "rootless": "rootless" in options,
        "userns": "userns" in options,
        "selinux": "selinux" in options,
    }


def has_toolkit(info: Inspected) -> bool:
    """Whether containers can be given GPUs, as far as can be seen from here."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return True
    if any(device.get("ID", "").startswith("nvidia.com/gpu") for device in info.get("DiscoveredDevices") or []):
        return True
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin", "/usr/sbin"])
    return shutil.which("nvidia-container-runtime-hook", path=path) is not None

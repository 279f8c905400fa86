"""The container engine: every command to it goes through `Engine`, and only `classify` reads what it prints."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from .. import programs
from .. import vocabulary as words
from ..errors import AgentError
from ..files import read_json
from ..programs import Answer, Say

T = TypeVar("T")

# What a piece of an engine's message means. The first that fits counts; all is lower case.
_MEANINGS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    ("no_right", ("permission denied while trying to connect", "docker.sock: connect: permission denied")),
    ("no_right", ("sudo: a password is required", "sudo: a terminal is required", "is not in the sudoers file")),
    ("down", ("cannot connect to the docker daemon", "is the docker daemon running", "error during connect")),
    # A client whose first question, what the engine runs on, got no answer; and one whose connection broke meanwhile.
    ("down", ("unknown server os", "error waiting for container: unexpected eof")),
    ("no_space", ("no space left on device", "disk quota exceeded")),
    ("name_taken", ("is already in use by container",)),
    # It was killed while it started a container: it does not know of what it had begun, and cannot begin it again.
    ("half_started", (": already exists", "container with id exists", "id already in use")),
    ("absent", ("no such container", "no such object")),
    (
        "running",
        ("cannot remove a running container", "container is running: stop", "cannot remove a paused container"),
    ),
    ("running", ("container is paused and must be unpaused",)),
    ("not_running", ("is not running", "is already stopped", "cannot kill container")),
    ("rate_limit", ("toomanyrequests", "rate limit", "429 too many requests")),
    ("bad_reference", ("invalid reference format", "repository name must be", "invalid repository name")),
    ("platform", ("no matching manifest for", "does not match the specified platform")),
    ("image_absent", ("pull access denied", "repository does not exist")),
    (
        "unauthorized",
        ("unauthorized", "authentication required", "no basic auth credentials", "denied: ", "403 forbidden"),
    ),
    ("image_absent", ("manifest unknown", "no such image")),
    ("image_absent", ("not found: manifest", "failed to resolve reference", "name unknown")),
    ("driver", ("unsatisfied condition: cuda", "unsatisfied condition: driver")),
    ("gpu", ("could not select device driver", "nvidia-container-cli", "failed to discover gpu vendor from cdi")),
    ("gpu", ("unknown or invalid runtime name: nvidia", "cdi device injection failed", "unresolvable cdi devices")),
    ("mount", ("bind source path does not exist", "invalid mount config", "duplicate mount point")),
    ("rlimit", ("error setting rlimit",)),
    ("limit", ("minimum memory limit", "range of cpus is from", "can not be set, as your kernel")),
    ("no_program", ("executable file not found", "no such file or directory: unknown", "stat /bin/sh: no such file")),
    ("network", ("i/o timeout", "handshake timeout", "connection reset", "connection refused", "unexpected eof")),
    ("network", ("no such host", "name resolution", "network is unreachable", "deadline exceeded", "client.timeout")),
    (
        "network",
        ("could not resolve", "no route to host", "request canceled", "broken pipe", ": eof", "server misbehaving"),
    ),
    ("network", ("failed to register layer: unexpected", "bad gateway", "service unavailable", "gateway timeout")),
)

# Kind -> what it means, and the next step.
_MESSAGES: Dict[str, Tuple[str, str]] = {
    "missing": ("there is no engine `%s` on this host", "install Docker there, or use --runtime bare"),
    "no_right": ("no right to use the engine", "let its owner add you to the docker group, then log out of the host"),
    "down": ("the engine is not running", "start it on the host: sudo systemctl start docker"),
    "no_answer": ("the engine gave no answer in time", "look at it on the host: docker ps; sudo systemctl status docker"),
    "no_space": ("the host's disk is full", "make room: gpurun prune --fetched, or docker system prune on the host"),
    "rate_limit": ("the registry refuses more pulls for now", "docker login on the host, or registry_mirror in its profile"),
    "unauthorized": ("the registry wants a login", "docker login on the host, then submit again"),
    "image_absent": ("there is no such image, or it is private", "check its name; when it is private: docker login on the host"),
    "bad_reference": ("this is no name of an image", "write it as name:tag or name@sha256:..."),
    "platform": ("there is no such image for this machine's processor", "take one that was built for it"),
    "driver": ("the host's NVIDIA driver is too old for this image", "update it there, or take an image for an older CUDA: --image"),
    "gpu": ("the engine cannot give GPUs to a container", words.TOOLKIT_MEND),
    "mount": ("a mount is not possible", "check that the path is there on the host"),
    "limit": ("the engine refuses a limit", "ask for what the host has"),
    "half_started": ("the engine was killed while it started the job, and has lost it", "restart the engine there, then gpurun resume"),
    "running": ("the job was started meanwhile", "look again: gpurun ps"),
    "no_program": ("the image has no /bin/sh", "take an image with a shell and Python"),
    "network": ("the connection to the registry broke off", "check the host's network, then submit again"),
    "unknown": ("the engine refused", ""),
}  # fmt: skip


class EngineError(AgentError):
    """The engine said no. `kind` is one of `_MESSAGES`, `absent`, `name_taken`, `half_started` or `not_running`; `said` its own words."""

    def __init__(self, kind: str, said: str, program: str = ""):
        meaning, next_step = _MESSAGES.get(kind, _MESSAGES["unknown"])
        what = meaning % program if "%s" in meaning else meaning
        super().__init__(
            "engine_" + kind, what + (": " + said if said else ""), next_step, where=program and "engine: " + program
        )
        self.kind = kind
        self.said = said

    @property
    def is_away(self) -> bool:
        """No answer, which may come in a while: the engine may be restarting."""
        return self.kind in ("down", "no_answer")


def classify(said: str) -> str:
    """What kind of refusal this text of an engine is; `unknown` for one that nobody has met."""
    text = said.lower()
    if text.strip() == "unexpected eof":  # all that a client says whose engine goes away in the middle of an answer
        return "down"
    return next((kind for kind, signs in _MEANINGS if any(sign in text for sign in signs)), "unknown")


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

    def ask(self, *args: str, timeout: float = 30.0, patience: float = 0.0) -> Answer:
        """The answer to a question. Raises EngineError.

        One that is down is asked again until `patience` seconds are over: it may be restarting.
        """
        return _patiently(lambda: self._ask(*args, timeout=timeout), patience)

    def _ask(self, *args: str, timeout: float) -> Answer:
        try:
            answer = programs.ask(self.command(*args), timeout=timeout)
        except FileNotFoundError:
            raise EngineError("missing", "", self.argv[0]) from None
        if answer.timed_out:
            raise EngineError("no_answer", "%s, %g s" % (args[0], timeout), self.argv[-1])
        if not answer.ok:
            raise EngineError(classify(answer.complaint), essence(answer.complaint), self.argv[-1])
        return answer

    def check(self) -> None:
        """Raise EngineError when the engine is away."""
        try:
            self.ask("version", "--format", "{{.Server.Version}}", timeout=10.0)
        except EngineError as error:
            if error.is_away:
                raise

    def watch(self, *args: str, say: Say, stdin: bytes = b"") -> Answer:
        """Run a command that takes long, and pass on what it says. Its exit code is the caller's to judge."""
        return programs.watch(self.command(*args), say, stdin=stdin)

    def inspect(self, kind: str, name: str, patience: float = 0.0) -> Optional[Dict[str, Any]]:
        """What the engine knows of a `container`, an `image` or a `volume`; None when there is none. Raises EngineError."""
        try:
            answer = self.ask(kind, "inspect", "--format", "{{json .}}", name, patience=patience)
        except EngineError as error:
            if error.kind in ("absent", "image_absent") or "no such" in error.said.lower():
                return None
            raise
        found: Dict[str, Any] = json.loads(answer.text)
        return found

    def facts(self, timeout: float = 15.0, patience: float = 0.0) -> Dict[str, Any]:
        """{"argv", "version", "root", "rootless", "userns", "selinux", "toolkit"}. Raises EngineError."""
        return _patiently(lambda: self._facts(timeout), patience)

    def _facts(self, timeout: float) -> Dict[str, Any]:
        info = json.loads(self.ask("info", "--format", "{{json .}}", timeout=timeout).text or "{}")
        problems = info.get("ServerErrors") or []
        if problems or not info.get("ServerVersion"):  # some versions end with 0 all the same
            said = " ".join(problems)
            raise EngineError(classify(said) if said else "down", essence(said), self.argv[-1])
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


def parse_info(info: Dict[str, Any]) -> Dict[str, Any]:
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


def has_toolkit(info: Dict[str, Any]) -> bool:
    """Whether containers can be given GPUs, as far as can be seen from here."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return True
    if any(device.get("ID", "").startswith("nvidia.com/gpu") for device in info.get("DiscoveredDevices") or []):
        return True
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin", "/usr/sbin"])
    return shutil.which("nvidia-container-runtime-hook", path=path) is not None

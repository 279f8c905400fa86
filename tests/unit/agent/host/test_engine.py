"""The one reader of what an engine prints, and the questions to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpurun.agent.host import engine
from gpurun.agent.host.engine import Engine

DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
SOCKET = "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock"
GPU = 'could not select device driver "" with capabilities: [[gpu]].'

# What engines from 20.10 to 28 print, as far as it was seen or is documented.
SAID = [
    (DOWN, "down"),
    ("ERROR: " + DOWN + "\nerrors pretty printing info", "down"),
    (f"Got {SOCKET}: dial unix /var/run/docker.sock: connect: permission denied", "no_right"),
    ("sudo: a password is required", "no_right"),
    (
        "You cannot remove a running container 1f. Stop the container before attempting removal or force remove",
        "running",
    ),
    (
        'cannot remove container "/g": container is running: stop the container before removing or force remove',
        "running",
    ),
    ('Conflict. The container name "/gpurun-a-1" is already in use by container "4bb".', "name_taken"),
    ("Error response from daemon: No such container: gpurun-a-1", "absent"),
    ("Error: No such object: gpurun-a-1", "absent"),
    ("Cannot kill container: x: Container 4bb is not running", "not_running"),
    ("manifest for pytorch/pytorch:9 not found: manifest unknown: manifest unknown", "image_absent"),
    ("pull access denied for nope, repository does not exist or may require 'docker login'", "image_absent"),
    ("pull access denied for x, repository does not exist ...: denied: requested access", "image_absent"),
    ('failed to resolve reference "docker.io/library/nope:1": not found', "image_absent"),
    ("unauthorized: authentication required", "unauthorized"),
    ("Head https://ghcr.io/v2/x/manifests/1: denied: denied", "unauthorized"),
    ("toomanyrequests: You have reached your pull rate limit.", "rate_limit"),
    ("invalid reference format: repository name must be lowercase", "bad_reference"),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", "platform"),
    ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "no_space"),
    ("failed to register layer: write /x: no space left on device", "no_space"),
    ('Get "https://registry-1.docker.io/v2/": net/http: TLS handshake timeout', "network"),
    ("dial tcp: lookup registry-1.docker.io: no such host", "network"),
    ("dial tcp: lookup x on 1.1.1.1:53: server misbehaving", "network"),
    ("error pulling image: read tcp 1.2.3.4:443: connection reset by peer", "network"),
    ('failed to copy: httpReadSeeker: failed open: Get "https://x": EOF', "network"),
    (f"Error response from daemon: {GPU}", "gpu"),
    ("nvidia-container-cli: initialization error: nvml error: driver not loaded", "gpu"),
    ('invalid mount config for type "bind": bind source path does not exist: /data/x', "mount"),
    ("Range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available", "limit"),
    ("error setting rlimits for ready process: error setting rlimit type 8: operation not permitted", "rlimit"),
    ('exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown', "no_program"),
    ("something that nobody has met", "unknown"),
]


@pytest.mark.parametrize(("said", "kind"), SAID)
def test_what_an_engine_says_has_one_meaning(said: str, kind: str) -> None:
    assert engine.classify(said) == kind


CAPTURED = Path(__file__).parents[3] / "data/engine/said"


@pytest.mark.parametrize("file", sorted(CAPTURED.glob("*/*.txt")), ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_what_a_real_engine_said_has_the_meaning_of_its_folder(file: Path) -> None:
    """Printed by clients of these versions, whose engine was killed, stopped, or healthy."""
    assert engine.classify(file.read_text()) == file.parent.name


def test_every_meaning_has_a_message_or_is_handled_by_its_asker() -> None:
    for kind, _ in engine._MEANINGS:
        handled = kind in ("absent", "name_taken", "not_running", "rlimit")
        assert handled or kind in engine._MESSAGES


@pytest.mark.parametrize(
    ("said", "essence"),
    [
        (f"Error response from daemon: {GPU}\nError: failed to start containers: gpurun-a-1", GPU),
        ("Step 3/4\n---> Running\nERROR: failed to solve: boom\n", "failed to solve: boom"),
        ("docker: Error response from daemon: boom.\nSee 'docker run --help'.", "boom."),
        ("progress\rmore\rlast", "last"),
        ("", ""),
    ],
)
def test_the_line_that_says_what_happened(said: str, essence: str) -> None:
    assert engine.essence(said) == essence


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["name=seccomp,profile=builtin"], (False, False, False)),
        (["name=apparmor", "name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"], (True, False, False)),
        (["name=seccomp,profile=default", "name=selinux", "name=userns"], (False, True, True)),
        (None, (False, False, False)),
    ],
)
def test_what_an_engine_is(options: list[str] | None, facts: tuple[bool, bool, bool]) -> None:
    found = engine.parse_info({"ServerVersion": "28.2.2", "SecurityOptions": options})
    assert (found["rootless"], found["userns"], found["selinux"]) == facts
    assert found["version"] == "28.2.2"


def test_gpus_can_be_given_by_a_runtime_or_by_cdi() -> None:
    assert engine.has_toolkit({"Runtimes": {"nvidia": {}, "runc": {}}})
    assert engine.has_toolkit({"DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]})


def test_an_engine_under_sudo_is_not_ours_to_kill() -> None:
    assert Engine(["docker"]).can_be_killed
    assert not Engine(["sudo", "-n", "docker"]).can_be_killed
    assert Engine(["sudo", "-n", "docker"]).command("ps", "-a") == ["sudo", "-n", "docker", "ps", "-a"]

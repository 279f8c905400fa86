"""Start runs that are services and not trainings: TensorBoard, Jupyter, a session for a shell, a check of the GPUs.

A job with `service` = {"kind", "title", "idle", "run"} has no command of its own: it runs the programs in `serve/`,
which are copied to its ro/. `idle` is in seconds; `run` names the one run of a TensorBoard, or is None.
"""

from __future__ import annotations

import glob
import os
import secrets
from typing import TYPE_CHECKING, List, Optional, Protocol, Sequence

from .. import vocabulary as words
from ..files import write_atomically, write_json
from ..paths import HostPaths, RunPaths
from ..state import jobs, journal
from . import boards, notebooks, secret_files, sockets

if TYPE_CHECKING:
    from ..schema.job import Job

PROGRAMS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "serve")
TOKEN_BYTES = 16
_TOOLS = {
    words.TENSORBOARD: ("tensorboard>=2.18", "werkzeug>=2.2"),
    words.JUPYTER: ("jupyterlab>=4.6.2", "jupyter-server>=2.20.0", "ipykernel"),
}
RELAY = words.SERVE + "/relay.py"


def kind(job: Job) -> Optional[str]:
    """Return one of words.SERVICES, or None for a job."""
    service = job.get("service")
    return str(service["kind"]) if service else None


def command(job: Job, ro: str) -> List[str]:
    """Return the command of the job; `ro` is the path of the run's ro/ inside the job."""
    service = kind(job)
    if service is None:
        notebook = job.get("notebook")
        return notebooks.command(notebook, job["args"], ro) if notebook else list(job["command"])
    return ["python", "%s/%s/%s_service.py" % (ro, words.SERVE, service)]


def tools(job: Job) -> List[str]:
    """Return the requirement lines of a service, for an image that is not gpurun's, or for the host's own Python."""
    needed = list(_TOOLS.get(kind(job) or "", ()))
    if not needed:
        return []
    has_them = job["image"] is None and not job.get("dockerfile") and job["host"]["runtime"] == "docker"
    return [] if has_them else needed


def holder(job: Job, ro: str, command: Sequence[str]) -> List[str]:
    """Return the program that a shell session's commands start with: it keeps the session open and becomes the command.

    Empty for other runs.
    """
    if kind(job) != words.SHELL:
        return []
    return ["python", "%s/%s/attach.py" % (ro, words.SERVE), *(["--record"] if command else [])]


class Places(Protocol):
    """Name the paths of the job's folders; see runtimes/wrapper.py."""

    @property
    def workspace(self) -> str: ...
    @property
    def sockets(self) -> str: ...
    @property
    def secrets(self) -> str: ...
    @property
    def board(self) -> str: ...


def lay_out(run: RunPaths, job: Job, places: Places) -> None:
    """Write the service's programs and settings into the run's ro/."""
    service = job.get("service")
    if service is None:
        return
    sockets.make(run, job)
    copy_programs(run)
    settings = {
        **service,
        "project": job["project"]["name"],
        "workspace": places.workspace,
        "sockets": places.sockets,
        "board": places.board,
        "gpus": len(journal.fold(run).gpus),
        "container": job["host"]["runtime"] == "docker",
        "token_file": "%s/%s" % (places.secrets, words.TOKEN_FILE),
    }
    write_json(os.path.join(run.serve, "service.json"), settings)
    if kind(job) == words.TENSORBOARD:
        os.makedirs(run.board, exist_ok=True)
    secret_files.make_folder(run)
    if kind(job) == words.JUPYTER and not os.path.exists(run.token):
        write_atomically(run.token, secrets.token_hex(TOKEN_BYTES).encode(), 0o600)


def copy_programs(run: RunPaths) -> None:
    """Copy serve/ into the run's ro/, where its container sees it."""
    os.makedirs(run.serve, exist_ok=True)
    for program in glob.glob(os.path.join(PROGRAMS, "*.py")):
        target = os.path.join(run.serve, os.path.basename(program))
        with open(program, "rb") as file:
            data = file.read()
        if not _has_content(
            target, data
        ):  # a tunnel copies them at each reconnect, and must not end because the disk is full
            write_atomically(target, data)


def _has_content(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == data
    except FileNotFoundError:
        return False


def token(run: RunPaths) -> Optional[str]:
    """Return the secret that Jupyter requires, or None when this run has none."""
    for path in (run.token, run.old_token):
        try:
            with open(path) as file:
                return file.read()
        except FileNotFoundError:
            continue
    return None


def wipe(run: RunPaths) -> None:
    """Remove the run's sockets and TensorBoard files, at its end. `secret_files.wipe` removes its secrets."""
    sockets.remove(run)
    boards.clear(run)


def earlier(host: HostPaths, run: RunPaths, job: Job) -> Optional[RunPaths]:
    """Return the newest ended session of the same person, kind and project that still has its workspace."""
    sessions = []
    for other in host.all_runs():
        try:
            other_job = jobs.read_or_empty(other)
        except (OSError, TypeError, ValueError):  # an unreadable run does not stop the search
            continue
        same = kind(other_job) == kind(job) and other_job.get("project", {}).get("name") == job["project"]["name"]
        same = same and other_job.get("owner") == job["owner"]  # several people may share an account of the host
        same_host = other_job.get("host", {}).get("id") == job["host"]["id"]
        if other.id != run.id and same and same_host and os.path.exists(other.exit) and os.path.isdir(other.workspace):
            sessions.append((other_job.get("created", 0.0), other.id, other))
    return max(sessions)[2] if sessions else None


def went_on_in(run: RunPaths) -> Optional[str]:
    """Return the later session that now has this session's workspace, or None."""
    return next((str(event["went_on"]) for event in reversed(journal.read(run)) if event.get("went_on")), None)

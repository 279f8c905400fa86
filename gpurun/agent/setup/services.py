"""Runs that are no training: TensorBoard, Jupyter, a session for a shell, a check of the GPUs. What starts them lies in
their ro/.

A job with `service` = {"kind", "title", "idle", "run"} has no command of its own: the programs in `serve/` are it. `idle`
is in seconds; `run` names the one run that a TensorBoard is about, or is None.
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
    """One of words.SERVICES, or None for a job."""
    service = job.get("service")
    return str(service["kind"]) if service else None


def command(job: Job, ro: str) -> List[str]:
    """What the job runs; `ro` is where it sees the run's ro/."""
    service = kind(job)
    if service is None:
        notebook = job.get("notebook")
        return notebooks.command(notebook, job["args"], ro) if notebook else list(job["command"])
    return ["python", "%s/%s/%s_service.py" % (ro, words.SERVE, service)]


def tools(job: Job) -> List[str]:
    """What a service needs in an image that is not gpurun's, or in the host's own Python: requirement lines."""
    needed = list(_TOOLS.get(kind(job) or "", ()))
    if not needed:
        return []
    has_them = job["image"] is None and not job.get("dockerfile") and job["host"]["runtime"] == "docker"
    return [] if has_them else needed


def holder(job: Job, ro: str, command: Sequence[str]) -> List[str]:
    """What starts a shell, or `command`, and holds the session open that the run is; nothing beside other runs.

    A session that is begun for a command ends with the command's exit code.
    """
    if kind(job) != words.SHELL:
        return []
    return ["python", "%s/%s/attach.py" % (ro, words.SERVE), *(["--record"] if command else [])]


class Places(Protocol):
    """Where the job finds its things; see runtimes/wrapper.py."""

    @property
    def workspace(self) -> str: ...
    @property
    def sockets(self) -> str: ...
    @property
    def secrets(self) -> str: ...
    @property
    def board(self) -> str: ...


def lay_out(run: RunPaths, job: Job, places: Places) -> None:
    """Put the programs and what they are told into the run's ro/."""
    service = job.get("service")
    if service is None:
        return
    sockets.make(run, job)
    copy_programs(run)
    told = {
        **service,
        "project": job["project"]["name"],
        "workspace": places.workspace,
        "sockets": places.sockets,
        "board": places.board,
        "gpus": len(journal.fold(run).gpus),
        "container": job["host"]["runtime"] == "docker",
        "token_file": "%s/%s" % (places.secrets, words.TOKEN_FILE),
    }
    write_json(os.path.join(run.serve, "service.json"), told)
    if kind(job) == words.TENSORBOARD:
        os.makedirs(run.board, exist_ok=True)
    secret_files.make_folder(run)
    if kind(job) == words.JUPYTER and not os.path.exists(run.token):
        write_atomically(run.token, secrets.token_hex(TOKEN_BYTES).encode(), 0o600)


def copy_programs(run: RunPaths) -> None:
    """serve/ into the run's ro/, where its container sees it."""
    os.makedirs(run.serve, exist_ok=True)
    for program in glob.glob(os.path.join(PROGRAMS, "*.py")):
        there = os.path.join(run.serve, os.path.basename(program))
        with open(program, "rb") as file:
            data = file.read()
        if not _holds(there, data):  # a tunnel asks for them at each break, and is not to end because the disk is full
            write_atomically(there, data)


def _holds(path: str, data: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read() == data
    except FileNotFoundError:
        return False


def token(run: RunPaths) -> Optional[str]:
    """The secret that Jupyter asks for; None when this run has none."""
    for path in (run.token, run.old_token):
        try:
            with open(path) as file:
                return file.read()
        except FileNotFoundError:
            continue
    return None


def wipe(run: RunPaths) -> None:
    """At the run's end: its sockets, and what a TensorBoard was shown. Secrets go with `secret_files.wipe`."""
    sockets.remove(run)
    boards.clear(run)


def earlier(host: HostPaths, run: RunPaths, job: Job) -> Optional[RunPaths]:
    """The newest ended session of the same person, kind and project that still has its workspace."""
    found = []
    for other in host.all_runs():
        try:
            told = jobs.read_or_empty(other)
        except (OSError, TypeError, ValueError):  # one that cannot be read takes no session along
            continue
        same = kind(told) == kind(job) and told.get("project", {}).get("name") == job["project"]["name"]
        same = same and told.get("owner") == job["owner"]  # several people may share an account of the host
        ours = told.get("host", {}).get("id") == job["host"]["id"]
        if other.id != run.id and same and ours and os.path.exists(other.exit) and os.path.isdir(other.workspace):
            found.append((told.get("created", 0.0), other.id, other))
    return max(found)[2] if found else None


def went_on_in(run: RunPaths) -> Optional[str]:
    """The later session that has this one's workspace now; None for all other runs."""
    return next((str(event["went_on"]) for event in reversed(journal.read(run)) if event.get("went_on")), None)

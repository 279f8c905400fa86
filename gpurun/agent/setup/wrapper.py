"""What lies in a run's ro/ and starts the job: the wrapper, the environment it sets, the user's secrets.

Values go through a file that the wrapper reads, never through argv or the engine's own `--env`: both can be read by others
(`ps`, `docker inspect`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, Iterator, List, Mapping, Optional, Sequence

from .. import error_codes
from .. import vocabulary as words
from ..errors import AgentError, RunFailed
from ..files import opened_below, remove, write_atomically
from ..paths import RunPaths
from . import secret_files, sockets

if TYPE_CHECKING:
    from ..schema.job import AttemptJob, Job, Mount

# Exit code of a wrapper whose attempt was started before (Linux: EALREADY). The job was not run.
STARTED_BEFORE = 114

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wrapper.sh")


@dataclass(frozen=True)
class Places:
    """Where a job finds its things: other paths inside a container than on the host."""

    workspace: str
    out: str
    ro: str
    cache: str
    data: str
    sockets: str
    secrets: str
    board: str

    @property
    def wrapper(self) -> str:
        return self.ro + "/" + words.WRAPPER

    @property
    def log(self) -> str:
        return self.out + "/" + words.LOG_FILE


IN_CONTAINER = Places(
    words.WORKSPACE_MOUNT,
    words.OUT_MOUNT,
    words.RO_MOUNT,
    words.CACHE_MOUNT,
    words.DATA_MOUNT,
    words.OUT_MOUNT + "/" + words.SOCKETS,
    words.SECRETS_MOUNT,
    words.BOARD_MOUNT,
)


def on_host(run: RunPaths, project_name: str) -> Places:
    cache, data = run.host.job_cache, run.host.data(project_name)
    return Places(run.workspace, run.out, run.ro, cache, data, sockets.folder(run), run.secrets, run.board)


def token_label(job: Job) -> str:
    """The run's token, without telling it: all users of an engine can read labels."""
    return hashlib.sha256(job["token"].encode()).hexdigest()[:16]


def settings(places: Places, user: str, job: Job) -> Dict[str, str]:
    """What a job finds set unless the user sets it otherwise. Caches lie outside the workspace, which is fetched."""
    return {
        "HOME": places.cache + "/home",
        "USER": user,
        "LOGNAME": user,
        "PYTHONUNBUFFERED": "1",
        "XDG_CACHE_HOME": places.cache + "/xdg",
        "TORCH_HOME": places.cache + "/torch",
        "HF_HOME": places.cache + "/huggingface",
        "PIP_CACHE_DIR": places.cache + "/pip",
        "PYTHONPYCACHEPREFIX": places.cache + "/bytecode",
        # The file system of the checkpoints: Lightning saves through TMPDIR, and copies when a rename cannot do it.
        "TMPDIR": places.workspace + "/" + words.TMP_IN_WORKSPACE,
        # One run there for all attempts of one run here. Ids are short: the token tells two of a year from one another.
        "WANDB_RUN_ID": "%s-%s" % (job["id"], token_label(job)[:6]),
        "WANDB_RESUME": "allow",
    }


def last_settings(places: Places, job: AttemptJob) -> Dict[str, str]:
    """What is set after the user's own variables."""
    return {
        "GPURUN_RUN_ID": job["id"],
        "GPURUN_RUN_NAME": job["name"],
        "GPURUN_ATTEMPT": str(job["attempt"]),
        **({"GPURUN_RESUME": job["resume"]} if job["resume"] else {}),
        "GPURUN_DATA": _data(places, job),
        "GPURUN_PROJECT_DATA": places.data,
        "GPURUN_OUT": places.out,
        "GPURUN_WORKSPACE": places.workspace,
    }


def first_data(job: Job) -> Optional[Mount]:
    """The mount of the data that stands in place of the project's own folder; None where the job names none."""
    name = job.get("data")
    return next((mount for mount in job.get("mounts") or () if name and mount.get("name") == name), None)


def _data(places: Places, job: Job) -> str:
    chosen = first_data(job)
    if chosen is None:
        return places.data
    return str(chosen["target"]) if places.workspace == words.WORKSPACE_MOUNT else os.path.expanduser(chosen["source"])


def exports(values: Mapping[str, str]) -> bytes:
    """Shell text that sets these; values are any text, with surrogate escapes for bytes that are no UTF-8.

    Raises AgentError `env` for a name that no shell can set, or a value with a NUL.
    """
    lines = []
    for name, value in values.items():
        if not _NAME.match(name) or "\0" in value:
            raise AgentError(
                error_codes.ENV,
                "%r cannot be a variable of the job's environment" % name,
                "names are letters, digits and _, and values hold no NUL",
            )
        lines.append("export %s=%s\n" % (name, shlex.quote(value)))
    return "".join(lines).encode("utf-8", "surrogateescape")


def write_env(run: RunPaths, values: Mapping[str, str]) -> None:
    """The user's own variables, readable by the job alone; whoever records the run's end deletes the file."""
    secret_files.make_folder(run)
    write_atomically(run.env, exports(values), 0o600)


def write(run: RunPaths, places: Places, first: Mapping[str, str], last: Mapping[str, str]) -> None:
    """Write the wrapper and its settings into the run's ro/, and arm it: it starts one attempt, once."""
    os.makedirs(run.ro, exist_ok=True)
    with open(SOURCE, "rb") as file:
        write_atomically(run.wrapper, file.read(), 0o755)
    secrets = "gpurun_secrets=%s\n" % shlex.quote(places.secrets)  # for the wrapper alone: it is not exported
    write_atomically(run.settings, os.fsencode(secrets) + exports(first))
    write_atomically(run.settings + ".last", exports(last))
    open(run.armed, "wb").close()  # not flushed: behind a power cut no job starts by it


def disarm(run: RunPaths) -> None:
    """Make the wrapper refuse to start the job from now on: whoever records the run's end does it."""
    remove(run.armed)


def was_started(run: RunPaths, job: AttemptJob) -> bool:
    """Return whether the wrapper has started the present attempt before, whatever has become of it."""
    return os.path.lexists(run.claim(job["attempt"]))


def start(places: Places, command: Sequence[str]) -> List[str]:
    """argv of the job itself."""
    return ["/bin/sh", places.wrapper, places.log, *command]


# bash where there is one: an image made from Alpine or a slim Debian may have sh alone.
_ANY_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; fi; exec sh"


def shell(places: Places, command: Sequence[str], holder: Sequence[str] = ()) -> List[str]:
    """argv of a shell, or of `command`, in the job's environment and workspace; `holder` is the program that becomes it."""
    return ["/bin/sh", places.wrapper, "-", *holder, *(command or ["/bin/sh", "-c", _ANY_SHELL])]


@contextmanager
def telling_the_run() -> Iterator[None]:
    """What the disk refuses while a job is started is the run's failure, told by name. Raises RunFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = "gpurun prune --fetched, or name a roomier root for the host"
            raise RunFailed("disk", "the host's disk is full", next_step) from error
        raise RunFailed("start", "the job could not be started: %s" % error) from error


def make_folders(run: RunPaths, project_name: str) -> None:
    """What is mounted must be there first, and be ours: an engine would make it as root."""
    for folder in (run.ro, run.out, run.workspace, run.host.job_cache, run.host.data(project_name)):
        os.makedirs(folder, exist_ok=True)
    # A job may have put a link in the place of these.
    for top, within in ((run.workspace, words.TMP_IN_WORKSPACE), (run.host.job_cache, os.path.basename(run.host.home))):
        with opened_below(top, within):
            pass
    secret_files.make_folder(run)
    secret_files.move_old(run)

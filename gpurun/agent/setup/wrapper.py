"""Write the files in a run's ro/ that start the job: the wrapper, its settings, the user's variables.

Values are passed in a file that the wrapper reads, never in argv or by the engine's `--env`: others can read both
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
    """List where a job finds its folders: the paths inside a container differ from those on the host."""

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
    """Return a hash of the run's token that does not reveal it: all users of an engine can read labels."""
    return hashlib.sha256(job["token"].encode()).hexdigest()[:16]


def settings(places: Places, user: str, job: Job) -> Dict[str, str]:
    """Return the variables that are set for a job before the user's own.

    Caches are outside the workspace, which is fetched.
    """
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
        # On the file system of the checkpoints: Lightning saves through TMPDIR, and copies when it cannot rename.
        "TMPDIR": places.workspace + "/" + words.TMP_IN_WORKSPACE,
        # One W&B run for all attempts of one run here. Ids are short: the token distinguishes equal ids of different
        # years.
        "WANDB_RUN_ID": "%s-%s" % (job["id"], token_label(job)[:6]),
        "WANDB_RESUME": "allow",
    }


def last_settings(places: Places, job: AttemptJob) -> Dict[str, str]:
    """Return the variables that are set after the user's own."""
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
    """Return the mount that replaces the project's own data folder, or None when the job names none."""
    name = job.get("data")
    return next((mount for mount in job.get("mounts") or () if name and mount.get("name") == name), None)


def _data(places: Places, job: Job) -> str:
    chosen = first_data(job)
    if chosen is None:
        return places.data
    return str(chosen["target"]) if places.workspace == words.WORKSPACE_MOUNT else os.path.expanduser(chosen["source"])


def exports(values: Mapping[str, str]) -> bytes:
    """Return shell text that sets these variables.

    Values are any text, with surrogate escapes for bytes that are not UTF-8.

    Raises AgentError `env` for a name that no shell can set, or a value with a NUL.
    """
    lines = []
    for name, value in values.items():
        if not _NAME.match(name) or "\0" in value:
            raise AgentError(
                error_codes.ENV,
                "%r cannot be a variable of the job's environment" % name,
                "use letters, digits and _ in names, and no NUL in values",
            )
        lines.append("export %s=%s\n" % (name, shlex.quote(value)))
    return "".join(lines).encode("utf-8", "surrogateescape")


def write_env(run: RunPaths, values: Mapping[str, str]) -> None:
    """Write the user's own variables, readable only by the job.

    The process that records the run's end deletes the file.
    """
    secret_files.make_folder(run)
    write_atomically(run.env, exports(values), 0o600)


def write(run: RunPaths, places: Places, first: Mapping[str, str], last: Mapping[str, str]) -> None:
    """Write the wrapper and its settings into the run's ro/, and arm it: it starts one attempt, once."""
    os.makedirs(run.ro, exist_ok=True)
    with open(SOURCE, "rb") as file:
        write_atomically(run.wrapper, file.read(), 0o755)
    secrets = "gpurun_secrets=%s\n" % shlex.quote(places.secrets)  # only for the wrapper: it is not exported
    write_atomically(run.settings, os.fsencode(secrets) + exports(first))
    write_atomically(run.settings + ".last", exports(last))
    open(run.armed, "wb").close()  # not flushed: after a power cut it must not start a job


def disarm(run: RunPaths) -> None:
    """Make the wrapper refuse to start the job from now on. The process that records the run's end calls this."""
    remove(run.armed)


def was_started(run: RunPaths, job: AttemptJob) -> bool:
    """Return whether the wrapper has started the present attempt before, however that ended."""
    return os.path.lexists(run.claim(job["attempt"]))


def start(places: Places, command: Sequence[str]) -> List[str]:
    """Return argv of the job itself."""
    return ["/bin/sh", places.wrapper, places.log, *command]


# bash when the image has it: an image based on Alpine or a slim Debian may have only sh.
_ANY_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash; fi; exec sh"


def shell(places: Places, command: Sequence[str], holder: Sequence[str] = ()) -> List[str]:
    """Return argv of a shell, or of `command`, in the job's environment and workspace.

    `holder` is the program that runs before it and becomes it.
    """
    return ["/bin/sh", places.wrapper, "-", *holder, *(command or ["/bin/sh", "-c", _ANY_SHELL])]


@contextmanager
def disk_errors_as_failure() -> Iterator[None]:
    """Convert what the disk refuses while a job is started into a failure of the run. Raises RunFailed."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = "gpurun prune --fetched, or name a roomier root for the host"
            raise RunFailed("disk", "the host's disk is full", next_step) from error
        raise RunFailed("start", "the job could not be started: %s" % error) from error


def make_folders(run: RunPaths, project_name: str) -> None:
    """Make the folders that are mounted, as this user: an engine would make a missing folder as root."""
    for folder in (run.ro, run.out, run.workspace, run.host.job_cache, run.host.data(project_name)):
        os.makedirs(folder, exist_ok=True)
    # A job may have replaced these by links.
    for top, within in ((run.workspace, words.TMP_IN_WORKSPACE), (run.host.job_cache, os.path.basename(run.host.home))):
        with opened_below(top, within):
            pass
    secret_files.make_folder(run)
    secret_files.move_old(run)

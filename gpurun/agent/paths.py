"""Make every path below `~/.gpurun` on a host. No other module joins these names; the laptop uses this module too."""

import os
import re
from dataclasses import dataclass
from typing import Iterator, List, Optional

from . import vocabulary as words

# Prefixes of the names of runs while they are made, or removed.
HALF_RUN, REMOVED_RUN = ".new-", ".gone-"


@dataclass(frozen=True)
class RunPaths:
    """Make the paths of one run's directory. docs/design.md lists the files and who writes them."""

    root: str  # absolute, .../runs/<run-id>
    attempt: Optional[int] = None  # an earlier attempt, whose files were moved aside; None: the present one

    @classmethod
    def of_snapshot(cls, snapshot: str) -> "RunPaths":
        """Return the run that `prepare` answered this snapshot for."""
        return cls(os.path.dirname(snapshot))

    @property
    def id(self) -> str:
        return os.path.basename(self.root)

    def _in(self, *names: str) -> str:
        return os.path.join(self.root, *names)

    def of_attempt(self, number: int) -> "RunPaths":
        """Return the same run, with the files of an earlier attempt where they were moved to."""
        return RunPaths(self.root, number)

    @property
    def aside(self) -> str:
        return self._in("attempts", str(self.attempt))

    def _own(self, *names: str) -> str:
        """Return the path of a file that each attempt has for itself."""
        return self._in(*names) if self.attempt is None else os.path.join(self.aside, names[-1])

    @property
    def host(self) -> "HostPaths":
        return HostPaths(os.path.dirname(os.path.dirname(self.root)))

    @property
    def job(self) -> str:
        return self._in("job.json")

    @property
    def adopted(self) -> str:
        return self._in("adopted.json")

    @property
    def life(self) -> str:
        return self._in("life")

    @property
    def events(self) -> str:
        return self._in("events.jsonl")

    @property
    def exit(self) -> str:
        return self._own("exit.json")

    @property
    def snapshot(self) -> str:
        return self._in("snapshot")

    @property
    def snapshot_before(self) -> str:
        """Return the folder with what arrived of a project that changed while it was sent: the next upload links to it."""
        return self._in("snapshot.before")

    @property
    def partial(self) -> str:
        """Return rsync's folder for incomplete files.

        It is outside the snapshot, because it is not part of the project.
        """
        return self._in("partial")

    @property
    def ro(self) -> str:
        return self._in("ro")

    @property
    def secrets(self) -> str:
        """Return the folder of what only this run's job may read.

        It is outside runs/, because other jobs see parts of runs/.
        """
        return os.path.join(self.host.secrets, self.id)

    @property
    def env(self) -> str:
        return os.path.join(self.secrets, "env")

    @property
    def old_env(self) -> str:
        """Return where an older gpurun stored `env`."""
        return self._in("ro", "env")

    @property
    def wrapper(self) -> str:
        return self._in("ro", words.WRAPPER)

    @property
    def settings(self) -> str:
        return self._in("ro", words.SETTINGS)

    @property
    def armed(self) -> str:
        """Return the file that exists while the wrapper may start the job."""
        return self._in("ro", "armed")

    def claim(self, attempt: int) -> str:
        """Return the file that only the wrapper makes, before it starts the job of this attempt."""
        return self._in("out", "started-%d" % attempt)

    @property
    def plugin(self) -> str:
        return self._in("ro", words.PLUGIN)

    @property
    def serve(self) -> str:
        """Return the folder with the programs and settings of a service."""
        return self._in("ro", words.SERVE)

    @property
    def notebook(self) -> str:
        """Return the folder with the program of a notebook and the modules of gpurun that it imports."""
        return self._in("ro", words.NOTEBOOK)

    @property
    def token(self) -> str:
        return os.path.join(self.secrets, words.TOKEN_FILE)

    @property
    def old_token(self) -> str:
        """Return where an older gpurun stored `token`."""
        return self._in("ro", words.SERVE, "token")

    @property
    def board(self) -> str:
        """Return the folder that a TensorBoard reads: the event files of its runs."""
        return self._in("board")

    @property
    def passwd(self) -> str:
        return self._in("ro", "passwd")

    @property
    def group(self) -> str:
        return self._in("ro", "group")

    @property
    def prepared(self) -> str:
        return self._in("prepared.json")

    @property
    def environment(self) -> str:
        return self._in("environment.json")

    @property
    def layer(self) -> str:
        return self._in("layer.json")

    @property
    def out(self) -> str:
        return self._in("out")

    @property
    def log(self) -> str:
        return self._own("out", words.LOG_FILE)

    @property
    def stop_file(self) -> str:
        return self._in("out", words.STOP_FILE)

    @property
    def progress(self) -> str:
        return self._in("out", words.PROGRESS_FILE)

    @property
    def ledger(self) -> str:
        return self._in("out", words.LEDGER_FILE)

    @property
    def ledger_cache(self) -> str:
        """Return the cache of a long ledger."""
        return self._in("ledger.cache")

    @property
    def summary(self) -> str:
        return self._in("checkpoints.json")

    @property
    def saving(self) -> str:
        return self._in("out", words.SAVING_FILE)

    @property
    def stopped(self) -> str:
        return self._own("out", words.STOPPED_FILE)

    @property
    def sockets(self) -> str:
        return self._in("out", words.SOCKETS)

    @property
    def workspace(self) -> str:
        return self._in("workspace")

    @property
    def tmp(self) -> str:
        return self._in("workspace", words.TMP_IN_WORKSPACE)

    @property
    def staged(self) -> str:
        return self._in("workspace", words.RESUME_IN_WORKSPACE)

    @property
    def prepare_log(self) -> str:
        return self._own("prepare.log")

    @property
    def log_times(self) -> str:
        return self._own("log.times")

    @property
    def usage(self) -> str:
        return self._in("usage.json")

    @property
    def outside(self) -> str:
        return self._in("outside")

    @property
    def gathered(self) -> str:
        """Return the file with the last attempt whose container has no file that is missing in `outside`."""
        return self._in("gathered.json")

    @property
    def carried(self) -> str:
        return self._in("carried")

    @property
    def keeper(self) -> str:
        return self._own("keeper.json")

    @property
    def keeper_control(self) -> str:
        return self._own("keeper.ctl")

    @property
    def fetched(self) -> str:
        return self._own("fetched.json")

    @property
    def hooks(self) -> str:
        return self._in("hooks.json")

    @property
    def hooks_log(self) -> str:
        return self._in("hooks.log")

    @property
    def owed(self) -> str:
        """Return the file that exists while `on_end` has not run to its end."""
        return self._in("on_end.owed")

    @property
    def upload(self) -> str:
        """Return the file that records how much of an upload had arrived at the last check."""
        return self._in("upload.json")

    @property
    def reserve(self) -> str:
        return self._in("reserve")

    @property
    def supervisor_log(self) -> str:
        return self._in("supervisor.log")


@dataclass(frozen=True)
class HostPaths:
    """Make the paths of `~/.gpurun`, or of `ROOT/.gpurun` on the disk that the host's profile names."""

    root: str  # absolute
    beside: Optional[str] = None  # where gpurun 0.1.0 has runs for the same root name: they are listed too

    @classmethod
    def of(cls, root: Optional[str]) -> "HostPaths":
        """Return where gpurun's files are for the `root` of a profile.

        A folder that the user names may hold the user's own files, so gpurun uses only `.gpurun` in it. gpurun 0.1.0
        used the folder itself: its files stay where they are, even when they were made after the files of a newer
        version.
        """
        named = cls(os.path.abspath(os.path.expanduser(root or "~/" + words.HOME)))
        if named.is_own:
            return named
        own = cls(os.path.join(named.root, words.HOME))
        default = os.path.expanduser("~/" + words.HOME)
        if not named._has_id():
            return own
        return cls(own.root, named.root) if own.root != default and own._has_id() else named

    @property
    def roots(self) -> "List[HostPaths]":
        """Return this root, and the root of gpurun 0.1.0 beside it, which gets nothing new."""
        return [self] if self.beside is None else [self, HostPaths(self.beside)]

    @property
    def is_own(self) -> bool:
        """Return whether this whole folder belongs to gpurun: its name shows it, also when a link points to the folder."""
        return os.path.basename(os.path.realpath(self.root)) == words.HOME

    def _has_id(self) -> bool:
        try:
            names = os.listdir(self.root)
        except OSError:
            return False
        return any(re.fullmatch(words.HOST_ID_FILE, name) for name in names)

    @property
    def runs(self) -> str:
        return os.path.join(self.root, "runs")

    @property
    def secrets(self) -> str:
        return os.path.join(self.root, "secrets")

    @property
    def cache(self) -> str:
        return os.path.join(self.root, "cache")

    @property
    def facts(self) -> str:
        return os.path.join(self.root, "cache", "facts.json")

    @property
    def environments(self) -> str:
        return os.path.join(self.root, "cache", "environments")

    @property
    def job_cache(self) -> str:
        """Return the jobs' own part of the cache. gpurun itself trusts only files outside of it."""
        return os.path.join(self.root, "cache", "jobs")

    @property
    def home(self) -> str:
        return os.path.join(self.job_cache, "home")

    def environment(self, key: str) -> str:
        """Return the folder of a Python environment of the `bare` runtime, by the hash of its content."""
        return os.path.join(self.environments, key)

    def layer(self, key: str) -> str:
        """Return the record of an image with a project's dependencies, by the hash of both."""
        return os.path.join(self.root, "cache", "layers", key + ".json")

    def about(self, key: str) -> str:
        """Return the record of what an image or an environment has: torch, packages and so on."""
        return os.path.join(self.root, "cache", "about", key + ".json")

    def warm(self, key: str) -> str:
        """Return the record of how an image that was made ahead of time ended."""
        return os.path.join(self.root, "cache", "warm", key + ".json")

    def warm_log(self, key: str) -> str:
        return os.path.join(self.root, "cache", "warm", key + ".log")

    @property
    def engine_limits(self) -> str:
        return os.path.join(self.root, "cache", "engine-limits.json")

    @property
    def agents(self) -> str:
        return os.path.join(self.root, "agent")

    @property
    def host_id(self) -> str:
        return os.path.join(self.root, "host-id")

    @property
    def root_id(self) -> str:
        """Return the file with a random id, made once: it differs from every other root, also of another container."""
        return os.path.join(self.root, "root-id")

    def data(self, name: str) -> str:
        return os.path.join(self.root, "data", name)

    def push_note(self, name: str) -> str:
        """Return the file that records when the last push into a data folder began, and when the last complete push
        ended.
        """
        return os.path.join(self.root, "cache", "pushed", name + ".json")

    def snapshots(self, project_name: str) -> str:
        """Return the file that names the runs with the newest snapshots of a project."""
        return os.path.join(self.root, "cache", "snapshots", project_name + ".json")

    @property
    def revoked(self) -> str:
        """Return the folder of the request ids of cancelled moves."""
        return os.path.join(self.runs, ".revoked")

    def half_run(self, token: str) -> RunPaths:
        """Return the paths of a run that is being made: it gets its name when it is complete."""
        return RunPaths(os.path.join(self.runs, HALF_RUN + token))

    def removed_run(self, run_id: str) -> str:
        """Return where a run is moved in one step before it is removed, so that no half of a run is ever listed."""
        return os.path.join(self.runs, REMOVED_RUN + run_id)

    def run(self, run_id: str) -> RunPaths:
        run = RunPaths(os.path.join(self.runs, run_id))
        for root in self.roots[1:] if not os.path.lexists(run.root) else []:
            other = root.run(run_id)
            if os.path.exists(other.job):  # else the folder is the user's own
                return other
        return run

    def all_runs(self) -> Iterator[RunPaths]:
        """Yield every run directory, in no order."""
        try:
            names = os.listdir(self.runs)
        except FileNotFoundError:
            names = []
        for name in names:
            if re.fullmatch(words.RUN_ID, name):  # others may have put something else there
                yield self.run(name)
        for root in self.roots[1:]:
            yield from (run for run in root.all_runs() if run == self.run(run.id))

"""`leave`: take gpurun off this host. `revoke`: take one key of ours out of authorized_keys.

Request: `{revoke: mark or null, wipe: bool, keep_data: bool}`; with `wipe` also `runs`, which go, their `stamps` (see rm.py), the `data` folders that are agreed to go, and
`stays`, runs of other people, because of which agent, caches and data stay, too. Answer: `{revoked: lines taken away, removed: [run ids], freed: bytes,
data: [names that are there], left: [paths that could not be removed], shared: bool}`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import suppress
from typing import Any, Dict, List, Optional, Tuple

from .. import facts, hooks, journal, locks, origin, records, sockets, tend
from ..errors import AgentError
from ..files import write_atomically
from ..paths import HostPaths, RunPaths
from . import rm

LAST_WORDS = 10.0  # seconds
AT_ONCE = 50  # runs that one call of `rm` removes


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    done: Dict[str, Any] = {"revoked": 0, "removed": [], "freed": 0, "left": [], "shared": False}
    if request.get("wipe"):
        done.update(_wipe(host, request, _engine(host, request)))
    done["data"] = _data(host)
    if request.get("revoke"):
        done["revoked"] = revoke(os.path.expanduser("~/.ssh/authorized_keys"), request["revoke"])
    return done


def _wipe(host: HostPaths, request: Dict[str, Any], engine: Optional[List[str]]) -> Dict[str, Any]:
    agreed, stays = request["runs"], set(request.get("stays") or [])
    tend.tend(host)
    going = [run for run in host.all_runs() if run.id not in stays]
    for run in going:
        records.refuse_newer(run)
    ours = [run for run in going if origin.is_of_this_host(run)]
    live = [run.id for run in ours if journal.fold(run).live]
    if live:
        raise AgentError("live", "still live here: " + ", ".join(live), "gpurun stop " + " ".join(live), exit_code=2)
    _refuse_more([run for run in ours if run.id not in agreed])
    data = [name for name in _data(host) if name not in request.get("data", [name])]
    if data and not (stays or request.get("keep_data")):
        what = "data folders that came meanwhile: " + ", ".join(data)
        raise AgentError("more_data", what, "gpurun host leave again")
    _wait_for_supervisors(ours)
    removed, left = _remove_a_few_at_a_time([run.id for run in ours], request.get("stamps") or {}, host)
    stays = {run for run in stays if os.path.isdir(host.run(run).root)}
    if stays:  # somebody else goes on here
        return {**removed, "left": left, "shared": True}
    rest = [run for run in host.all_runs() if os.path.exists(run.job)]
    _refuse_more([run for run in rest if origin.is_of_this_host(run)])
    # A run that stays is another machine's, or may be: nobody has looked at what it wrote.
    shared = facts.machines_here(host) > 1 or bool(rest)
    if shared:  # what is left is in use by another machine
        _remove(facts.host_id_file(host), left)
    else:
        _empty(host, bool(request.get("keep_data")), left)
    _remove_locks()
    if not shared:
        _remove_images(engine)
    return {**removed, "left": left, "shared": shared}


def _remove_a_few_at_a_time(
    ids: List[str], stamps: Dict[str, Any], host: HostPaths
) -> Tuple[Dict[str, Any], List[str]]:
    """Remove these runs; return what `rm` answers of all of them, and the paths of what stays.

    A few at a time: `rm` holds the locks of all that it is asked to remove, four open files each.
    """
    removed: Dict[str, Any] = {"removed": [], "freed": 0}
    left: List[str] = []
    for at in range(0, max(len(ids), 1), AT_ONCE):  # once for none: it tries again what earlier ones had to leave
        answer = rm.answer({"runs": ids[at : at + AT_ONCE], "stamps": stamps}, host)
        removed["removed"] += answer["removed"]
        removed["freed"] += answer["freed"]
        left = [one["path"] for one in answer["left"]]  # each answer names all that stays
    return removed, left


def _refuse_more(runs: List[RunPaths]) -> None:
    if runs:
        what = "runs that came meanwhile are not fetched: " + ", ".join(run.id for run in runs)
        raise AgentError("more_runs", what, "gpurun host leave again")


def _wait_for_supervisors(runs: List[RunPaths]) -> None:
    """One whose run has ended a moment ago may still write down what it ran on."""
    until = time.monotonic() + LAST_WORDS
    while time.monotonic() < until and not all(
        locks.is_free(locks.run_lock(run.id)) and not hooks.running(run) for run in runs
    ):
        time.sleep(0.1)


def _engine(host: HostPaths, request: Dict[str, Any]) -> Optional[List[str]]:
    known = facts.host_facts(host, request.get("engine"))["engine"]
    return list(known["argv"]) if known else None


def _remove_images(engine: Optional[List[str]]) -> None:
    """Images that gpurun built, which may hold the packages of a private project. One that somebody uses stays."""
    if engine is None:
        return
    from ..engine import Engine, EngineError

    docker = Engine(engine)
    try:
        images = docker.ask(
            "images", "--filter", "reference=gpurun/*", "--format", "{{.Repository}}:{{.Tag}}"
        ).text.split()
        volumes = docker.ask("volume", "ls", "--quiet", "--filter", "name=^gpurun-").text.split()
    except EngineError:
        return
    for command in [["rmi", image] for image in images] + [["volume", "rm", volume] for volume in volumes]:
        with suppress(EngineError):
            docker.ask(*command, timeout=120.0)


def _empty(host: HostPaths, keep_data: bool, left: List[str]) -> None:
    """Remove what gpurun made in its root, which may be a folder with other things in it; and the agent that came
    home before there was a root."""
    _remove_ours(host, keep_data, left)
    first = HostPaths.of(None)
    if first.root != host.root and not any(first.all_runs()):
        _remove_ours(first, keep_data, left)


def _remove_ours(host: HostPaths, keep_data: bool, left: List[str]) -> None:
    _remove_runs(host, left)
    ours = [host.secrets, host.cache, host.agents, facts.host_id_file(host)]
    if not (keep_data and _data(host)):
        ours.append(host.data("").rstrip("/"))
    for path in ours:
        _remove(path, left)
    if os.path.isdir(host.root) and not os.listdir(host.root):
        os.rmdir(host.root)


def _remove_runs(host: HostPaths, left: List[str]) -> None:
    """Remove the folder of the runs when no run is left in it: one may have come a moment ago. Raises AgentError `more_runs`."""
    for name in os.listdir(host.runs) if os.path.isdir(host.runs) else []:
        if not os.path.exists(host.run(name).job) and os.path.join(host.runs, name) not in left:
            _remove(os.path.join(host.runs, name), left)
    try:
        os.rmdir(host.runs)
    except FileNotFoundError:
        pass
    except OSError:
        _refuse_more([run for run in host.all_runs() if os.path.exists(run.job)])


def _remove_locks() -> None:
    """Those that nobody holds: a run under another root may be live. SSH sockets of a laptop's lie beside them and stay."""
    folder = locks.folder()
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(sockets.PREFIX):  # of a run that is gone
            _remove(path, [])
        elif name.startswith(("run-", "job-", "hook-", "host-", "gather-")) and locks.is_free(path):
            os.unlink(path)
    if not os.listdir(folder):
        os.rmdir(folder)


def _data(host: HostPaths) -> List[str]:
    """The data folders with something in them; each run makes an empty one for its project."""
    try:
        names = sorted(os.listdir(host.data("")))
    except FileNotFoundError:
        return []
    return [name for name in names if not os.path.isdir(host.data(name)) or os.listdir(host.data(name))]


def _remove(path: str, left: List[str]) -> None:
    """Remove a file or a tree. What cannot be removed (a container's root has made it) is noted."""
    if os.path.isdir(path) and not os.path.islink(path):

        def note(_: Any, failed: str, __: Any) -> None:
            left.append(failed)

        if sys.version_info >= (3, 12):
            shutil.rmtree(path, onexc=note)  # novm
        else:
            shutil.rmtree(path, onerror=note)
        return
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        left.append(path)


def revoke(path: str, mark: str) -> int:
    """Take the lines away whose comment is exactly `mark`; how many there were. All others stay as they are."""
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if line.rstrip().split(b" ")[-1] != mark.encode()]
    if len(kept) < len(lines):
        write_atomically(os.path.realpath(path), b"".join(kept), os.stat(path).st_mode & 0o777)
    return len(lines) - len(kept)

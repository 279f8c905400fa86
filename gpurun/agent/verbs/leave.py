"""`leave`: take gpurun off this host. `revoke`: take one key of ours out of authorized_keys.

Request: `{revoke: mark or null, wipe: bool}`; with `wipe` also `runs`, which go, their `stamps` (see rm.py), `data`, the stamps by name of the
data folders that are agreed to go, `keep_data: bool`, and `stays`, runs of other people, because of which agent, caches and data stay, too.
Answer: `{revoked: lines taken away, removed: [run ids], freed: bytes, data: {name: {files, bytes, stamp}} of the folders that are there,
foreign: [paths beside gpurun's files that gpurun did not make], left: [{path, why}] that could not be removed, kept: [{path, why}] that was
not to be, shared: bool}`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional

from .. import error_codes, machine, uninstall
from .. import vocabulary as words
from ..errors import AgentError
from ..files import write_atomically
from ..host import facts, lock_folder, locks
from ..host.engine import Engine, EngineError
from ..lifecycle import hooks, reconcile, records, shells
from ..paths import HostPaths, RunPaths
from ..setup import sockets
from ..state import journal, origin
from . import rm

if TYPE_CHECKING:
    from ..schema.answers import LeaveAnswer
    from ..schema.files import LeftOfRun
    from ..schema.requests import LeaveRequest

LAST_WORDS = 10.0  # seconds
MOST_NAMED = 10  # runs
AT_ONCE = 50  # runs that one call of `rm` removes


class _Removed(NamedTuple):
    runs: List[str]
    freed: int  # bytes
    is_shared: bool = False  # agent and caches stay: another machine or other people use them


def answer(request: LeaveRequest, host: HostPaths) -> LeaveAnswer:
    done = _Removed([], 0)
    outcome = uninstall.Outcome()
    goes: List[HostPaths] = []
    if request.get("wipe"):
        done = _wipe(host, request, outcome)
        goes = [] if done.is_shared else _roots(host)
    key = request.get("revoke")
    revoked = revoke(os.path.expanduser("~/.ssh/authorized_keys"), key) if key else 0
    data = uninstall.data_folders(host)
    foreign = [path for root in host.roots for path in uninstall.foreign(root)]
    _name_other_runs(host, outcome)
    if goes:  # with this program: behind it nothing can be imported
        uninstall.remove_agents(goes, [one for one in _others(host) if one not in goes], outcome)
    return {
        "revoked": revoked,
        "removed": done.runs,
        "freed": done.freed,
        "shared": done.is_shared,
        "data": data,
        "foreign": foreign,
        "left": outcome.left,
        "kept": outcome.kept,
    }


def _wipe(host: HostPaths, request: LeaveRequest, outcome: uninstall.Outcome) -> _Removed:
    """Remove all but the agent. What is refused is refused before anything is removed."""
    agreed, stays = request["runs"], set(request.get("stays") or [])
    reconcile.reconcile_runs(host)
    engine = _engine(host, request)
    going = [run for run in host.all_runs() if run.id not in stays]
    for run in going:
        records.refuse_newer(run)
    ours = [run for run in going if origin.is_of_this_host(run)]
    live = [run.id for run in ours if journal.fold(run).live]
    if live:
        raise AgentError(
            error_codes.LIVE, "still live here: " + ", ".join(live), "gpurun stop " + " ".join(live), exit_code=2
        )
    _refuse_more([run for run in ours if run.id not in agreed])
    if not (stays or request.get("keep_data")):
        _refuse_other_data(host, request.get("data") or {})
    for run in ours:
        shells.refuse(run)
    _wait_for_supervisors(ours)
    removed = _remove_a_few_at_a_time([run.id for run in ours], request.get("stamps") or {}, host, outcome)
    stays = {run for run in stays if os.path.isdir(host.run(run).root)}
    if stays:  # somebody else goes on here
        return removed._replace(is_shared=True)
    rest = [run for run in host.all_runs() if os.path.exists(run.job)]
    _refuse_more([run for run in rest if origin.is_of_this_host(run)])
    # A run that stays is another machine's, or may be: nobody has looked at what it wrote.
    roots = host.roots
    shared = any(machine.machines_here(root) > 1 for root in roots) or bool(rest)
    if shared:  # what is left is in use by another machine
        for root in roots:
            uninstall.remove(machine.host_id_file(root), outcome)
    else:
        _remove_images(engine)
        _empty(host, None if request.get("keep_data") else request.get("data") or {}, outcome)
    _remove_locks(outcome)
    return removed._replace(is_shared=shared)


def _refuse_other_data(host: HostPaths, agreed: Dict[str, str]) -> None:
    """Raise AgentError when the data folders are not those that were looked at, or not as they were."""
    found = uninstall.data_folders(host)
    more = [name for name in found if name not in agreed]
    if more:
        what = "data folders that came meanwhile: " + ", ".join(more)
        raise AgentError(error_codes.MORE_DATA, what + "; nothing was removed", "look again: gpurun host leave HOST")
    changed = [name for name, seen in found.items() if seen["stamp"] != agreed[name]]
    if changed:
        what = "the data in %s has changed since it was looked at; nothing was removed" % ", ".join(changed)
        raise AgentError(
            error_codes.CHANGED_SINCE, what, "look again: gpurun host leave HOST", where=host.data(changed[0])
        )


def _remove_a_few_at_a_time(
    ids: List[str], stamps: Dict[str, Optional[str]], host: HostPaths, outcome: uninstall.Outcome
) -> _Removed:
    """Remove these runs; return what `rm` answers of all of them, without what it had to leave.

    A few at a time: `rm` holds the locks of all that it is asked to remove, four open files each.
    """
    removed: List[str] = []
    freed = 0
    left: List[LeftOfRun] = []
    for at in range(0, max(len(ids), 1), AT_ONCE):  # once for none: it tries again what earlier ones had to leave
        answer = rm.answer({"runs": ids[at : at + AT_ONCE], "stamps": stamps}, host)
        removed += answer["removed"]
        freed += answer["freed"]
        left = answer["left"]  # each answer names all that stays
    outcome.left += [{"path": one["path"], "why": one["why"]} for one in left]
    return _Removed(removed, freed)


def _refuse_more(runs: List[RunPaths]) -> None:
    if runs:
        what = "runs that came meanwhile are not fetched: " + ", ".join(run.id for run in runs)
        raise AgentError(error_codes.MORE_RUNS, what, "look again: gpurun host leave HOST")


def _wait_for_supervisors(runs: List[RunPaths]) -> None:
    """One whose run has ended a moment ago may still write down what it ran on."""
    until = time.monotonic() + LAST_WORDS
    while time.monotonic() < until and not all(
        locks.is_free(locks.run_lock(run.id)) and not hooks.running(run) for run in runs
    ):
        time.sleep(0.1)


def _engine(host: HostPaths, request: LeaveRequest) -> Optional[List[str]]:
    known = facts.host_facts(host, request.get("engine"))["engine"]
    return list(known["argv"]) if known else None


def _remove_images(engine: Optional[List[str]]) -> None:
    """Images that gpurun built, which may hold the packages of a private project. One that somebody uses stays."""
    if engine is None:
        return
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


def _roots(host: HostPaths) -> List[HostPaths]:
    """Return the folders whose agents nobody needs any more: that of the profile first."""
    return [host, *(one for one in _others(host) if _is_left(one, host))]


def _others(host: HostPaths) -> List[HostPaths]:
    """Return the other folders that may have an agent of ours: those beside the files of gpurun 0.1.0, and `~/.gpurun`, where it
    came before there was a root. Another profile may use them."""
    own = HostPaths(os.path.join(host.root, words.HOME))
    return [*([] if host.is_own else [own]), *host.roots[1:], HostPaths.of(None)]


def _name_other_runs(host: HostPaths, outcome: uninstall.Outcome) -> None:
    """Note the runs that were made before the profile had a root, or are another profile's: they are not asked about, and stay."""
    first = HostPaths.of(None)
    there = sorted(run.id for run in first.all_runs() if run.root != host.run(run.id).root)
    if there and not _is_same(first, host):
        more = " and %d more" % (len(there) - MOST_NAMED) if len(there) > MOST_NAMED else ""
        outcome.keep(first.runs, "its runs are not in the host's root: " + ", ".join(there[:MOST_NAMED]) + more)


def _is_same(first: HostPaths, host: HostPaths) -> bool:
    return os.path.realpath(first.root) == os.path.realpath(host.root)


def _is_left(first: HostPaths, host: HostPaths) -> bool:
    """Tell whether nobody uses `first` any more, which is not the root that the profile names."""
    return not _is_same(first, host) and not any(first.all_runs()) and machine.machines_here(first) <= 1


def _empty(host: HostPaths, data: Optional[Dict[str, str]], outcome: uninstall.Outcome) -> None:
    """Remove what gpurun made in its root but its agent; of the data what is as agreed, or none for None. Raises AgentError `more_runs`."""
    for root in host.roots:
        uninstall.remove_half_runs(root, outcome)
    _refuse_more([run for run in host.all_runs() if os.path.exists(run.job)])
    for root in host.roots:
        uninstall.remove_ours(root, outcome)
    if data is not None and uninstall.data_folders(host):
        uninstall.remove_data(host, data, outcome)
    for root in host.roots:
        uninstall.remove_empty_data(root)
    first = HostPaths.of(None)
    if _is_left(first, host):
        uninstall.remove_half_runs(first, outcome)
        uninstall.remove_ours(first, outcome)
        uninstall.remove_empty_data(first)
        for name in uninstall.data_folders(first):  # nobody was asked about it
            outcome.keep(first.data(name), "it is not in the host's root")


def _remove_locks(outcome: uninstall.Outcome) -> None:
    """Those that nobody holds: a run under another root may be live. SSH sockets of a laptop's lie beside them and stay."""
    folder = locks.folder()
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(sockets.PREFIX):  # of a run that is gone
            uninstall.remove(path, uninstall.Outcome())
        elif name.startswith(("run-", "job-", "hook-", "host-", "gather-")) and locks.is_free(path):
            uninstall.remove(path, outcome)
    uninstall.remove_if_empty(folder)
    if folder != lock_folder.first_choice():  # below the home
        uninstall.remove_if_empty(os.path.dirname(folder))


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

"""`leave`: remove gpurun from this host. `revoke`: remove one of its keys from authorized_keys.

Request: `{revoke: mark or null, wipe: bool}`; with `wipe` also `runs`, which are removed, their `stamps` (see rm.py),
`data`, the stamps by name of the data folders that the user agreed to remove, `keep_data: bool`, and `stays`, runs of
other people, because of which agent, caches and data stay too. Answer: `{revoked: lines removed, removed: [run ids],
freed: bytes, data: {name: {files, bytes, stamp}} of the folders that exist, foreign: [paths beside gpurun's files that
gpurun did not make], left: [{path, why}] that could not be removed, kept: [{path, why}] that must stay, shared: bool}`.
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
    if goes:  # this removes the program itself: after it nothing can be imported
        uninstall.remove_agents(goes, [root for root in _others(host) if root not in goes], outcome)
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
    """Remove everything except the agent. All checks come before the first removal."""
    agreed, stays = request["runs"], set(request.get("stays") or [])
    reconcile.reconcile_runs(host)
    engine = _engine(host, request)
    going = [run for run in host.all_runs() if run.id not in stays]
    for run in going:
        records.refuse_newer(run)
    own_runs = [run for run in going if origin.is_of_this_host(run)]
    live = [run.id for run in own_runs if journal.fold(run).live]
    if live:
        raise AgentError(
            error_codes.LIVE, "still live here: " + ", ".join(live), "gpurun stop " + " ".join(live), exit_code=2
        )
    _refuse_more([run for run in own_runs if run.id not in agreed])
    if not (stays or request.get("keep_data")):
        _refuse_other_data(host, request.get("data") or {})
    for run in own_runs:
        shells.refuse(run)
    _wait_for_supervisors(own_runs)
    removed = _remove_a_few_at_a_time([run.id for run in own_runs], request.get("stamps") or {}, host, outcome)
    stays = {run for run in stays if os.path.isdir(host.run(run).root)}
    if stays:  # other people still use this host
        return removed._replace(is_shared=True)
    rest = [run for run in host.all_runs() if os.path.exists(run.job)]
    _refuse_more([run for run in rest if origin.is_of_this_host(run)])
    # A run that stays belongs, or may belong, to another host: nobody has checked its files.
    roots = host.roots
    shared = any(machine.machines_here(root) > 1 for root in roots) or bool(rest)
    if shared:  # another host uses what is left
        for root in roots:
            uninstall.remove(machine.host_id_file(root), outcome)
    else:
        _remove_images(engine)
        _empty(host, None if request.get("keep_data") else request.get("data") or {}, outcome)
    _remove_locks(outcome)
    return removed._replace(is_shared=shared)


def _refuse_other_data(host: HostPaths, agreed: Dict[str, str]) -> None:
    """Raise AgentError when there are new data folders since the check, or changed ones."""
    present = uninstall.data_folders(host)
    new_names = [name for name in present if name not in agreed]
    if new_names:
        what = "new data folders since the check: " + ", ".join(new_names)
        raise AgentError(error_codes.MORE_DATA, what + "; nothing was removed", "check again: gpurun host leave HOST")
    changed = [name for name, entry in present.items() if entry["stamp"] != agreed[name]]
    if changed:
        what = "the data in %s has changed since it was checked; nothing was removed" % ", ".join(changed)
        raise AgentError(
            error_codes.CHANGED_SINCE, what, "check again: gpurun host leave HOST", where=host.data(changed[0])
        )


def _remove_a_few_at_a_time(
    ids: List[str], stamps: Dict[str, Optional[str]], host: HostPaths, outcome: uninstall.Outcome
) -> _Removed:
    """Remove these runs. Return the combined answers of `rm`, without what it had to leave.

    A few at a time: `rm` holds the locks of all runs that it removes, four open files each.
    """
    removed: List[str] = []
    freed = 0
    left: List[LeftOfRun] = []
    for at in range(
        0, max(len(ids), 1), AT_ONCE
    ):  # once even without runs: `rm` tries again to remove what earlier calls left
        answer = rm.answer({"runs": ids[at : at + AT_ONCE], "stamps": stamps}, host)
        removed += answer["removed"]
        freed += answer["freed"]
        left = answer["left"]  # each answer names all that stays
    outcome.left += [{"path": entry["path"], "why": entry["why"]} for entry in left]
    return _Removed(removed, freed)


def _refuse_more(runs: List[RunPaths]) -> None:
    if runs:
        what = "new runs since the check are not fetched: " + ", ".join(run.id for run in runs)
        raise AgentError(error_codes.MORE_RUNS, what, "check again: gpurun host leave HOST")


def _wait_for_supervisors(runs: List[RunPaths]) -> None:
    """Wait for the supervisors of these runs: one whose run has just ended may still write its record."""
    until = time.monotonic() + LAST_WORDS
    while time.monotonic() < until and not all(
        locks.is_free(locks.run_lock(run.id)) and not hooks.running(run) for run in runs
    ):
        time.sleep(0.1)


def _engine(host: HostPaths, request: LeaveRequest) -> Optional[List[str]]:
    engine_facts = facts.host_facts(host, request.get("engine"))["engine"]
    return list(engine_facts["argv"]) if engine_facts else None


def _remove_images(engine: Optional[List[str]]) -> None:
    """Remove the images that gpurun built, which may hold the packages of a private project. An image in use stays."""
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
    """Return the folders whose agents are no longer needed, the root of the profile first."""
    return [host, *(root for root in _others(host) if _is_left(root, host))]


def _others(host: HostPaths) -> List[HostPaths]:
    """Return the other folders that may have an agent: beside the files of gpurun 0.1.0, and in `~/.gpurun`, where the
    agent was before the profile had a root. Another profile may use them.
    """
    own = HostPaths(os.path.join(host.root, words.HOME))
    return [*([] if host.is_own else [own]), *host.roots[1:], HostPaths.of(None)]


def _name_other_runs(host: HostPaths, outcome: uninstall.Outcome) -> None:
    """Record the runs that were made before the profile had a root, or that belong to another profile: they are not
    removed.
    """
    first = HostPaths.of(None)
    run_ids = sorted(run.id for run in first.all_runs() if run.root != host.run(run.id).root)
    if run_ids and not _is_same(first, host):
        rest = " and %d more" % (len(run_ids) - MOST_NAMED) if len(run_ids) > MOST_NAMED else ""
        outcome.keep(first.runs, "its runs are not in the host's root: " + ", ".join(run_ids[:MOST_NAMED]) + rest)


def _is_same(first: HostPaths, host: HostPaths) -> bool:
    return os.path.realpath(first.root) == os.path.realpath(host.root)


def _is_left(first: HostPaths, host: HostPaths) -> bool:
    """Return whether `first`, which is not the root of the profile, is no longer used."""
    return not _is_same(first, host) and not any(first.all_runs()) and machine.machines_here(first) <= 1


def _empty(host: HostPaths, data: Optional[Dict[str, str]], outcome: uninstall.Outcome) -> None:
    """Remove what gpurun made in its root, except its agent.

    Of the data, remove what is as agreed, or nothing for None. Raises AgentError `more_runs`.
    """
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
        for name in uninstall.data_folders(first):  # the user has not agreed to remove it
            outcome.keep(first.data(name), "it is not in the host's root")


def _remove_locks(outcome: uninstall.Outcome) -> None:
    """Remove the locks that are free: a run under another root may be live. A laptop's SSH sockets beside them stay."""
    folder = locks.folder()
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(sockets.PREFIX):  # sockets of a removed run
            uninstall.remove(path, uninstall.Outcome())
        elif name.startswith(("run-", "job-", "hook-", "host-", "gather-")) and locks.is_free(path):
            uninstall.remove(path, outcome)
    uninstall.remove_if_empty(folder)
    if folder != lock_folder.first_choice():  # below the home
        uninstall.remove_if_empty(os.path.dirname(folder))


def revoke(path: str, mark: str) -> int:
    """Remove the lines whose comment is exactly `mark`, and return their number. All other lines stay unchanged."""
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines(keepends=True)
    except FileNotFoundError:
        return 0
    kept = [line for line in lines if line.rstrip().split(b" ")[-1] != mark.encode()]
    if len(kept) < len(lines):
        write_atomically(os.path.realpath(path), b"".join(kept), os.stat(path).st_mode & 0o777)
    return len(lines) - len(kept)

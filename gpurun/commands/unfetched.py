"""Compare the files of runs on a host with the copies on this laptop, before anything is removed.

A run may go without a question when the stamp that its host answers is that of a fetch which brought everything, and the
files of that fetch are still where they came to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpurun.errors import GpurunError
from gpurun.store import fetched_files, run_questions, run_store

if TYPE_CHECKING:
    from gpurun.remote.wire import Wire
    from gpurun.store.run_store import Proof, RunEntry

LOOK_IN = 300.0  # seconds; the host walks the workspaces of the runs
AT_ONCE = 20  # runs in one question

NEVER = "never fetched whole"
CHANGED = "written to since the last fetch"
MISSING = "fetched, but what came is not complete in its folder any more"
UNPROVEN = "fetched by an earlier gpurun, which kept no proof of it"
ELSEWHERE = "fetched to another laptop, not to this one"


@dataclass(frozen=True)
class Held:
    """What a host has of one run. `bytes` as a fetch lists it, `elsewhere` in unix seconds of the host's clock."""

    run: str
    host: str
    live: bool  # the job, or a hook of it, may write on
    container: bool  # a container holds files that were never copied
    files: int
    bytes: int
    stamp: str | None  # None: it may still change, or is not known
    elsewhere: float | None  # when some laptop had fetched all of it
    shells: tuple[str, ...] = ()  # for each shell that is open in it, the command that ends it there

    @property
    def nothing(self) -> bool:
        """The run wrote nothing."""
        return not (self.live or self.container or self.files) and self.stamp is not None


def read(run: str, host: str, told: Mapping[str, object]) -> Held:
    """Return what a host answered of a run, as far as it has the right shape: what does not counts as not known."""

    def number(key: str) -> int:
        value = told.get(key)
        return value if type(value) is int and value >= 0 else 1

    stamp, elsewhere, shells = told.get("stamp"), told.get("elsewhere"), told.get("shells")
    return Held(
        run,
        host,
        live=told.get("live") is not False,
        container=told.get("container") is not False,
        files=number("files"),
        bytes=number("bytes"),
        stamp=stamp if isinstance(stamp, str) else None,
        elsewhere=float(elsewhere) if isinstance(elsewhere, (int, float)) else None,
        shells=tuple(one for one in shells if isinstance(one, str)) if isinstance(shells, list) else (),
    )


def unfetched_on(wire: Wire, runs: Sequence[str]) -> list[Held]:
    """Ask one host what it holds of `runs`; those that it does not have are left out. Updates the index."""
    found: list[Held] = []
    for begin in range(0, len(runs), AT_ONCE):
        some = list(runs[begin : begin + AT_ONCE])
        answer = run_questions.ask(wire, "unfetched", {"runs": some}, some, timeout=LOOK_IN)
        held = answer.get("held")
        for run, told in held.items() if isinstance(held, dict) else ():
            if run in some and isinstance(told, dict):
                found.append(read(run, wire.host, told))
    return found


def unfetched_on_each(entries: Iterable[RunEntry]) -> list[Held]:
    """Ask every host that these runs are on, or were on, for what it holds of them.

    Raises HostUnreachable for a host that has a run now; of what was left on one that does not answer nothing is returned.
    """
    from gpurun.commands import runs

    entries = list(entries)
    found: list[Held] = []
    runs.ask_maybe(entries)
    entries = [run_store.find(entry.id) or entry for entry in entries]  # one may have gone on elsewhere
    for host, ids in runs.by_host(entries).items():
        found += unfetched_on(runs.wire_to(host), ids)
    for host, ids in _left(entries).items():
        try:
            found += unfetched_on(runs.wire_to(host, interactive=False), ids)
        except GpurunError:
            continue
    return found


def _left(entries: Iterable[RunEntry]) -> dict[str, list[str]]:
    """What could never be had from a host (None) is not asked for."""
    found: dict[str, list[str]] = {}
    for entry in entries:
        for host, done in entry.left_on.items():
            if done is not None:
                found.setdefault(host, []).append(entry.id)
    return found


def why_not_here(held: Held) -> str | None:
    """Return why something of the run would be lost with it, as a part of a sentence; None when nothing would."""
    if held.nothing:
        return None
    entry = run_store.find(held.run)
    proofs = list(entry.verified.values()) if entry is not None else []
    same = [proof for proof in proofs if held.stamp is not None and proof.get("stamp") == held.stamp]
    if any(_is_complete(proof) for proof in same):
        return None
    if same:
        return MISSING
    if entry is not None and _is_marked(entry, held.host):
        return CHANGED if held.host in entry.verified else UNPROVEN
    return ELSEWHERE if held.elsewhere is not None else NEVER


def _is_marked(entry: RunEntry, host: str) -> bool:
    """False once another attempt has begun there."""
    return bool(entry.left_on.get(host, entry.fetched))


def _is_complete(proof: Proof) -> bool:
    return fetched_files.missing(Path(str(proof.get("to"))), proof.get("stamp")) == 0


def _may_be_lost(entry: RunEntry, host: str) -> bool:
    """Tell whether something of the run may be only on a former host, which has not answered."""
    return entry.left_on[host] is not None and not run_store.is_here(entry.id, host)


def at_stake(entries: Sequence[RunEntry], held: Iterable[Held]) -> dict[str, list[str]]:
    """Return which runs would be lost, in part or whole, by the reason; the order of `entries` is kept."""
    by_run: dict[str, list[Held]] = {}
    for one in held:
        by_run.setdefault(one.run, []).append(one)
    found: dict[str, list[str]] = {}
    for entry in entries:
        asked = by_run.get(entry.id, [])
        whys = [why for one in asked if (why := why_not_here(one)) is not None]
        answered = {one.host for one in asked}
        silent = any(host not in answered and _may_be_lost(entry, host) for host in entry.left_on)
        if whys or silent:
            found.setdefault(whys[0] if whys else NEVER, []).append(entry.id)
    return found


def left_at_stake(held: Iterable[Held], entries: Iterable[RunEntry]) -> list[str]:
    """Return the hosts that earlier attempts were on, and that hold what is not here."""
    answered = {(one.run, one.host): one for one in held}
    found = set()
    for entry in entries:
        for host in entry.left_on:
            one = answered.get((entry.id, host))
            if _may_be_lost(entry, host) if one is None else why_not_here(one) is not None:
                found.add(host)
    return sorted(found)

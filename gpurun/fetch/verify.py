"""Compare the hashes of fetched files with those of the host, and check that each file is complete. The host hashes its files on
a channel of its own, while they are transferred.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gpurun.errors import GpurunError
from gpurun.fetch.arrivals import Arrived
from gpurun.fetch.background import Background
from gpurun.fetch.plan import Item

if TYPE_CHECKING:
    from gpurun.agent.schema.files import FileHash
    from gpurun.agent.schema.requests import HashRequest
    from gpurun.remote.wire import Wire

_SLOWEST = 20_000_000  # bytes/s that a host hashes at the least
_PATIENCE = 60.0  # seconds on top
_QUESTION_FILES = 5_000

Hashes: TypeAlias = "dict[str, FileHash]"


@dataclass(frozen=True)
class Verdict:
    """Whether a file may take its place. `again`: another try may help."""

    good: bool
    why: str = ""
    again: bool = True
    cut: bool = False  # the job ended while it wrote this, and there is no more of it
    gone: bool = False  # the job removed it meanwhile, so that it is no output any more


def ask_early(wire: Wire, run: str, items: Sequence[Item]) -> Background[Hashes]:
    """Ask while the files are on their way. One that fails leaves them unanswered: they are asked about again."""

    def work() -> Hashes:
        try:
            return ask(wire, run, items, {})
        except GpurunError:
            return {}

    return Background(work)


def ask(wire: Wire, run: str, items: Sequence[Item], prefix: Mapping[str, int]) -> Hashes:
    """The host's hashes by path; also of the first `prefix` bytes where that names a path. Raises
    GpurunError.
    """
    found: Hashes = {}
    for start in range(0, len(items), _QUESTION_FILES):
        some = items[start : start + _QUESTION_FILES]
        patience = _PATIENCE + sum(item.size for item in some) / _SLOWEST
        paths = [item.path for item in some]
        request: HashRequest = {
            "run": run,
            "paths": paths,
            "prefix": {path: prefix[path] for path in paths if path in prefix},
        }
        told = wire.ask("hash", request, timeout=patience)["hashes"]
        found.update({path: told[path] for path in paths if path in told})
    return found


def judge(item: Item, came: Arrived | None, host: FileHash | None, placed: int | None) -> Verdict:
    """`placed`: size in bytes of the version that is here already, None without one."""
    if came is None:
        if host is not None and host["size"] is None:
            return Verdict(False, str(host["why"]), gone=host["gone"])
        return Verdict(False, "it did not arrive")
    if host is None or host["sha256"] is None:
        why = "the host did not vouch for it" if host is None else str(host["why"])
        return Verdict(False, why, gone=host is not None and host["gone"])
    if came.sha256 == host["sha256"] and came.size == host["size"] and host["whole"]:
        return Verdict(True, cut=bool(host.get("cut")))
    if item.grows and host["prefix_sha256"] == came.sha256 and came.size >= (placed or 0):
        return Verdict(True)  # its writer only appends to it, and this is how far it was
    if not host["whole"]:
        return Verdict(False, str(host["why"]))
    return Verdict(False, "what arrived differs from what the host has")


def judge_all(
    wire: Wire,
    run: str,
    items: Iterable[Item],
    came: Mapping[str, Arrived],
    hashes: Hashes,
    placed: Mapping[str, int | None],
) -> dict[str, Verdict]:
    """A verdict for each item, by path. Whoever did not pass by the early hashes is asked about once more."""
    items = list(items)
    verdicts = {item.path: judge(item, came.get(item.path), hashes.get(item.path), placed[item.path]) for item in items}
    doubtful = [item for item in items if not verdicts[item.path].good and not verdicts[item.path].gone]
    if doubtful:
        sizes = {item.path: came[item.path].size for item in doubtful if item.path in came}
        later = ask(wire, run, doubtful, sizes)
        for item in doubtful:
            verdicts[item.path] = judge(item, came.get(item.path), later.get(item.path), placed[item.path])
    return verdicts

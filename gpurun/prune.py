"""Which runs can go: those that ended long ago, or whose results are here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpurun import index
from gpurun.agent import vocabulary as words

if TYPE_CHECKING:
    from gpurun.runs import HostRuns


@dataclass(frozen=True)
class Removal:
    """A run that would be removed."""

    host: str
    record: dict[str, Any]

    @property
    def fetched(self) -> bool:
        return index.is_here(self.record["id"])

    @property
    def bytes(self) -> int:
        return int(self.record.get("disk") or 0)


def choose(found: Sequence[HostRuns], *, owner: str, fetched: bool, older_than: float | None) -> list[Removal]:
    """The ended runs of `owner` that meet all that was asked: fetched, and ended more than `older_than` seconds ago."""
    chosen = []
    for one in found:
        if one.answer is None:
            continue
        for record in one.answer["runs"]:
            ended = record["state"] in words.ENDS and record["owner"] == owner
            age = one.answer["now"] - (record["ended"] or record["created"] or 0)
            if ended and (not fetched or index.is_here(record["id"])) and (older_than is None or age > older_than):
                chosen.append(Removal(one.host, record))
    return chosen

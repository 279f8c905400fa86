"""A wire whose answers are changed on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpurun.remote.wire import Wire


@dataclass(frozen=True)
class Meddler:
    """A wire whose answers are changed on the way, as a host that lies or breaks would."""

    wire: Wire
    changes: Mapping[str, Any] = field(default_factory=dict)  # verb -> what makes another answer of one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wire, name)

    def ask(self, verb: str, request: Any, **options: Any) -> Any:
        ask: Any = self.wire.ask
        answer = ask(verb, request, **options)
        return self.changes.get(verb, lambda told: told)(answer)


def an_entry(**changes: Any) -> Any:
    entry = {"path": "workspace/x", "as": "x", "size": 1, "mtime_ns": 1, "inode": 1, "link": None}
    return {**entry, "ctime_ns": 1, "rank": 4, "grows": False, "writing": None, **changes}

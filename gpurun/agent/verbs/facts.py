"""`facts`: return the facts of this host, never from the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host import facts
from ..paths import HostPaths

if TYPE_CHECKING:
    from ..schema.host import HostFacts
    from ..schema.requests import FactsRequest


def answer(request: FactsRequest, host: HostPaths) -> HostFacts:
    return facts.host_facts(host, request.get("engine"), refresh=True)

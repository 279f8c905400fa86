"""`facts`: what this host is and has, asked anew."""

from __future__ import annotations

from typing import Any, Dict

from ..host import facts
from ..paths import HostPaths


def answer(request: Dict[str, Any], host: HostPaths) -> Dict[str, Any]:
    return facts.host_facts(host, request.get("engine"), refresh=True)

"""Make URLs that work once, so that a browser opens a page without the secret of the page in its argv.

Every user of this laptop sees with `ps` what a browser was started with. What stands there is worth nothing after the
browser has been there, and until then only to whom the browser belongs. (Jupyter writes a file that leads on; a browser
that was confined, as Ubuntu's is, may not read it.)
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

from gpurun.tunnel import pages

BEGINS = "/gpurun-open/"
GOOD_FOR = 60.0  # seconds
_CONNECTIONS = ("/proc/net/tcp", "/proc/net/tcp6")


class Once:
    """The addresses of one tunnel. Any thread may ask."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[str, float]] = {}

    def address(self, page: str) -> str:
        """A path that leads to `page` ("lab?token=...") for the first who asks for it within GOOD_FOR."""
        path = BEGINS + secrets.token_urlsafe(24)
        self._pages[path] = (page, time.monotonic() + GOOD_FOR)
        return path

    def answer(self, method: str, target: str, client: socket.socket) -> bytes | None:
        """The whole response; None for what is no such address."""
        if not target.startswith(BEGINS):
            return None
        if method != "GET" or _is_anothers(client):
            return pages.refused("403 Forbidden", "this address is for the browser that gpurun started")
        page, until = self._pages.pop(target, ("", 0.0))
        if time.monotonic() > until:
            return pages.refused("410 Gone", "this address was good once; gpurun tunnel --list shows the page's own")
        return pages.leads_to("/" + page)


def _is_anothers(client: socket.socket) -> bool:
    """Whether the other end is another user's, as far as the system tells (Linux does)."""
    ends = f":{client.getpeername()[1]:04X}", f":{client.getsockname()[1]:04X}"
    for table in _CONNECTIONS:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, _, _, _, _, uid, *_ = line.split()
            if (local[-5:], remote[-5:]) == ends:
                return int(uid) != os.getuid()
    return False

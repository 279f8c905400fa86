"""Create URLs that work once, so that a browser can open a page without the page's secret in its arguments.

`ps` shows the arguments of a browser to every user of this laptop. A one-time URL is worthless after the browser has opened
it, and until then only processes of the same user can open it. (Jupyter writes a file that redirects; a confined browser,
such as Ubuntu's, may not be able to read that file.)
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from pathlib import Path

from gpurun.tunnel import pages

PATH_PREFIX = "/gpurun-open/"
VALID_FOR = 60.0  # seconds
_CONNECTION_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


class OneTimeUrls:
    """The one-time URLs of one tunnel. Safe to use from any thread."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[str, float]] = {}

    def create(self, page: str) -> str:
        """Return a path that redirects the first request within VALID_FOR to `page` ("lab?token=...")."""
        path = PATH_PREFIX + secrets.token_urlsafe(24)
        self._pages[path] = (page, time.monotonic() + VALID_FOR)
        return path

    def answer(self, method: str, target: str, client: socket.socket) -> bytes | None:
        """Return the complete response, or None when `target` is not a one-time URL."""
        if not target.startswith(PATH_PREFIX):
            return None
        if method != "GET" or _belongs_to_another_user(client):
            return pages.refused("403 Forbidden", "this URL is for the browser that gpurun started")
        page, expires = self._pages.pop(target, ("", 0.0))
        if time.monotonic() > expires:
            return pages.refused(
                "410 Gone", "this URL worked once and has expired; gpurun tunnel --list shows the page's own URL"
            )
        return pages.redirect("/" + page)


def _belongs_to_another_user(client: socket.socket) -> bool:
    """Return whether another user owns the client's end of the connection; only Linux can show that."""
    ports = f":{client.getpeername()[1]:04X}", f":{client.getsockname()[1]:04X}"
    for table in _CONNECTION_TABLES:
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, _, _, _, _, uid, *_ = line.split()
            if (local[-5:], remote[-5:]) == ports:
                return int(uid) != os.getuid()
    return False

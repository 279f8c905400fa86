"""Check each request of a connection before it is passed to a service.

A port of 127.0.0.1 can be reached by every page in the user's browser. A page that is not ours gives itself away: by the
name it reached us under (DNS rebinding), by its Origin, or by Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/). What
is no HTTP/1 comes from no browser and passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

HEAD_LIMIT = 1 << 16  # bytes
HERE = ("localhost", "127.0.0.1", "::1")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_START = re.compile(_TOKEN + rb"+ (/|\*|https?:)")  # a page may name its methods as it likes, and as long
_COULD_START = re.compile(_TOKEN + rb"+( (/|\*|h(t(t(ps?)?)?)?)?)?")
_DEBUGGER = b"JDWP-Handshake"  # a Java debugger says this much, without a line's end, and waits
_REQUEST_LINE = re.compile(rb"(?P<method>" + _TOKEN + rb"+) (?P<target>[^ ]+) HTTP/1\.[01]")
_FIELD = re.compile(r"(?P<name>" + _TOKEN.decode() + r"+):[ \t]*(?P<value>[^\r\n\0]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?")


class Refused(Exception):
    """This connection may not go on. `status` is what HTTP calls it; the text says why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Answered(Exception):
    """The door answers this request by itself, and ends the connection with that."""

    def __init__(self, response: bytes) -> None:
        super().__init__(response)
        self.response = response


@dataclass(frozen=True)
class Request:
    """The head of a request. `fields` by lower-case name; what came twice is joined by a comma."""

    method: str
    target: str
    fields: dict[str, str]

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent again when nothing has come back."""
        return self.method in ("GET", "HEAD") and not self.has_body

    @property
    def has_body(self) -> bool:
        return "transfer-encoding" in self.fields or self.fields.get("content-length", "0") != "0"

    @property
    def for_page(self) -> bool:
        """Whether somebody looks at what comes back."""
        return self.method == "GET" and "text/html" in self.fields.get("accept", "")

    @property
    def upgrades(self) -> bool:
        return "upgrade" in self.fields and "upgrade" in self.fields.get("connection", "").lower()


def check(request: Request, ours: Collection[int]) -> None:
    """Raises Refused when a page that is not ours sent it. `ours` are the local ports that our pages come from."""
    fields = request.fields
    host = fields.get("host")
    if host is not None and _host_and_port(f"http://{host}")[0] not in HERE:
        raise Refused("403 Forbidden", f"this is a tunnel of gpurun, and nothing that is called {host}")
    origin = fields.get("origin")
    if origin is not None and not _is_ours(origin, ours):
        raise Refused("403 Forbidden", f"a page of {origin} may not use this tunnel")
    site = fields.get("sec-fetch-site", "none")
    if site in ("same-origin", "none") or _navigates(request):
        return
    # The same site is any port of this laptop.
    if site == "same-site" and (origin is not None or _is_ours(fields.get("referer", ""), ours)):
        return
    raise Refused("403 Forbidden", "a page that is not of this tunnel may not use it")


def _is_ours(url: str, ours: Collection[int]) -> bool:
    host, port = _host_and_port(url)
    return url.startswith("http://") and host in HERE and port in ours


def _host_and_port(url: str) -> tuple[str | None, int]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or 80
    except ValueError:
        return None, 0


def _navigates(request: Request) -> bool:
    """A link that was followed, or an address that was opened: the page that did it sees nothing of ours."""
    fields = request.fields
    return (
        request.method == "GET"
        and fields.get("sec-fetch-mode") == "navigate"
        and fields.get("sec-fetch-dest") == "document"
    )


class Guard:
    """Follows what a client sends on one connection. Takes bytes as they come, gives those that may go on.

    `own` gives the response to a request that is meant for the door itself.
    """

    def __init__(self, ours: Collection[int], own: Callable[[Request], bytes | None] = lambda _: None) -> None:
        self.first: Request | None = None  # None: not yet known, or no HTTP
        self.decided = False  # whether it is known what this connection speaks
        self._ours, self._own = ours, own
        self._held = b""
        self._left = 0  # bytes until something is to be looked at
        self._look: Callable[[], bytes | None] = self._opening

    def pass_all(self) -> None:
        """It has turned out that no browser is at the other end."""
        self.decided = True
        self._look = self._raw

    def feed(self, data: bytes) -> bytes:
        """What may be sent on now; a head is held back until it is whole. Raises Refused and Answered."""
        self._held += data
        passed = []
        while self._held:
            if self._left:
                piece = self._held[: self._left]
                self._held = self._held[len(piece) :]
                self._left -= len(piece)
                passed.append(piece)
                continue
            step = self._look()
            if step is None:
                break
            passed.append(step)
        return b"".join(passed)

    # What can come next. Each takes from `_held` and gives what may pass; None: more is needed.

    def _opening(self) -> bytes | None:
        line, end, _ = self._held.partition(b"\n")
        if end:
            is_http = bool(_REQUEST_LINE.fullmatch(line.removesuffix(b"\r")))
        elif line != _DEBUGGER and (_START.match(line) or _COULD_START.fullmatch(line)):
            if len(line) < HEAD_LIMIT:
                return None
            is_http = True  # and too long; the head is refused for it
        else:
            is_http = False
        self._look = self._head if is_http else self._raw
        self.decided = not is_http
        return b""

    def _head(self) -> bytes | None:
        head, end, rest = self._held.partition(b"\r\n\r\n")
        if len(head) > HEAD_LIMIT:
            raise Refused("431 Request Header Fields Too Large", "the head of this request is too long")
        if not end:
            if b"\n\n" in head:
                raise _malformed("the ends of its lines")
            return None
        request = _parse(head)
        check(request, self._ours)
        if (response := self._own(request)) is not None:
            raise Answered(response)
        self.first = self.first or request
        self.decided = True
        self._held = rest
        self._look = self._head
        if request.upgrades:
            self._look = self._raw
        elif "transfer-encoding" in request.fields:
            self._look = self._chunk
        else:
            self._left = int(request.fields.get("content-length", "0"))
        return head + end

    def _chunk(self) -> bytes | None:
        line, end, rest = self._held.partition(b"\r\n")
        if not end:
            _expect_end_of(line)
            return None
        found = _CHUNK_SIZE.fullmatch(line)
        if not found:
            raise _malformed("a chunk")
        size = int(found["size"], 16)
        self._held = rest
        if size:
            self._left = size
            self._look = self._chunk_end
        else:
            self._look = self._trailer
        return line + end

    def _chunk_end(self) -> bytes | None:
        if len(self._held) < 2:
            return None
        if not self._held.startswith(b"\r\n"):
            raise _malformed("a chunk")
        self._held = self._held[2:]
        self._look = self._chunk
        return b"\r\n"

    def _trailer(self) -> bytes | None:
        line, end, rest = self._held.partition(b"\r\n")
        if not end:
            _expect_end_of(line)
            return None
        self._held = rest
        if not line:
            self._look = self._head
        return line + end

    def _raw(self) -> bytes:
        passed, self._held = self._held, b""
        return passed


def _parse(head: bytes) -> Request:
    first, *lines = head.split(b"\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if not found:
        raise _malformed("its first line")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line.decode("latin-1"))
        if not field:
            raise _malformed("a header")
        name = field["name"].lower()
        fields[name] = f"{fields[name]}, {field['value']}" if name in fields else field["value"]
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    # Where two readers could see two ends, something could hide between them.
    if (coding is not None and (length is not None or coding.lower() != "chunked")) or not re.fullmatch(
        "[0-9]{1,18}", length or "0"
    ):
        raise _malformed("the length of its body")
    return Request(found["method"].decode(), found["target"].decode("latin-1"), fields)


def _expect_end_of(line: bytes) -> None:
    if len(line) > HEAD_LIMIT:
        raise _malformed("a line without end")


def _malformed(what: str) -> Refused:
    return Refused("400 Bad Request", f"this request is malformed: {what}")

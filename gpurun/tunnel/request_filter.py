"""Check each HTTP request of a client connection before it is forwarded to a service.

Every page in the user's browser can reach a port of 127.0.0.1. A request of another site's page is recognised by its Host
(DNS rebinding), by its Origin, or by Sec-Fetch-Site (https://www.w3.org/TR/fetch-metadata/). Bytes that are not HTTP/1 do not
come from a browser and are forwarded unchanged.

The parser is our own because it must forward the client's bytes exactly as they came, and must let other protocols through.
A test compares it with h11: it must find every request that h11 finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

HEAD_LIMIT = 1 << 16  # bytes
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
# A browser sends a target that begins with /, * or http(s): and CONNECT to a proxy. A page chooses its method freely.
_BROWSER_START = re.compile(_TOKEN + rb"+ (/|\*|https?:)|CONNECT ")
_COULD_BE_BROWSER_START = re.compile(_TOKEN + rb"+( (/|\*|h(t(t(ps?)?)?)?)?)?")
_COULD_BE_REQUEST_LINE = re.compile(_TOKEN + rb"*( [^ ]*( [HTP/0-9.]{0,8}\r?)?)?")
_HTTP_2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DEBUGGER = b"JDWP-Handshake"  # a Java debugger sends exactly this, without an end of line, and waits
_REQUEST_LINE = re.compile(rb"(?P<method>" + _TOKEN + rb"+) (?P<target>[^ ]+) HTTP/(?P<version>[0-9]\.[0-9])")
_FIELD = re.compile(r"(?P<name>" + _TOKEN.decode() + r"+):[ \t]*(?P<value>[^\r\n\0]*?)[ \t]*")
_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:(?P<port>[0-9]{1,5})?)?", re.IGNORECASE)
_LOCAL_URL = re.compile(rf"http://{_LOCAL_HOST.pattern}(/.*)?", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,15})[ \t]*(;[^\r\n]*)?")


class Refused(Exception):
    """The connection must be closed. `status` is the HTTP status; the text is the reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class LocalResponse(Exception):
    """The listener answers this request itself with `response`, and closes the connection."""

    def __init__(self, response: bytes) -> None:
        super().__init__(response)
        self.response = response


@dataclass(frozen=True)
class Request:
    """The head of a request. `fields` has lower-case names; the values of a repeated field are joined by a comma."""

    method: str
    target: str
    fields: dict[str, str]

    @property
    def is_repeatable(self) -> bool:
        """Return whether the request can be sent again when nothing has come back."""
        return self.method in ("GET", "HEAD") and not self.has_body

    @property
    def has_body(self) -> bool:
        return "transfer-encoding" in self.fields or self.fields.get("content-length", "0") != "0"

    @property
    def wants_page(self) -> bool:
        """Return whether a person looks at the response."""
        return self.method == "GET" and "text/html" in self.fields.get("accept", "")

    @property
    def is_upgrade(self) -> bool:
        return "upgrade" in self.fields and "upgrade" in self.fields.get("connection", "").lower()


def check(request: Request, own_ports: Collection[int]) -> None:
    """Raise Refused when another site's page sent the request. `own_ports`: the local ports that our pages come from."""
    fields = request.fields
    host = fields.get("host")
    if host is not None and not _LOCAL_HOST.fullmatch(host):
        raise Refused("403 Forbidden", f"this is a tunnel of gpurun, and {host} is not its name")
    origin = fields.get("origin")
    if origin is not None and not _is_own(origin, own_ports):
        raise Refused("403 Forbidden", f"a page of {origin} may not use this tunnel")
    site = fields.get("sec-fetch-site", "none")
    if site in ("same-origin", "none") or _is_navigation(request):
        return
    # Every port of this laptop is the same site.
    if site == "same-site" and (origin is not None or _is_own(fields.get("referer", ""), own_ports)):
        return
    raise Refused("403 Forbidden", "a page of another site may not use this tunnel")


def _is_own(url: str, own_ports: Collection[int]) -> bool:
    match = _LOCAL_URL.fullmatch(url)
    return match is not None and int(match["port"] or 80) in own_ports


def _is_navigation(request: Request) -> bool:
    """Return whether the user followed a link or opened an address: the page with the link sees nothing of the response."""
    fields = request.fields
    return (
        request.method == "GET"
        and fields.get("sec-fetch-mode") == "navigate"
        and fields.get("sec-fetch-dest") == "document"
    )


class RequestFilter:
    """Parse what a client sends on one connection, and return the bytes that may be forwarded.

    `answer_locally` returns the response to a request that is for the listener itself, else None.
    """

    def __init__(
        self, own_ports: Collection[int], answer_locally: Callable[[Request], bytes | None] = lambda _: None
    ) -> None:
        self.first_request: Request | None = None  # None: not complete yet, or not HTTP
        self.protocol_known = False
        self._own_ports, self._answer_locally = own_ports, answer_locally
        self._held = b""  # not yet forwarded
        self._body_left = 0  # bytes to forward before the next step parses
        self._first_line = b""  # as far as it was forwarded before its end came
        self._step: Callable[[], bytes | None] = self._parse_first_line

    def pass_all(self) -> None:
        """Forward everything from now on: the other end is not a browser."""
        self.protocol_known = True
        self._step = self._forward

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that may be forwarded now; an incomplete head is held back. Raises Refused and LocalResponse."""
        self._held += data
        allowed = []
        while self._held:
            if self._body_left:
                piece = self._held[: self._body_left]
                self._held = self._held[len(piece) :]
                self._body_left -= len(piece)
                allowed.append(piece)
                continue
            parsed = self._step()
            if parsed is None:
                break
            allowed.append(parsed)
        return b"".join(allowed)

    # The steps. Each takes bytes from `_held` and returns those that may be forwarded, or None when it needs more.

    def _parse_first_line(self) -> bytes | None:
        line, end, rest = self._held.partition(b"\n")
        if end and line in (b"", b"\r"):  # servers ignore empty lines before a request
            self._held = rest
            self.protocol_known = True
            return line + end
        if _HTTP_2_PREFACE.startswith(self._held[: len(_HTTP_2_PREFACE)]):
            if len(self._held) < len(_HTTP_2_PREFACE):
                return None
            self._step = self._forward
        elif end:
            self._step = self._parse_head if _is_request_line(line) else self._forward
        elif line != _DEBUGGER and (_BROWSER_START.match(line) or _COULD_BE_BROWSER_START.fullmatch(line)):
            if len(line) < HEAD_LIMIT:
                return None
            self._step = self._parse_head  # which refuses it, because it is too long
        else:
            # The client may wait for an answer to this, so it is forwarded before the line has ended.
            self._step = self._watch_first_line
        self.protocol_known = self._step != self._parse_head
        return b""

    def _watch_first_line(self) -> bytes:
        """Forward the rest of the first line, and refuse it when it turns out to begin a request."""
        piece, end, self._held = self._held.partition(b"\n")
        self._first_line += piece
        if not _COULD_BE_REQUEST_LINE.fullmatch(self._first_line):
            self._step = self._forward
        elif end and _is_request_line(self._first_line):
            raise _malformed("its first line")
        elif end:
            self._step = self._forward
        else:
            _check_line_length(self._first_line)
        return piece + end

    def _parse_head(self) -> bytes | None:
        head, end, rest = self._held.partition(b"\r\n\r\n")
        if len(head) > HEAD_LIMIT:
            raise Refused("431 Request Header Fields Too Large", "the head of this request is too long")
        if not end:
            if b"\n\n" in head:
                raise _malformed("the ends of its lines")
            return None
        request = _parse(head)
        check(request, self._own_ports)
        if (response := self._answer_locally(request)) is not None:
            raise LocalResponse(response)
        self.first_request = self.first_request or request
        self.protocol_known = True
        self._held = rest
        if request.is_upgrade:
            self._step = self._forward
        elif "transfer-encoding" in request.fields:
            self._step = self._parse_chunk_size
        else:
            self._step = self._parse_head
            self._body_left = int(request.fields.get("content-length", "0"))
        return head + end

    def _parse_chunk_size(self) -> bytes | None:
        line, end, rest = self._held.partition(b"\r\n")
        if not end:
            _check_line_length(line)
            return None
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            raise _malformed("a chunk")
        self._held = rest
        self._body_left = int(match["size"], 16)
        self._step = self._parse_chunk_end if self._body_left else self._parse_trailer
        return line + end

    def _parse_chunk_end(self) -> bytes | None:
        if len(self._held) < 2:
            return None
        if not self._held.startswith(b"\r\n"):
            raise _malformed("a chunk")
        self._held = self._held[2:]
        self._step = self._parse_chunk_size
        return b"\r\n"

    def _parse_trailer(self) -> bytes | None:
        line, end, rest = self._held.partition(b"\r\n")
        if not end:
            _check_line_length(line)
            return None
        self._held = rest
        if not line:
            self._step = self._parse_head
        return line + end

    def _forward(self) -> bytes:
        allowed, self._held = self._held, b""
        return allowed


def _is_request_line(line: bytes) -> bool:
    return bool(_REQUEST_LINE.fullmatch(line.removesuffix(b"\r")))


def _parse(head: bytes) -> Request:
    first, *lines = head.split(b"\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if not request_line:
        raise _malformed("its first line")
    if request_line["version"] not in (b"1.0", b"1.1"):
        raise Refused("505 HTTP Version Not Supported", "this request is not HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line.decode("latin-1"))
        if not field:
            raise _malformed("a header")
        name = field["name"].lower()
        if name == "host" and name in fields:
            raise _malformed("two Host headers")
        fields[name] = f"{fields[name]}, {field['value']}" if name in fields else field["value"]
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    # Where two parsers could see different ends of the body, a second request could be hidden.
    if (coding is not None and (length is not None or coding.lower() != "chunked")) or (
        length is not None and not re.fullmatch("[0-9]{1,18}", length)
    ):
        raise _malformed("the length of its body")
    return Request(request_line["method"].decode(), request_line["target"].decode("latin-1"), fields)


def _check_line_length(line: bytes) -> None:
    if len(line) > HEAD_LIMIT:
        raise _malformed("a line that is too long")


def _malformed(part: str) -> Refused:
    return Refused("400 Bad Request", f"this request is malformed: {part}")

"""Which bytes of a client the request filter forwards, and how it recognises the requests of other sites' pages."""

from __future__ import annotations

import pytest

from gpurun.tunnel.request_filter import HEAD_LIMIT, Refused, RequestFilter

OWN_PORTS = {8888, 3000}


def head(*fields: str, line: str = "GET /lab HTTP/1.1", host: str | None = "127.0.0.1:8888") -> bytes:
    lines = [line, *([f"Host: {host}"] if host else []), *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@pytest.mark.parametrize("host", ["localhost:8888", "127.0.0.1:8888", "[::1]:8888", "localhost", "LOCALHOST:1", None])
def test_request_to_a_local_name_is_forwarded(host: str | None) -> None:
    request = head(host=host)
    assert RequestFilter(OWN_PORTS).feed(request) == request


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8888",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.2:8888",
        "localhost:8888@evil.example",
        "",
        "127.0.0.1:8888, evil.example",
        "evil.example\tlocalhost",
        "[::1",
    ],
)
def test_request_to_another_name_is_refused(host: str) -> None:
    with pytest.raises(Refused) as refused:
        RequestFilter(OWN_PORTS).feed(head(f"Host: {host}", host=None))
    assert refused.value.status.startswith(("403", "400"))


def test_long_first_line_in_pieces_is_checked() -> None:
    """A page that reached us by DNS rebinding chooses its method and its path."""
    request = head(host="evil.example", line=f"{'A' * 40} /{'x' * 3000} HTTP/1.1")
    request_filter = RequestFilter(OWN_PORTS)
    assert request_filter.feed(request[:2000]) == b""
    with pytest.raises(Refused):
        request_filter.feed(request[2000:])


@pytest.mark.parametrize("piece", [1 << 10, 1 << 15, 1 << 18])
def test_method_longer_than_one_read_is_refused(piece: int) -> None:
    """A page that reached us by DNS rebinding chooses its method."""
    request_filter, sent = RequestFilter(OWN_PORTS), head(line="A" * 300_000 + " / HTTP/1.1", host="evil.example")
    pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    with pytest.raises(Refused, match="too long"):
        list(map(request_filter.feed, pieces))


def test_debugger_handshake_without_line_end_is_forwarded() -> None:
    request_filter = RequestFilter(OWN_PORTS)
    assert request_filter.feed(b"JDWP-Handshake") == b"JDWP-Handshake"
    assert request_filter.protocol_known
    with pytest.raises(Refused):
        RequestFilter(OWN_PORTS).feed(head(line="JDWP-Handshake / HTTP/1.1", host="evil.example"))


def test_request_lines_without_carriage_return_are_refused() -> None:
    with pytest.raises(Refused, match="the ends of its lines") as refused:
        RequestFilter(OWN_PORTS).feed(b"GET / HTTP/1.0\nHost: localhost\n\n")
    assert refused.value.status.startswith("400")


@pytest.mark.parametrize(
    "hosts", [("localhost", "evil.example"), ("evil.example", "[::1]"), ("localhost", "localhost")]
)
def test_second_host_field_is_refused(hosts: tuple[str, str]) -> None:
    """A service may take either field for the host."""
    with pytest.raises(Refused, match="two Host headers"):
        RequestFilter(OWN_PORTS).feed(head(*(f"Host: {host}" for host in hosts), host=None))


def test_second_origin_field_is_refused() -> None:
    with pytest.raises(Refused, match="may not use this tunnel"):
        RequestFilter(OWN_PORTS).feed(head("Origin: http://evil.example", "Origin: [::1]:8888"))


@pytest.mark.parametrize("line", ["CONNECT localhost:80 HTTP/1.1", "GET name HTTP/1.1", "JDWP-Handshake / HTTP/1.1"])
@pytest.mark.parametrize("piece", [1, 5, 14, 20])
def test_unusual_request_line_in_pieces_is_refused(line: str, piece: int) -> None:
    """Its beginning may be forwarded, because another protocol may begin so; its end never is."""
    sent = head(line=line, host="evil.example")
    request_filter, forwarded = RequestFilter(OWN_PORTS), b""
    try:
        for start in range(0, len(sent), piece):
            forwarded += request_filter.feed(sent[start : start + piece])
    except Refused:
        assert b"\n" not in forwarded
    else:
        pytest.fail("the request was forwarded")


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0"])
def test_other_http_version_is_refused(version: str) -> None:
    with pytest.raises(Refused) as refused:
        RequestFilter(OWN_PORTS).feed(head(line=f"GET / {version}"))
    assert refused.value.status.startswith("505")


def test_request_after_an_empty_line_is_checked() -> None:
    request_filter = RequestFilter(OWN_PORTS)
    assert request_filter.feed(b"\r\n\n") == b"\r\n\n"
    with pytest.raises(Refused):
        request_filter.feed(head(host="evil.example"))


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8888", "http://localhost:8888", "http://localhost:3000"])
def test_pages_of_own_listeners_may_use_each_other(origin: str) -> None:
    request = head(f"Origin: {origin}", "Sec-Fetch-Site: same-site", "Content-Length: 0", line="POST /api HTTP/1.1")
    assert RequestFilter(OWN_PORTS).feed(request) == request


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://localhost:9999", "http://127.0.0.1", "https://localhost:8888", ""],
)
@pytest.mark.parametrize("more", [(), ("Connection: Upgrade", "Upgrade: websocket")])
def test_other_origin_is_refused_for_requests_and_websockets(origin: str, more: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="may not use this tunnel"):
        RequestFilter(OWN_PORTS).feed(head(f"Origin: {origin}", *more))


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        (("Sec-Fetch-Site: same-origin",), True),
        (("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), True),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"), True),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"), False),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"), False),
        (("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image"), False),
        (("Sec-Fetch-Site: same-site", "Referer: http://localhost:9999/page"), False),
        (("Sec-Fetch-Site: same-site",), False),
        (("Sec-Fetch-Site: same-site", "Referer: http://localhost:3000/page"), True),
    ],
)
def test_fetch_metadata_decides(fields: tuple[str, ...], *, passes: bool) -> None:
    request = head(*fields)
    if passes:
        assert RequestFilter(OWN_PORTS).feed(request) == request
        return
    with pytest.raises(Refused):
        RequestFilter(OWN_PORTS).feed(request)


def test_form_of_another_sites_page_is_refused_although_it_navigates() -> None:
    fields = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Content-Length: 3")
    with pytest.raises(Refused):
        RequestFilter(OWN_PORTS).feed(head(*fields, line="POST /api HTTP/1.1") + b"a=b")


FIRST_OF_TWO = {
    "no body": head(),
    "a body": head("Content-Length: 5", line="POST / HTTP/1.1") + b"12345",
    "chunks": head("Transfer-Encoding: chunked", line="POST / HTTP/1.1")
    + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nEnd: 1\r\n\r\n",
    "no chunks": head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("first", FIRST_OF_TWO.values(), ids=FIRST_OF_TWO)
@pytest.mark.parametrize("piece", [1, 2, 7, 10_000])
def test_every_request_of_a_connection_is_checked(first: bytes, piece: int) -> None:
    request_filter, good = RequestFilter(OWN_PORTS), first + head()
    assert b"".join(request_filter.feed(good[at : at + piece]) for at in range(0, len(good), piece)) == good
    with pytest.raises(Refused):
        request_filter.feed(head("Origin: http://evil.example"))


@pytest.mark.parametrize(
    "request_",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked", line="POST / HTTP/1.1"),
        head("Content-Length: 5", "Content-Length: 6", line="POST / HTTP/1.1"),
        head("Content-Length: +5", line="POST / HTTP/1.1"),
        head("Content-Length:", line="POST / HTTP/1.1"),
        head("Content-Length: 5_0", line="POST / HTTP/1.1"),
        head("Transfer-Encoding: gzip, chunked", line="POST / HTTP/1.1"),
        head("Transfer-Encoding : chunked", line="POST / HTTP/1.1"),
        head(" folded"),
        b"GET / HTTP/1.1\r\nHost: localhost\nOrigin: http://evil.example\r\n\r\n",
        head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"zz\r\n",
        head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"1\r\nabc\r\n",
    ],
)
def test_ambiguous_request_is_refused(request_: bytes) -> None:
    with pytest.raises(Refused) as refused:
        RequestFilter(OWN_PORTS).feed(request_)
    assert refused.value.status.startswith("400")


@pytest.mark.parametrize("line", ["GET /" + "a" * (HEAD_LIMIT + 10), "GET / HTTP/1.1\r\nA: " + "a" * HEAD_LIMIT])
def test_endless_head_is_refused(line: str) -> None:
    with pytest.raises(Refused) as refused:
        RequestFilter(OWN_PORTS).feed(line.encode())
    assert refused.value.status.startswith("431")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",  # TLS
        b"Content-Length: 119\r\n\r\n{",  # a debugger
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET key\r\n",  # Redis
        b"PING\r\n",
        b"SELECT 1",
        b"\0",
        b"GET / RTSP/1.0\r\n\r\n",
    ],
)
def test_other_protocol_is_forwarded_at_once(data: bytes) -> None:
    request_filter = RequestFilter(OWN_PORTS)
    assert request_filter.feed(data) == data
    assert request_filter.protocol_known
    assert request_filter.first_request is None


def test_everything_after_an_upgrade_is_forwarded() -> None:
    request_filter = RequestFilter(OWN_PORTS)
    upgrade = head("Origin: http://localhost:8888", "Connection: keep-alive, Upgrade", "Upgrade: websocket")
    frames = b"\x81\x85GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert request_filter.feed(upgrade + frames[:5]) + request_filter.feed(frames[5:]) == upgrade + frames


def test_incomplete_head_is_held_back() -> None:
    request_filter = RequestFilter(OWN_PORTS)
    assert request_filter.feed(head()[:-1]) == b""
    assert not request_filter.protocol_known
    assert request_filter.feed(head()[-1:]) == head()
    assert request_filter.protocol_known
    assert request_filter.first_request is not None


@pytest.mark.parametrize(
    ("line", "fields", "repeatable", "page"),
    [
        ("GET / HTTP/1.1", ("Accept: text/html,*/*",), True, True),
        ("GET / HTTP/1.1", ("Accept: application/json",), True, False),
        ("HEAD / HTTP/1.1", ("Accept: text/html",), True, False),
        ("POST / HTTP/1.1", ("Content-Length: 0",), False, False),
        ("GET / HTTP/1.1", ("Content-Length: 4",), False, False),
    ],
)
def test_properties_of_the_first_request(line: str, fields: tuple[str, ...], *, repeatable: bool, page: bool) -> None:
    request_filter = RequestFilter(OWN_PORTS)
    request_filter.feed(head(*fields, line=line))
    assert request_filter.first_request is not None
    assert (request_filter.first_request.is_repeatable, request_filter.first_request.wants_page) == (repeatable, page)

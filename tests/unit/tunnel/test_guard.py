"""What of a client's bytes may pass to a service, and what shows that a foreign page sent them."""

from __future__ import annotations

import pytest

from gpurun.tunnel.guard import HEAD_LIMIT, Guard, Refused

OURS = {8888, 3000}


def head(*fields: str, line: str = "GET /lab HTTP/1.1", host: str | None = "127.0.0.1:8888") -> bytes:
    lines = [line, *([f"Host: {host}"] if host else []), *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


@pytest.mark.parametrize("host", ["localhost:8888", "127.0.0.1:8888", "[::1]:8888", "localhost", "LOCALHOST:1", None])
def test_who_calls_this_laptop_by_its_own_name_passes(host: str | None) -> None:
    request = head(host=host)
    assert Guard(OURS).feed(request) == request


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
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(Refused) as refused:
        Guard(OURS).feed(head(f"Host: {host}", host=None))
    assert refused.value.status.startswith(("403", "400"))


def test_a_method_of_any_length_is_one() -> None:
    """A page that came here by another name may send one, in pieces: its first line is long too."""
    request = head(host="evil.example", line=f"{'A' * 40} /{'x' * 3000} HTTP/1.1")
    guard = Guard(OURS)
    assert guard.feed(request[:2000]) == b""
    with pytest.raises(Refused):
        guard.feed(request[2000:])


@pytest.mark.parametrize("piece", [1 << 10, 1 << 15, 1 << 18])
def test_a_method_longer_than_what_comes_at_once_is_one_too(piece: int) -> None:
    """A page that has rebound its name may call its method as it likes."""
    guard, sent = Guard(OURS), head(line="A" * 300_000 + " / HTTP/1.1", host="evil.example")
    pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    with pytest.raises(Refused, match="too long"):
        list(map(guard.feed, pieces))


def test_a_debugger_that_waits_for_an_answer_to_its_first_word_gets_through() -> None:
    guard = Guard(OURS)
    assert guard.feed(b"JDWP-Handshake") == b"JDWP-Handshake"
    assert guard.decided
    with pytest.raises(Refused):
        Guard(OURS).feed(head(line="JDWP-Handshake / HTTP/1.1", host="evil.example"))


def test_lines_without_a_carriage_return_are_answered() -> None:
    with pytest.raises(Refused, match="the ends of its lines") as refused:
        Guard(OURS).feed(b"GET / HTTP/1.0\nHost: localhost\n\n")
    assert refused.value.status.startswith("400")


def test_a_second_host_is_refused() -> None:
    with pytest.raises(Refused):
        Guard(OURS).feed(head("Host: evil.example"))


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8888", "http://localhost:8888", "http://localhost:3000"])
def test_pages_of_our_own_doors_may_use_each_other(origin: str) -> None:
    request = head(f"Origin: {origin}", "Sec-Fetch-Site: same-site", "Content-Length: 0", line="POST /api HTTP/1.1")
    assert Guard(OURS).feed(request) == request


@pytest.mark.parametrize(
    "origin",
    ["null", "https://evil.example", "http://localhost:9999", "http://127.0.0.1", "https://localhost:8888", ""],
)
@pytest.mark.parametrize("more", [(), ("Connection: Upgrade", "Upgrade: websocket")])
def test_another_origin_is_refused_for_requests_and_websockets(origin: str, more: tuple[str, ...]) -> None:
    with pytest.raises(Refused, match="may not use this tunnel"):
        Guard(OURS).feed(head(f"Origin: {origin}", *more))


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
def test_what_a_browser_says_of_the_page_decides(fields: tuple[str, ...], *, passes: bool) -> None:
    request = head(*fields)
    if passes:
        assert Guard(OURS).feed(request) == request
        return
    with pytest.raises(Refused):
        Guard(OURS).feed(request)


def test_a_form_sent_from_another_page_is_refused_though_it_navigates() -> None:
    fields = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document", "Content-Length: 3")
    with pytest.raises(Refused):
        Guard(OURS).feed(head(*fields, line="POST /api HTTP/1.1") + b"a=b")


FIRST_OF_TWO = {
    "no body": head(),
    "a body": head("Content-Length: 5", line="POST / HTTP/1.1") + b"12345",
    "chunks": head("Transfer-Encoding: chunked", line="POST / HTTP/1.1")
    + b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nEnd: 1\r\n\r\n",
    "no chunks": head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("first", FIRST_OF_TWO.values(), ids=FIRST_OF_TWO)
@pytest.mark.parametrize("piece", [1, 2, 7, 10_000])
def test_every_request_of_a_connection_is_looked_at(first: bytes, piece: int) -> None:
    guard, good = Guard(OURS), first + head()
    assert b"".join(guard.feed(good[at : at + piece]) for at in range(0, len(good), piece)) == good
    with pytest.raises(Refused):
        guard.feed(head("Origin: http://evil.example"))


@pytest.mark.parametrize(
    "request_",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked", line="POST / HTTP/1.1"),
        head("Content-Length: 5", "Content-Length: 6", line="POST / HTTP/1.1"),
        head("Content-Length: +5", line="POST / HTTP/1.1"),
        head("Content-Length: 5_0", line="POST / HTTP/1.1"),
        head("Transfer-Encoding: gzip, chunked", line="POST / HTTP/1.1"),
        head("Transfer-Encoding : chunked", line="POST / HTTP/1.1"),
        head(" folded"),
        b"GET / HTTP/1.1\r\nHost: localhost\nOrigin: http://evil.example\r\n\r\n",
        head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"zz\r\n",
        head("Transfer-Encoding: chunked", line="POST / HTTP/1.1") + b"1\r\nabc\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(request_: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Guard(OURS).feed(request_)
    assert refused.value.status.startswith("400")


@pytest.mark.parametrize("line", ["GET /" + "a" * (HEAD_LIMIT + 10), "GET / HTTP/1.1\r\nA: " + "a" * HEAD_LIMIT])
def test_an_endless_head_is_refused_and_never_passed(line: str) -> None:
    with pytest.raises(Refused) as refused:
        Guard(OURS).feed(line.encode())
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
def test_what_no_browser_says_passes_at_once(data: bytes) -> None:
    guard = Guard(OURS)
    assert guard.feed(data) == data
    assert guard.decided
    assert guard.first is None


def test_after_an_upgrade_all_passes() -> None:
    guard = Guard(OURS)
    upgrade = head("Origin: http://localhost:8888", "Connection: keep-alive, Upgrade", "Upgrade: websocket")
    frames = b"\x81\x85GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    assert guard.feed(upgrade + frames[:5]) + guard.feed(frames[5:]) == upgrade + frames


def test_a_head_is_held_back_until_it_is_whole() -> None:
    guard = Guard(OURS)
    assert guard.feed(head()[:-1]) == b""
    assert not guard.decided
    assert guard.feed(head()[-1:]) == head()
    assert guard.decided
    assert guard.first is not None


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
def test_what_is_known_of_the_first_request(
    line: str, fields: tuple[str, ...], *, repeatable: bool, page: bool
) -> None:
    guard = Guard(OURS)
    guard.feed(head(*fields, line=line))
    assert guard.first is not None
    assert (guard.first.repeatable, guard.first.for_page) == (repeatable, page)

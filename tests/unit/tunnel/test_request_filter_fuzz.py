"""Compare the request filter with h11 on random HTTP/1 traffic: the filter must see every request that h11 sees.

A request that h11 sees and the filter does not see reaches a service unchecked. The other way round is harmless: the filter may
refuse what h11 accepts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import h11
import pytest

from gpurun.tunnel.request_filter import HEAD_LIMIT, Refused, Request, RequestFilter

STREAMS = 1000  # for each seed
OWN_PORTS = {8888}
CHECKED_FIELDS = ("host", "origin", "referer", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest")

# The aim of an attack is a hidden request. It names another site, which the filter must notice.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n"

# Usual and unusual parts of a request.
METHODS = b"GET POST HEAD OPTIONS PUT CONNECT JDWP-Handshake XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX get P@ST PRI".split()
TARGETS = [*b"/ /lab?a=b * http://localhost/ localhost:80 name //x".split(), b"/a b", b"/\x01", b"/" * 300, b""]
VERSIONS = [*b"HTTP/1.0 HTTP/0.9 HTTP/1.2 HTTP/2.0 HTTP/1.10 http/1.1 HTTP/1.1x HTTP/1,1 RTSP/1.0".split(), b""]
HOSTS = [
    *b"127.0.0.1:8888 evil.example [::1] localhost,evil.example evil.example,[::1] localhost@evil.example".split(),
    b"",
]
LENGTHS = [*b"0 3 3,3 +3 -1 0x3 03 3.0 999999999999999999999999 \xb2".split(), b"3 3", b" 3", b"", b"%d" % len(HIDDEN)]
CODINGS = [b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"chunked;a=b", b"\tchunked", b""]
CHUNK_SIZES = [
    b"3",
    b"03",
    b"3;name=value",
    b"3 ;a",
    b"3\t",
    b" 3",
    b"0x3",
    b"+3",
    b"3\n",
    b"g",
    b"%x" % (1 << 70),
    b"",
]
LAST_CHUNKS = [b"00;x\r\nTrailer: a\r\n\r\n", b"0\r\n" + HIDDEN, b"0\n\n", b"0\r\n X\r\n\r\n", b"0\r\n\r\n\r\n", b""]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\n", b"\r\n\r\n", b" \r\n", b""]
DAMAGE = [b"", b" ", b"\0", b"\t", b"\r", b"\n", b"\r\n", b":", b"\x80", b"0", b",", HIDDEN]
FIELDS = [
    b"Origin: http://localhost:8888",
    b"Origin: http://evil.example",
    b"Origin: [::1]:8888",
    b"Origin:",
    b"ORIGIN:\thttp://evil.example \t",
    b"Sec-Fetch-Site: same-origin",
    b"Sec-Fetch-Site: cross-site",
    b"Sec-Fetch-Mode: navigate",
    b"Sec-Fetch-Dest: document",
    b"Referer: http://localhost:8888/",
    b"Host: evil.example",
    b"Host: [::1]",
    b"Accept: text/html",
    b"X-Folded: a\r\n b",
    b"X-Bad : a",
    b"X-Bare: a\nOrigin: http://evil.example",
    b"X-Bare: a\rb",
    b"X-Zero: a\0b",
    b"X-Latin: \xe9",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b": empty",
    b"no colon",
]


class Traffic:
    """Random traffic, in which each part is unusual with the probability `oddity`."""

    def __init__(self, rng: random.Random, oddity: float) -> None:
        self.rng, self.oddity = rng, oddity

    def pick(self, usual: bytes, unusual: list[bytes]) -> bytes:
        return self.rng.choice(unusual) if self.rng.random() < self.oddity else usual

    def head(self, *fields: bytes) -> bytes:
        method, target = self.rng.choice(METHODS[:4]), self.rng.choice(TARGETS[:3])
        line = b" ".join([self.pick(method, METHODS), self.pick(target, TARGETS), self.pick(b"HTTP/1.1", VERSIONS)])
        all_fields = [b"Host: " + self.pick(b"localhost:8888", HOSTS), *fields]
        if self.rng.random() < self.oddity:
            all_fields += self.rng.sample(FIELDS, self.rng.randint(1, 3))
        self.rng.shuffle(all_fields)
        return b"".join(each + self.pick(b"\r\n", LINE_ENDS) for each in [line, *all_fields, b""])

    def chunks(self) -> bytes:
        chunk_ends = [b"", b"\n", b"xx"]
        return b"".join(
            self.pick(b"3", CHUNK_SIZES) + self.pick(b"\r\n", LINE_ENDS) + b"abc" + self.pick(b"\r\n", chunk_ends)
            for _ in range(self.rng.randrange(3))
        ) + self.pick(b"0\r\n\r\n", LAST_CHUNKS)

    def request(self) -> bytes:
        kind = self.rng.choice(["no body", "length", "chunks"])
        has_both = self.rng.random() < self.oddity / 4
        fields, body = [], b""
        if kind == "length" or has_both:
            body = self.rng.choice([b"abc", HIDDEN])
            fields.append(b"Content-Length: " + self.pick(b"%d" % len(body), LENGTHS))
        if kind == "chunks" or has_both:
            body = self.chunks()
            fields.append(b"Transfer-Encoding: " + self.pick(b"chunked", CODINGS))
        return self.head(*fields) + body

    def stream(self) -> bytes:
        """Return what a client sends on one connection."""
        requests = [self.request() for _ in range(self.rng.randint(1, 3))]
        stream = self.pick(b"", [b"\r\n", b"\n", b"\r", b" "]) + b"".join(requests) + self.pick(b"", [HIDDEN])
        if self.rng.random() < self.oddity:
            start = self.rng.randrange(len(stream))
            stream = stream[:start] + self.rng.choice(DAMAGE) + stream[start + self.rng.randrange(3) :]
        return stream


@dataclass(frozen=True)
class Seen:
    """A request as one of the two parsers sees it."""

    method: str
    target: str
    checked: dict[str, str]


def seen_by_h11(stream: bytes) -> list[tuple[Seen, int]]:
    """Return the requests that a server with h11 sees before its first error, and the length of each body."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
    server.receive_data(stream)
    seen: list[tuple[Seen, int]] = []
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                fields = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
                checked = {name: fields[name] for name in CHECKED_FIELDS if name in fields}
                seen.append((Seen(event.method.decode(), event.target.decode("latin-1"), checked), 0))
            elif isinstance(event, h11.Data):
                request, length = seen[-1]
                seen[-1] = request, length + len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                server.send(h11.Response(status_code=204, headers=[]))
                server.send(h11.EndOfMessage())
                server.start_next_cycle()
            else:  # it needs more data, or the connection has ended
                return seen
    except h11.ProtocolError:
        return seen


class FilterRun:
    """What the filter does with a stream: the requests it sees, the bytes it forwards, its refusal."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.seen: list[Seen] = []
        self.is_upgraded = False
        self.refusal: Refused | None = None
        self.forwarded = b""
        request_filter = RequestFilter(OWN_PORTS, self._note)
        try:
            for piece in pieces:
                self.forwarded += request_filter.feed(piece)
        except Refused as refused:
            self.refusal = refused

    def _note(self, request: Request) -> None:
        checked = {name: request.fields[name] for name in CHECKED_FIELDS if name in request.fields}
        self.seen.append(Seen(request.method, request.target, checked))
        self.is_upgraded = self.is_upgraded or request.is_upgrade


def split(rng: random.Random, stream: bytes) -> list[bytes]:
    """Cut the stream into pieces, as the network may do it."""
    size = rng.choice([1, 2, 7, 50, len(stream)])
    return [stream[start : start + size] for start in range(0, len(stream), size)]


@pytest.mark.parametrize("oddity", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("seed", range(2))
def test_filter_sees_every_request_that_h11_sees(seed: int, oddity: float) -> None:
    rng = random.Random(seed)
    forwarded = refused = 0
    for _ in range(STREAMS):
        stream = Traffic(rng, oddity).stream()
        pieces = split(rng, stream)
        run = FilterRun(pieces)
        sent = [seen for seen, _ in seen_by_h11(stream)]
        received = [seen for seen, _ in seen_by_h11(run.forwarded)]
        what = (pieces, sent, received, run.seen, run.refusal)
        assert stream.startswith(run.forwarded), what
        assert not any("evil" in seen.checked.get(name, "") for seen in run.seen for name in ("host", "origin")), what
        if run.is_upgraded:  # what follows is not HTTP
            sent, received = sent[: len(run.seen)], received[: len(run.seen)]
        assert received == run.seen[: len(received)], what
        forwarded += len(received)
        refused += len(sent) - len(received)
    # The traffic must exercise both outcomes, else the comparison proves nothing.
    assert forwarded > STREAMS / 10
    assert refused > STREAMS / 50


def test_filter_forwards_ordinary_traffic_unchanged() -> None:
    rng = random.Random(0)
    for _ in range(STREAMS):
        stream = Traffic(rng, 0.0).stream()
        run = FilterRun(split(rng, stream))
        assert (run.refusal, run.forwarded) == (None, stream)
        assert [seen for seen, _ in seen_by_h11(stream)] == run.seen


@pytest.mark.parametrize("lengths", [(0,), (3, 0, 5), (100_000, 1)])
def test_filter_and_h11_agree_on_body_lengths(lengths: tuple[int, ...]) -> None:
    head = "POST /api HTTP/1.1\r\nHost: localhost:8888\r\nOrigin: http://localhost:8888\r\nContent-Length: {}\r\n\r\n"
    stream = b"".join(head.format(length).encode() + b"x" * length for length in lengths)
    run = FilterRun([stream])
    assert (run.refusal, run.forwarded) == (None, stream)
    assert seen_by_h11(stream) == list(zip(run.seen, lengths, strict=True))

"""Arbitrary bytes into the reader. SHADOWCAT_FUZZ_EXAMPLES=100000 makes it a long run."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadowcat.http.check import Refusal
from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Request
from shadowcat.http.reader import RequestReader

EXAMPLES = int(os.environ.get("SHADOWCAT_FUZZ_EXAMPLES", "0"))
fuzz = settings(max_examples=EXAMPLES or 300)
pytestmark = pytest.mark.timeout(0 if EXAMPLES else 120)

LIMITS = ServerLimits(body_bytes=300, head_bytes=400, head_fields=8, target_bytes=100)


class Heard:
    """A reader and what it handed over; nothing may come after a refusal or the last request."""

    def __init__(self, limits: ServerLimits = LIMITS) -> None:
        self.items: list[Request | Refusal] = []
        self.last = False
        self.reader = RequestReader(limits, self.deliver, lambda: None)

    def deliver(self, item: Request | Refusal, keep_alive: bool) -> None:
        assert not self.last, "after the last"
        self.items.append(item)
        self.last = not keep_alive
        assert self.reader.closed == self.last
        if isinstance(item, Refusal):
            assert self.last
            assert 400 <= item.status < 600
        else:
            assert len(item.body) <= LIMITS.body_bytes

    @classmethod
    def of(cls, pieces: list[bytes]) -> Heard:
        heard = cls()
        for piece in pieces:
            heard.reader.feed(piece)
        return heard

    def told(self) -> list[object]:
        return [
            item.status
            if isinstance(item, Refusal)
            else (item.method, item.target, list(item.headers), item.headers.repeated, item.body)
            for item in self.items
        ]


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(at % (len(data) + 1) for at in cuts)
    return [data[start:end] for start, end in zip([0, *ends], [*ends, len(data)], strict=True)]


cuts = st.lists(st.integers(0, 10_000), max_size=8)

# Requests that are right.

bodies = st.one_of(
    st.binary(max_size=60),
    # A body that looks like a request is the one that would be mistaken for one.
    st.just(b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
    st.just(b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
)
UPGRADE = b"connection: upgrade\r\nupgrade: h2c\r\n"


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The bytes of a request, and its body."""
    body = draw(bodies)
    head = b"POST / HTTP/1.1\r\nhost: a\r\n" + draw(st.sampled_from([b"", UPGRADE, b"x: y\r\n", b"x:\r\n"]))
    if draw(st.booleans()):
        return head + b"content-length: %d\r\n\r\n" % len(body) + body, body
    pieces = [piece for piece in cut(body, draw(cuts)) if piece]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"x: y\r\n"]))
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n", body


@fuzz
@given(st.lists(requests(), min_size=1, max_size=5), cuts)
def test_each_request_gets_its_own_body(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    heard = Heard.of(cut(b"".join(raw for raw, _ in sent), cuts))
    assert [item.body if isinstance(item, Request) else item for item in heard.items] == [
        body for _, body in sent
    ]
    assert all(isinstance(item, Request) and item.target == b"/" for item in heard.items)
    assert heard.reader.is_idle
    assert not heard.reader.closed


# Requests that may not be.

TOKENS = [
    *(b"GET", b"POST", b"HEAD", b"CONNECT", b"TRACE", b"BREW", b"OPTIONS", b"PRI"),
    *(b" / ", b" ", b"/", b"*", b"http://a/", b"http://b/", b"/" + b"a" * 120, b"\t"),
    *(
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/0.9",
        b"HTTP/2.0",
        b"RTSP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\0",
    ),
    *(
        b"host: a\r\n",
        b"host: b\r\n",
        b"host:\r\n",
        b"Host : a\r\n",
        b"x: y\r\n",
        b" folded\r\n",
        b"x: " + b"y" * 300,
    ),
    *(
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"content-length: 5, 5\r\n",
        b"content-length: 400\r\n",
    ),
    *(b"transfer-encoding: chunked\r\n", b"transfer-encoding: gzip, chunked\r\n", b"connection: close\r\n"),
    *(
        b"connection: upgrade\r\n",
        b"upgrade: h2c\r\n",
        b"expect: 100-continue\r\n",
        b"content-encoding: gzip\r\n",
    ),
    *(
        b"hello",
        b"5\r\nhello\r\n",
        b"5;x=y\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nx: y\r\n\r\n",
        b"5\r\n",
        b"ffffffff\r\n",
    ),
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
]
nearly = st.lists(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4)), max_size=25).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Good requests of which a few bytes were changed, lost or doubled."""
    data = b"".join(raw for raw, _ in draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "lose", "double"])):
            case "change":
                data = data[:at] + draw(st.binary(min_size=1, max_size=2)) + data[at + 1 :]
            case "lose":
                data = data[:at] + data[at + draw(st.integers(1, 5)) :]
            case _:
                data = data[:at] + data[max(0, at - draw(st.integers(1, 30))) : at] + data[at:]
    return data


@fuzz
@given(st.one_of(nearly, damaged(), st.binary(max_size=200)), cuts)
@example(b"POST / HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"content-length: 5\r\n\r\nhello", [70])
def test_any_bytes_are_requests_or_a_refusal_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = Heard.of([data]).told()
    assert Heard.of(cut(data, cuts)).told() == whole
    assert Heard.of([data[at : at + 1] for at in range(len(data))]).told() == whole


@fuzz
@given(nearly)
def test_what_is_delivered_was_checked(data: bytes) -> None:
    for item in Heard.of([data]).items:
        if isinstance(item, Request):
            assert item.method in ("GET", "HEAD", "POST", "OPTIONS")
            assert item.target[:1] == b"/" or item.target == b"*"
            assert len(item.target) <= LIMITS.target_bytes
            assert b"host" not in item.headers.repeated
            assert b"host" in item.headers or not item.chunked_responses
            for name, value in item.headers:
                assert name == name.lower()
                assert not set(b"\r\n\0 \t:") & set(name)
                assert not set(b"\r\n\0") & set(value)


@fuzz
@given(st.binary(max_size=100), st.integers(1, 400))
def test_what_never_ends_is_refused(piece: bytes, times: int) -> None:
    """However much is fed, no more is kept than the limits allow."""
    heard = Heard(ServerLimits())
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
    filler = bytes(byte for byte in piece if byte > 32) or b"a"
    for start in (b"GET / HTTP/1.1\r\nx: ", head + b"5;", head + b"0\r\nx: "):
        heard = Heard(ServerLimits())
        heard.reader.feed(start)
        fed = 0
        while not heard.last:
            heard.reader.feed(filler * times)
            fed += len(filler) * times
            assert fed < 200_000
        assert isinstance(heard.items[-1], Refusal)

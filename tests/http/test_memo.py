"""A head that is recalled means what it meant when it was read, and nothing else is taken for it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.http.check import Refusal
from shadowcat.http.limits import ServerLimits
from shadowcat.http.memo import HeadMemo
from shadowcat.http.message import Request
from shadowcat.http.reader import RequestReader

LEARNED = b"hello"
HEAD = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Kind: b\r\n\r\n"


def message(body: bytes, length: int | None = None) -> bytes:
    return HEAD % (len(body) if length is None else length) + body


def learned(body: bytes = LEARNED) -> HeadMemo[str]:
    memo: HeadMemo[str] = HeadMemo()
    memo.learn(message(body), "it")
    return memo


def test_nothing_is_recalled_before_something_was_learned() -> None:
    memo: HeadMemo[str] = HeadMemo()
    for data in (b"", b"\r", b"\r1\r", message(b"x")):
        assert memo.recall(data) is None


@pytest.mark.parametrize("body", [b"", b"x", b"hello", b"\r\n\r\n", b"a" * 5_000])
def test_the_same_head_with_any_body_is_recalled(body: bytes) -> None:
    digits = b"" if body == LEARNED else b"%d" % len(body)
    assert learned().recall(message(body)) == ("it", digits, body)


def test_it_goes_on_from_the_length_it_had_last() -> None:
    memo = learned()
    last = len(LEARNED)
    for length in (5, 5, 1_000, 7, 1_000, 1_000, 0, 5):
        body = b"b" * length
        digits = b"" if length == last else b"%d" % length
        assert memo.recall(message(body)) == ("it", digits, body)
        last = length
        assert memo.recall(message(body)[:-1] + b"GET") is None
        assert memo.recall(message(body, length + 1)) is None


@pytest.mark.parametrize(
    "data",
    [
        message(b"hello")[:-1],
        message(b"hello") + b"G",
        message(b"hello") + message(b"hello"),
        message(b"hello", 4),
        message(b"hello").replace(b"X-Kind: b", b"X-Kind: c"),
        message(b"hello").replace(b"POST", b"post"),
        message(b"hello").replace(b"Length: 5", b"Length: +5"),
        message(b"hello").replace(b"Length: 5", b"Length: 5 "),
        message(b"hello").replace(b"Length: 5", b"Length: 00000005"),
        message(b"hello").replace(b"Length: 5", b"Length: "),
        message(b"hello").replace(b"Length: 5\r\n", b"Length: 5\n"),
        message(b"hello").replace(b"\r\nX-Kind", b"\r\nContent-Length: 5\r\nX-Kind"),
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    assert learned().recall(data) is None


@pytest.mark.parametrize(
    "data",
    [
        message(b"\r\nhello", 5),
        b"\r\n\r\n" + message(b"hello"),
        message(b"hello") + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\n\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_is_not_exactly_one_message_with_a_length_is_not_kept(data: bytes) -> None:
    memo: HeadMemo[str] = HeadMemo()
    memo.learn(data, "it")
    assert memo.recall(data) is None


Outcome = tuple[str, bytes, bytes, list[tuple[bytes, bytes]]] | int


def outcomes(pieces: list[bytes], body_bytes: int = 64) -> list[Outcome]:
    found: list[Outcome] = []

    def deliver(item: Request | Refusal, keep_alive: bool) -> None:
        if isinstance(item, Refusal):
            found.append(item.status)
        else:
            found.append((item.method, item.target, item.body, sorted(item.headers)))

    reader = RequestReader(ServerLimits(body_bytes=body_bytes), deliver, lambda: None)
    for piece in pieces:
        reader.feed(piece)
    return found


ODD = [b"+3", b"3 ", b" 3", b"03", b"3,3", b"", b"-1", b"99999999999999999999"]
heads = st.sampled_from(
    [
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\ncontent-length:%b\r\nA: b\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nConnection: close\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nExpect: 100-continue\r\n\r\n",
        b"POST /a HTTP/1.0\r\nHost: a\r\nContent-Length: %b\r\nConnection: keep-alive\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ]
)
bodies = st.sampled_from([b"", b"abc", b"\r\nx", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 80])
requests = st.builds(
    lambda head, body, odd: head % (odd if odd is not None else b"%d" % len(body)) + body,
    heads,
    bodies,
    st.none() | st.none() | st.none() | st.sampled_from(ODD),
)


@given(st.lists(requests, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_reader_that_remembers_reads_what_one_without_memory_reads(
    sent: list[bytes], shuffle: random.Random
) -> None:
    """Whole requests per read let the memo answer; the same bytes one by one never do."""
    sent = sent + [shuffle.choice(sent) for _ in range(3)]
    stream = b"".join(sent)
    assert outcomes(sent) == outcomes([stream[i : i + 1] for i in range(len(stream))])


LARGE = [16 * 1024, 40_000, 64 * 1024 + 1, 100_000]


@pytest.mark.parametrize("size", LARGE)
def test_the_head_of_a_large_message_is_recalled_too(size: int) -> None:
    found: list[Request] = []

    def deliver(item: Request | Refusal, keep_alive: bool) -> None:
        assert isinstance(item, Request)
        found.append(item)

    reader = RequestReader(ServerLimits(), deliver, lambda: None)
    for body in (LEARNED, b"x" * size, b"y" * size):
        reader.feed(message(body))
    assert [request.body for request in found] == [LEARNED, b"x" * size, b"y" * size]
    assert found[0].headers.notes is found[1].headers.notes is found[2].headers.notes is not None


@pytest.mark.parametrize("size", [*LARGE, 100_001])
def test_a_recalled_message_has_the_bounds_of_any_other(size: int) -> None:
    sent = [message(LEARNED), message(b"x" * size), message(b"y" * size)]
    stream = b"".join(sent)
    cut = [stream[at : at + 1_000] for at in range(0, len(stream), 1_000)]
    assert outcomes(sent, 100_000) == outcomes(cut, 100_000)

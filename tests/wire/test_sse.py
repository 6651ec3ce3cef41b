from __future__ import annotations

import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.wire.sse import (
    KEEPALIVE,
    SseDecoder,
    SseEvent,
    SseEvents,
    encode_event,
    encode_messages,
    encode_priming,
    only_message,
)
from tests.wire import texts

BOM = b"\xef\xbb\xbf"


def decode(stream: bytes) -> list[SseEvent]:
    return SseDecoder().feed(stream)


def events(*data: bytes) -> list[SseEvent]:
    return [SseEvent(text) for text in data]


def reference(stream: bytes) -> list[SseEvent]:
    """The algorithm of the HTML standard, a line at a time."""
    found: list[SseEvent] = []
    data: bytes | None = None
    event, id, retry = b"", None, None
    for line in re.split(rb"\r\n|\n|\r", stream.removeprefix(BOM))[:-1]:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if (data, id, retry) != (None, None, None):
                found.append(SseEvent(data, event or b"message", id, retry))
            data, event, id, retry = None, b"", None, None
        elif field == b"data":
            data = value if data is None else data + b"\n" + value
        elif field == b"event":
            event = value
        elif field == b"id" and b"\0" not in value:
            id = value
        elif field == b"retry" and re.fullmatch(rb"[0-9]+", value):
            retry = int(value)
    return found


# One case for each rule.


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # Lines.
        pytest.param(b"data:a\n\ndata:b\n\n", events(b"a", b"b"), id="LF"),
        pytest.param(b"data:a\r\rdata:b\r\r", events(b"a", b"b"), id="CR"),
        pytest.param(b"data:a\r\n\r\ndata:b\r\n\r\n", events(b"a", b"b"), id="CRLF"),
        pytest.param(b"data:a\r\ndata\rdata:b\n\r\n", events(b"a\n\nb"), id="mixed line ends"),
        pytest.param(b"data:a\n\r\ndata:b\r\n\n", events(b"a", b"b"), id="LF and CRLF"),
        pytest.param(b"data:a\n\rdata:b\r\n\r", events(b"a", b"b"), id="LF then CR are two line ends"),
        pytest.param(b"\n\r\n\r\n\ndata:a\n\n\n\ndata:b\n\n", events(b"a", b"b"), id="blank lines"),
        pytest.param("data:a\u2028b\u2029c\u0085d\x0b\x0c\n\n".encode(),
                     events("a\u2028b\u2029c\u0085d\x0b\x0c".encode()), id="no other line ends"),
        # The end.
        pytest.param(b"data:a\n\ndata:b", events(b"a"), id="unfinished line"),
        pytest.param(b"data:a\n\ndata:b\n", events(b"a"), id="unfinished event"),
        pytest.param(b"retry:1000\nid:1\ndata:a\n\nid:2\ndata:b\n", [SseEvent(b"a", b"message", b"1", 1000)],
                     id="nothing of an unfinished event"),
        pytest.param(b"", [], id="nothing"),
        # BOM.
        pytest.param(BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", events(b"1", b"3"),
                     id="BOM at the start only"),
        pytest.param(BOM + BOM + b"data:1\n\ndata:2\n\n", events(b"2"), id="one BOM only"),
        pytest.param(b"\xef\xbbdata:1\n\ndata:2\n\n", events(b"2"), id="two thirds of a BOM"),
        # Fields.
        pytest.param(b"data: 1\n\ndata:  2\n\ndata:\t3\n\n", events(b"1", b" 2", b"\t3"), id="one leading space"),
        pytest.param(b"data:\n\ndata\n\ndata: \n\n", events(b"", b"", b""), id="empty data is an event"),
        pytest.param(b"data\ndata\n\ndata:a\ndata\ndata:b\n\n", events(b"\n", b"a\n\nb"), id="data lines are joined"),
        pytest.param(b"data:a:b: c\n\n", events(b"a:b: c"), id="further colons"),
        pytest.param(b"data:\0\n\n", events(b"\0"), id="NUL in data"),
        pytest.param(b"Data:1\ndata\0:2\nda-ta:3\ndata_4\n data:5\ndata :6\ndata:7\n\n", events(b"7"),
                     id="no such field"),
        pytest.param(b"data:a\njusttext\n\nfoobar:x\n\n", events(b"a"), id="unknown fields"),
        pytest.param(b":\n\n: data:x\n:\0\ndata:a\n:data:y\n\n", events(b"a"), id="comments"),
        pytest.param(KEEPALIVE + b"data:a\n\n" + KEEPALIVE, events(b"a"), id="keepalive"),
        pytest.param("data:é世\n\n".encode(), events("é世".encode()), id="UTF-8"),
        pytest.param(b"data:\xff\n\n", events(b"\xff"), id="not UTF-8 is left to whoever reads it"),
        # event, id, retry.
        pytest.param(b"event:x\ndata:a\n\ndata:b\n\n", [SseEvent(b"a", b"x"), SseEvent(b"b")], id="event is for once"),
        pytest.param(b"event: x\nevent:y\ndata:a\n\n", [SseEvent(b"a", b"y")], id="the last event name"),
        pytest.param(b"event:x\nevent:\ndata:a\n\n", events(b"a"), id="an empty event name"),
        pytest.param(b"event:x\n\ndata:a\n\n", events(b"a"), id="event without data"),
        pytest.param(b"id: 1\ndata:a\n\n", [SseEvent(b"a", id=b"1")], id="id"),
        pytest.param(b"id:1\n\n", [SseEvent(None, id=b"1")], id="id without data"),
        pytest.param(b"id\ndata:a\n\n", [SseEvent(b"a", id=b"")], id="an empty id"),
        pytest.param(b"id:1\nid:2\0\ndata:a\n\n", [SseEvent(b"a", id=b"1")], id="NUL in id"),
        pytest.param(b"retry: 3000\n\n", [SseEvent(None, retry=3000)], id="retry"),
        pytest.param(b"retry:3000\nretry:1000x\nretry\nretry:-1\nretry:+1\nretry: 1 \nretry:1.5\ndata:a\n\n",
                     [SseEvent(b"a", retry=3000)], id="bad retries"),
        pytest.param("retry:٣\n\nretry:³\n\n".encode(), [], id="digits of other scripts"),
        pytest.param(b"retry:000000000000003000\n\n", [SseEvent(None, retry=3000)], id="leading zeros"),
        pytest.param(b"retry:000\n\n", [SseEvent(None, retry=0)], id="only zeros"),
    ],
)  # fmt: skip
def test_decoding(stream: bytes, expected: list[SseEvent]) -> None:
    assert decode(stream) == expected
    assert reference(stream) == expected
    decoder = SseDecoder()
    assert [event for byte in stream for event in decoder.feed(bytes([byte]))] == expected


def test_endless_retry_digits_cost_nothing() -> None:
    stream = b"retry:" + b"9" * 1_000_000 + b"\n\n"
    assert texts.cpu_seconds(lambda: decode(stream)) < 0.1
    (event,) = decode(stream)
    assert event.retry == 999_999_999_999


# Any cut.

_pieces = st.one_of(
    st.sampled_from(
        [b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"data:", b"data: ", b"data", b"event:", b"id:",
         b"retry:", b"retry: 30\n", b":", b" ", b"\0", BOM, b"\xef", b"\xbb", "\u2028".encode(), b"x", b"7"]
    ),
    # As nearly all events are, and what only begins or ends like one.
    st.sampled_from(
        [b"event: message\nid: 7\ndata: x\n\n", b"event: message\nid: 8\ndata: y\n\n", b"event: message\nid: ",
         b"event: message\nid: 9\n\n", b"event: message\nid: 7\ndata: x\ndata: ", b"7\ndata: x\n\n"]
    ),
    st.binary(max_size=3),
)  # fmt: skip
streams = st.builds(
    bytes.__add__,
    st.sampled_from([b"", b"", BOM, BOM[:1], BOM[:2]]),
    st.lists(_pieces, max_size=40).map(b"".join),
)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Pieces of the stream, some of them empty."""
    ends = sorted(place % (len(stream) + 1) for place in places)
    return [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]


@given(streams, st.lists(st.integers(0, 1000), max_size=12))
def test_any_cut_gives_the_events_of_the_reference(stream: bytes, places: list[int]) -> None:
    decoder = SseDecoder()
    assert [event for piece in cut(stream, places) for event in decoder.feed(piece)] == reference(stream)


@given(streams, st.integers(1, 3))
def test_small_reads_give_the_events_of_the_reference(stream: bytes, size: int) -> None:
    decoder = SseDecoder()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [event for piece in pieces for event in decoder.feed(piece)] == reference(stream)


@pytest.mark.parametrize(
    "odd",
    [
        b"data: x\n\n",
        b"data: x\n",
        b"data: ",
        b"id: 9\n\n",
        b"retry: 30\n\n",
        b": keepalive\n\n",
        b"\n",
        b"event: message\nid: 9\n\n",
        b"event: message\ndata: x\nid: 9\n\n",
        b"event: other\nid: 9\ndata: x\n\n",
        b"event: message\nid: 9\ndata: x\ndata: y\n\n",
        b"event: message\nid: 9\ndata: x\nretry: 30\n\n",
        b"event: message\nid: 9\ndata: x\r\ry\n\n",
        b"event: message\nid: 9\0\ndata: x\n\n",
        b"event: message\nid: \ndata: \n\n",
        b"event: message\nid: 9\ndata: x\n",
        b"event: message\nid: event: message\nid: 9\ndata: x\n\n",
    ],
)
@pytest.mark.parametrize("place", range(4))
def test_one_that_is_different_among_usual_events(odd: bytes, place: int) -> None:
    blocks = [b"event: message\nid: %d\ndata: {}\n\n" % number for number in range(3)]
    blocks.insert(place, odd)
    stream = b"".join(blocks)
    assert decode(stream) == reference(stream)


@pytest.mark.parametrize(
    "said",
    [
        b"event: message\r\ndata: {}\r\n\r\n",
        b"id: 7\r\nevent: message\r\ndata: {}\r\n\r\n",
        b"event: message\ndata: {}\n\n",
        b"event: message\nid: 7_x\ndata: {}\n\n",
    ],
)
def test_one_message_as_the_official_servers_write_it(said: bytes) -> None:
    assert only_message(said) == b"{}"
    assert only_message(said + said) is None
    assert only_message(said[:-1]) is None


_written = st.builds(
    lambda before, after, data, end: b"".join(
        [before, b"event: message", end, after, b"data: ", data, end, end]
    ),
    st.sampled_from([b"", b"id: 7\n", b"id: \0\r\n", b"id:7\n", b"\n", b": \n"]),
    st.sampled_from([b"", b"id: 7\n", b"event: x\n", b"data: y\n", b"retry: 7\n"]),
    st.binary(max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
)


@given(st.one_of(streams, _written))
def test_one_message_is_what_the_decoder_makes_of_it(stream: bytes) -> None:
    only = only_message(stream)
    if only is not None:
        decoder = SseDecoder()
        assert [(event.event, event.data) for event in decoder.feed(stream)] == [(b"message", only)]
        assert not decoder.has_begun


def test_no_object_is_made_of_the_usual_ones_in_front() -> None:
    usual = b"event: message\nid: 1\ndata: {}\n\nevent: message\nid: \ndata: 2\n\n"
    without_data = b"event: message\nid: 3\ndata: \n\n"
    found = SseDecoder().read(usual + without_data + b"event")
    assert found == SseEvents([b"1", b""], [b"{}", b"2"], [SseEvent(b"", id=b"3")])
    assert len(found) == 3


def test_an_empty_read_between_cr_and_lf_changes_nothing() -> None:
    decoder = SseDecoder()
    assert [decoder.feed(piece) for piece in (b"data:a\r", b"", b"\ndata:b\r\n\r", b"\n")][2] == events(
        b"a\nb"
    )


def test_an_event_is_given_as_soon_as_its_blank_line_is_seen() -> None:
    decoder = SseDecoder()
    assert decoder.feed(b"data:a\r\n") == []
    assert decoder.feed(b"\r") == events(b"a")
    assert decoder.feed(b"\n") == []


# Bounds.


@pytest.mark.parametrize("size", [1, 5, 64, 1000])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_an_event_up_to_its_bound(size: int, end: bytes) -> None:
    stream = b"data:" + b"x" * 59 + end
    decoder = SseDecoder(max_event_bytes=64)
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert [event for piece in pieces for event in decoder.feed(piece)] == events(b"x" * 59)
    assert decoder.held_bytes <= 1


def feed_bounded(decoder: SseDecoder, pieces: list[bytes]) -> None:
    for piece in pieces:
        decoder.feed(piece)
        assert decoder.held_bytes <= 65


@pytest.mark.parametrize("size", [1, 5, 64, 1000])
@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data:" + b"x" * 60 + b"\n\n", id="one line"),
        pytest.param(b"data:x\n" * 10 + b"\n", id="many lines"),
        pytest.param(b"data:" + b"x" * 60, id="unterminated"),
        pytest.param(b":\n" * 40, id="comments without end"),
    ],
)
def test_an_event_too_large_is_a_fault(stream: bytes, size: int) -> None:
    decoder = SseDecoder(max_event_bytes=64)
    assert decoder.feed(b"data:a\n\n") == events(b"a")
    with pytest.raises(Fault) as caught:
        feed_bounded(decoder, [stream[start : start + size] for start in range(0, len(stream), size)])
    fault = caught.value
    assert (fault.kind, fault.reason, fault.side) == (
        FaultKind.UPSTREAM_INVALID,
        "answer_too_large",
        Side.UPSTREAM,
    )


def test_held_bytes_tells_what_is_held() -> None:
    decoder = SseDecoder()
    held = []
    for piece in (b"data:a", b"\n", b"\ndata", b":b\n\n"):
        decoder.feed(piece)
        held.append(decoder.held_bytes)
    assert held == [6, 7, 4, 0]


PIECE = b"x" * 1024


def feed_large(pieces: int) -> int:
    decoder = SseDecoder(max_event_bytes=2**25)
    decoder.feed(b"data:")
    for _ in range(pieces):
        decoder.feed(PIECE)
    (event,) = decoder.feed(b"\n\n")
    return len(event.data or b"")


def test_a_large_event_in_small_pieces_is_linear() -> None:
    """16 MiB take 20 ms of processor time; joined at every read they would take minutes."""
    assert feed_large(1) == 1024
    assert texts.cpu_seconds(lambda: feed_large(2**14)) < 2


def test_small_lines_in_small_pieces_are_linear() -> None:
    """Many line ends, none of them the end of the event."""
    decoder = SseDecoder()

    def feed() -> None:
        for _ in range(20_000):
            decoder.feed(b"data:x\r")
            decoder.feed(b"\ndata:x\n")
        assert len(decoder.feed(b"\n")) == 1

    assert texts.cpu_seconds(feed) < 2


def test_what_is_held_takes_little_more_than_its_bytes() -> None:
    """One object for each read would take thirty times as much when the reads are small."""
    decoder = SseDecoder()
    tracemalloc.start()
    try:
        for _ in range(50_000):
            decoder.feed(bytes(bytearray(b"xy")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.held_bytes == 100_000
    assert peak < 300_000


# Encoding.


@pytest.mark.parametrize(
    ("encoded", "stream"),
    [
        (encode_event(b"{}"), b"data: {}\n\n"),
        (encode_event(b"{}", event=b"message", id=b"7"), b"event: message\nid: 7\ndata: {}\n\n"),
        (encode_event(b"", retry=3000), b"retry: 3000\ndata: \n\n"),
        (encode_event(b"a\nb"), b"data: a\ndata: b\n\n"),
        (encode_priming(b"7"), b"id: 7\ndata:\n\n"),
        (encode_priming(b"7", 3000), b"id: 7\nretry: 3000\ndata:\n\n"),
        (KEEPALIVE, b": keepalive\n\n"),
    ],
)
def test_encoding(encoded: bytes, stream: bytes) -> None:
    assert encoded == stream


def test_a_priming_event_has_an_id_and_empty_data() -> None:
    assert decode(encode_priming(b"7", 3000)) == [SseEvent(b"", id=b"7", retry=3000)]
    assert decode(KEEPALIVE) == []


@pytest.mark.parametrize(
    "data",
    [
        b"a\n\nid: 9\ndata: b",
        b"a\r\rid: 9",
        b"a\r\n\r\nevent: x",
        b"a\n\r\n\nretry: 1",
        b"\n\n",
        b"\r",
        b"a\r\n",
    ],
)
def test_data_injects_nothing(data: bytes) -> None:
    plain = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert decode(encode_event(data, id=b"1")) == [SseEvent(plain, id=b"1")]


@pytest.mark.parametrize("bad", [b"\n", b"\r", b"\r\n", b"\0", b"1\ndata: x", b"1\n\ndata: x\n\n", b"1\r"])
def test_a_name_or_id_of_more_than_a_line_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="one line"):
        encode_event(b"", id=bad)
    with pytest.raises(ValueError, match="one line"):
        encode_event(b"", event=bad)
    with pytest.raises(ValueError, match="one line"):
        encode_priming(bad)


_one_line = st.binary(max_size=20).map(lambda raw: re.sub(rb"[\r\n\0]", b"", raw))
_payloads = st.lists(
    st.one_of(
        st.binary(max_size=6), st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b":", BOM, b"data: ", b"id: "])
    )
).map(b"".join)


@given(
    st.lists(st.tuples(_payloads, _one_line, _one_line, st.none() | st.integers(0, 10**12 - 1)), max_size=3)
)
def test_what_is_encoded_is_decoded(items: list[tuple[bytes, bytes, bytes, int | None]]) -> None:
    stream = b"".join(encode_event(data, event=event, id=id, retry=retry) for data, event, id, retry in items)
    assert decode(stream) == [
        SseEvent(re.sub(rb"\r\n|\r", b"\n", data), event or b"message", id, retry)
        for data, event, id, retry in items
    ]


@given(
    st.sampled_from([b"Ab_-9.3.", b"50%d%b.3.", b""]),
    st.integers(1, 10**15),
    st.lists(st.none() | _payloads | st.sampled_from([b"{}", b"%d", b"%%"]), max_size=6),
)
def test_events_of_a_stream_are_what_each_of_them_is(
    prefix: bytes, first: int, data: list[bytes | None]
) -> None:
    assert encode_messages(prefix, first, data) == b"".join(
        encode_event(one, event=b"message", id=prefix + str(number).encode())
        for number, one in enumerate(data, first)
        if one is not None
    )

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.wire.lines import LineDecoder, OversizedLine
from tests.wire import texts

Lines = list[bytes | OversizedLine]


def decode(pieces: list[bytes], max_line_bytes: int = 2**20) -> tuple[Lines, bytes | OversizedLine | None]:
    decoder = LineDecoder(max_line_bytes)
    return [line for piece in pieces for line in decoder.feed(piece)], decoder.close()


def reference(stream: bytes, limit: int) -> tuple[Lines, bytes | OversizedLine | None]:
    *lines, tail = [
        OversizedLine(len(line), line[: min(200, limit)], limit)
        if len(line) > limit
        else line.removesuffix(b"\r")
        for line in stream.split(b"\n")
    ]
    return [line for line in lines if line], tail or None


@pytest.mark.parametrize(
    ("stream", "lines", "tail"),
    [
        (b"", [], None),
        (b"a\nb\n", [b"a", b"b"], None),
        (b"a\nb", [b"a"], b"b"),
        (b"a\r\nb\r\n", [b"a", b"b"], None),
        (b"a\rb\n", [b"a\rb"], None),
        (b"a\r\r\n", [b"a\r"], None),
        (b"\n\r\n\na\n\n", [b"a"], None),
        (b" \n\t\n", [b" ", b"\t"], None),
        (b"a\r", [], b"a"),
        (b"\r", [], None),
        (b"\0\n\xff\n", [b"\0", b"\xff"], None),
        ("a\u2028b\u0085c\n".encode(), ["a\u2028b\u0085c".encode()], None),
        (b"x" * 10 + b"\n", [b"x" * 10], None),
        (b"x" * 9 + b"\r\n", [b"x" * 9], None),
        (b"a\n" + b"x" * 11 + b"\nb\n", [b"a", OversizedLine(11, b"x" * 10, 10), b"b"], None),
        (b"a\n" + b"0123456789abcdef", [b"a"], OversizedLine(16, b"0123456789", 10)),
    ],
    ids=repr,
)
def test_lines_of_at_most_ten_bytes(stream: bytes, lines: Lines, tail: bytes | OversizedLine | None) -> None:
    assert decode([stream], 10) == (lines, tail)
    assert decode([bytes([byte]) for byte in stream], 10) == (lines, tail)


_streams = st.lists(
    st.one_of(st.sampled_from([b"\n", b"\r\n", b"\r", b"x" * 250]), st.binary(max_size=5)), max_size=20
).map(b"".join)


@given(_streams, st.lists(st.integers(0, 1000), max_size=10), st.sampled_from([1, 4, 10, 200, 210, 10_000]))
def test_any_cut_gives_the_lines_of_the_reference(stream: bytes, places: list[int], limit: int) -> None:
    ends = sorted(place % (len(stream) + 1) for place in places)
    pieces = [stream[start:end] for start, end in zip([0, *ends], [*ends, len(stream)], strict=True)]
    assert decode(pieces, limit) == reference(stream, limit)


def test_a_decoder_can_be_used_again_after_close() -> None:
    decoder = LineDecoder(10)
    decoder.feed(b"x" * 11)
    assert decoder.close() == OversizedLine(11, b"x" * 10, 10)
    assert decoder.close() is None
    assert decoder.feed(b"a\n") == [b"a"]


def test_a_line_too_long_is_not_held() -> None:
    decoder = LineDecoder(1000)
    held = []
    for _ in range(5):
        decoder.feed(b"x" * 400)
        held.append(decoder.held_bytes)
    assert held == [400, 800, 200, 200, 200]
    assert decoder.feed(b"\nok\n") == [OversizedLine(2000, b"x" * 200, 1000), b"ok"]
    assert decoder.held_bytes == 0


def feed_large(pieces: int) -> int:
    decoder = LineDecoder(2**25)
    for _ in range(pieces):
        decoder.feed(b"x" * 1024)
    (line,) = decoder.feed(b"\n")
    assert isinstance(line, bytes)
    return len(line)


def test_a_large_line_in_small_pieces_is_linear() -> None:
    """16 MiB take 10 ms of processor time; joined at every read they would take minutes."""
    assert feed_large(1) == 1024
    assert texts.cpu_seconds(lambda: feed_large(2**14)) < 2


def test_what_is_held_takes_little_more_than_its_bytes() -> None:
    """One object for each read would take thirty times as much when the reads are small."""
    decoder = LineDecoder()
    tracemalloc.start()
    try:
        for _ in range(50_000):
            decoder.feed(bytes(bytearray(b"xy")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.held_bytes == 100_000
    assert peak < 300_000

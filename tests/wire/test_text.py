"""What a peer wrote cannot forge a log."""

from __future__ import annotations

import pytest

from shadowcat.wire.text import printable, without_frame


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain \xc3\xa9 \t text", "plain é \t text"),
        (b"one\r\ntwo", "one\\r\\ntwo"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\u2028\u2029\u202e\x85".encode(), "\\u2028\\u2029\\u202e\\x85"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"", ""),
    ],
)
def test_printable(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown


def test_no_longer_than_asked() -> None:
    assert printable(b"x" * 10, 10) == "x" * 10
    assert printable(b"x" * 11, 10) == "x" * 10 + "…"
    assert printable("é".encode() * 10_000, 10) == "é" * 10 + "…"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  │ 19 │   r = f()  │", "19 │   r = f()"),
        ("╭──────╮", ""),
        ("█▀ ▄▄█", ""),
        ("no frame", "no frame"),
        ("", ""),
    ],
)
def test_a_frame_is_no_word(line: str, said: str) -> None:
    assert without_frame(line) == said

"""Events that came together, as rows: one for many of them, since to bind and step a row costs more than its bytes.

A row of one event is that event as it is. One of more is their lines; an event with a line end in it has its own row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shadowcat.stores.sqlite_file import broken

ROW_EVENTS = 128
ROW_BYTES = 64 * 1024
"""Of a row of more than one event: it stays whole for as long as one of them is held."""

# The code of a byte: its search is a memchr, and to count line ends takes ten times as long.
(_LF,) = b"\n"


def packed(events: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """The rows for them: how many events each has, and its data."""
    for start in range(0, len(events), ROW_EVENTS):
        yield from _rows_of(events[start : start + ROW_EVENTS])


def _rows_of(events: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    count = len(events)
    if count == 1:
        yield 1, events[0]
        return
    text = b"".join(events)
    if len(text) > ROW_BYTES or _LF in text:
        yield from _rows_of(events[: count // 2])
        yield from _rows_of(events[count // 2 :])
    else:
        yield count, b"\n".join(events)


def unpacked(count: int, data: bytes) -> list[bytes]:
    """The events of a row. Raises what a broken file does."""
    events = [data] if count == 1 else data.split(b"\n")
    if len(events) != count:
        raise broken("a row does not have the events that it names")
    return events

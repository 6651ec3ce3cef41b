"""Events that came together share a row, since binding and stepping a row costs more than its bytes.

A row of one event is that event as it is. One of more is their lines; an event with a line end in it has its own row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shadowcat.stores.sqlite_file import broken

ROW_EVENTS = 512
ROW_BYTES = 128 * 1024
"""Of a row of more than one event: it stays whole for as long as one of them is held."""

# The code of a byte: its search is a memchr, and to count line ends takes ten times as long.
(_LF,) = b"\n"


def packed(events: Sequence[bytes], begin: int = 0, at_once: int = ROW_EVENTS) -> Iterator[tuple[int, bytes]]:
    """The rows for those from `begin` on: how many events each has, and its data."""
    for start in range(begin, len(events), at_once):
        yield from _rows_of(events[start : start + at_once])


def _rows_of(events: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    count = len(events)
    if count == 1:
        yield 1, events[0]
        return
    text = b"".join(events)
    if len(text) <= ROW_BYTES and _LF not in text:
        yield count, b"\n".join(events)
        return
    # One part more than there have to be: they are not of one length, and each is joined anew.
    parts = len(text) // ROW_BYTES + 2
    yield from packed(events, at_once=-(-count // parts))


def unpacked(count: int, data: bytes) -> list[bytes]:
    """The events of a row. Raises what a broken file does."""
    events = [data] if count == 1 else data.split(b"\n")
    if len(events) != count:
        raise broken("a row does not have the events that it names")
    return events

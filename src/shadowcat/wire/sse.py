"""Server-sent events, both ways (WHATWG HTML, "Parsing an event stream").

The decoder gives the same events for any cut of the same bytes, holds a bounded tail, and does its work with
whole-buffer operations: a stream of small events costs no Python step per line end searched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat

import msgspec

from shadowcat.errors import answer_too_large

MAX_EVENT_BYTES = 16 * 1024 * 1024

# The code of a byte: its search is a memchr, where that of a bytes object costs five times as much.
_CR, _LF = b"\r\n"
_BOM = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    data: bytes | None
    """None when the block had no data line: nothing to dispatch, but its id and retry still count."""
    event: bytes = b"message"
    id: bytes | None = None
    retry: int | None = None


class SseEvents(msgspec.Struct, gc=False):
    """What came together: in front what has the form that nearly all events have, a message and its id, as two lists.

    An object for each of these, which is taken apart again at once, would be a tenth of the work for it.
    """

    ids: list[bytes]
    messages: list[bytes]
    others: list[SseEvent]

    def __len__(self) -> int:
        return len(self.ids) + len(self.others)

    def each(self) -> list[SseEvent]:
        return [*map(SseEvent, self.messages, repeat(b"message"), self.ids), *self.others]


class SseDecoder:
    """Feed it bytes, get whole events. An unfinished event at the end of the stream is discarded, as it must be."""

    __slots__ = ("_held", "_max", "_skip_newline", "_start", "_started")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._held: bytearray | None = None
        """The tail that is no whole event; most reads end with one, and leave none."""
        self._skip_newline = False
        self._start = b""
        self._started = False

    @property
    def held_bytes(self) -> int:
        return len(self._held or b"")

    @property
    def has_begun(self) -> bool:
        """Whether part of an event is held; comments and blank lines are none."""
        held = self._held or b""
        at = 0
        while at < len(held) and held[at] in b":\n":
            at = held.find(b"\n", at) + 1
            if not at:
                return False
        return at < len(held)

    def feed(self, data: bytes) -> list[SseEvent]:
        """Raises as `read` does."""
        return self.read(data).each()

    def read(self, data: bytes) -> SseEvents:
        """Raises `Fault` when an event outgrows its bound; the stream cannot be read on after that."""
        if not self._started:
            data = self._strip_bom(data)
        if data and (self._skip_newline or _CR in data):
            data = self._with_plain_newlines(data)
        # Blocks are only searched for once one can be whole, so a long event is copied once, not at every read.
        held = self._held
        if data.find(b"\n\n") < 0 and not (data[:1] == b"\n" and held is not None and held.endswith(b"\n")):
            self._hold(data)
            return SseEvents([], [], [])
        if held is not None:
            data = b"".join((held, data))
            self._held = None
        ids, messages, rest = _usual_events(data)
        if len(data) > self._max:
            self._refuse_oversize(max(map(len, data.split(b"\n\n")[:-1])))
        others: list[SseEvent] = []
        if rest:
            *blocks, tail = rest.split(b"\n\n")
            self._hold(tail)
            others = [event for block in blocks if (event := _parse_fields(block)) is not None]
        return SseEvents(ids, messages, others)

    def _hold(self, data: bytes) -> None:
        """What an event has begun with, or goes on with."""
        if self._held is not None:
            self._held += data
        elif data:
            self._held = bytearray(data)
        self._refuse_oversize_tail()

    def _strip_bom(self, data: bytes) -> bytes:
        data = self._start + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._start = data
            return b""
        self._start = b""
        self._started = True
        return data.removeprefix(_BOM)

    def _with_plain_newlines(self, data: bytes) -> bytes:
        if self._skip_newline:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        # A CR ends its line at once; the LF that may follow in the next read then belongs to it.
        self._skip_newline = data[-1:] == b"\r"
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _refuse_oversize_tail(self) -> None:
        # A line end is no part of the event when a blank line follows; the limit must not depend on the cut.
        held = self._held or b""
        self._refuse_oversize(len(held) - held.endswith(b"\n"))

    def _refuse_oversize(self, size: int) -> None:
        if size > self._max:
            raise answer_too_large(self._max, "An event of the upstream's")


# The form that nearly all events have. What it finds in between two of them comes out too, and is to be nothing.
_USUAL = b"event: message\nid: "
_split_usual = re.compile(_USUAL + rb"(.*+)\ndata: (.++)\n\n").split


def _usual_events(data: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """Ids and data of the events of the usual form that `data` begins with, and the rest; none of them where one is
    any different.

    They are taken apart in one go, and each byte is looked at once.
    """
    if not data.startswith(_USUAL):
        return [], [], data
    parts = _split_usual(data)
    rest = parts.pop()
    between = parts[::3]
    if any(between) or data.find(0, 0, len(data) - len(rest)) >= 0:
        return [], [], data
    return parts[1::3], parts[2::3], rest


_only = re.compile(
    rb"(?:id: [^\r\n]*+\r?\n)?event: message\r?\n(?:id: [^\r\n]*+\r?\n)?data: ([^\r\n]++)\r?\n\r?\n"
).fullmatch


def only_message(data: bytes) -> bytes | None:
    """The data of the message that these bytes are, all of them, as the official SDKs' servers write one; None for
    whatever takes a decoder."""
    found = _only(data)
    return None if found is None else found[1]


def _parse_fields(block: bytes) -> SseEvent | None:
    data: bytes | None = None
    more: list[bytes] | None = None
    event = b"message"
    id: bytes | None = None
    retry: int | None = None
    for line in block.split(b"\n"):
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            if data is None:
                data = value
            elif more is None:
                more = [data, value]
            else:
                more.append(value)
        elif name == b"event":
            event = value or b"message"
        elif name == b"id":
            if 0 not in value:
                id = value
        elif name == b"retry" and value.isdigit():
            # More digits than any wait worth having; int() of a megabyte of them would take seconds.
            retry = int(value.lstrip(b"0")[:12] or b"0")
    if data is None and id is None and retry is None:
        return None
    return SseEvent(data if more is None else b"\n".join(more), event, id, retry)


def encode_event(
    data: bytes, *, event: bytes | None = None, id: bytes | None = None, retry: int | None = None
) -> bytes:
    """One event. Line ends in `data` become further data lines; in `event` and `id` they are refused."""
    head = b""
    if event is not None:
        head = b"event: " + _one_line(event) + b"\n"
    if id is not None:
        head += b"id: " + _one_line(id) + b"\n"
    if retry is not None:
        head += b"retry: %d\n" % retry
    if _LF in data or _CR in data:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return head + b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"
    return head + b"data: " + data + b"\n\n"


def encode_messages(prefix: bytes, first: int, data: Sequence[bytes | None]) -> bytes:
    """The events of a stream, of one line each, under ids that were minted here: the prefix and one number after the
    other. None leaves its number out."""
    said = [one for one in data if one is not None]
    text = b"".join(said)
    if len(said) < len(data) or _LF in text or _CR in text:
        return b"".join(
            [
                encode_event(one, event=b"message", id=b"%b%d" % (prefix, number))
                for number, one in enumerate(data, first)
                if one is not None
            ]
        )
    if len(said) == 1:
        return b"event: message\nid: %b%d\ndata: %b\n\n" % (prefix, first, text)
    # Written in one go: half of the work of one event after the other.
    values: list[int | bytes] = [prefix] * (3 * len(said))
    values[1::3] = range(first, first + len(said))
    values[2::3] = said
    return b"event: message\nid: %b%d\ndata: %b\n\n" * len(said) % tuple(values)


def encode_priming(id: bytes, retry: int | None = None) -> bytes:
    """An id with empty data: tells a 2025-11-25 client that the stream can be resumed before anything was said."""
    return b"id: " + _one_line(id) + (b"\nretry: %d" % retry if retry is not None else b"") + b"\ndata:\n\n"


KEEPALIVE = b": keepalive\n\n"


def _one_line(value: bytes) -> bytes:
    if _LF in value or _CR in value or 0 in value:
        raise ValueError("an event's name and id are one line without NUL")
    return value

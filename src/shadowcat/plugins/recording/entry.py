"""What the proxy and the writing process send each other: plain values, each in a frame of bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache

import msgspec

from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire.tape import PASSED, Head

_LENGTH_BYTES = 4
_ANSWER_BYTES = 4_096
_ENTRY_BYTES = 400
"""What holds an entry in memory, beside its messages."""


class Facts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What many messages have in common. Encoded they are made once for all calls of a session, and compared."""

    to_server: bool
    legacy: bool
    session_id: str | None
    upstream: str
    status: int
    kind: str


_KNOWN_FACTS = 4_096

facts_of = lru_cache(_KNOWN_FACTS)(msgspec.msgpack.Decoder(Facts).decode)


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message, and what became of it. The members are those of a tape's frame, where nothing else is said.

    The recorder encodes them without making one. A number is a float because it takes nine bytes then, whatever it is.
    """

    seq: float
    at_s: float
    """By the clock that does not jump."""
    facts: bytes
    """`Facts`, encoded."""
    request: float | None
    method: str
    raw: bytes
    became: tuple[str, bytes] | None
    """The outcome and what belongs to it; None for one that passed as it was."""
    again: float
    """The number, so that it can be told from the end of an entry as well as from its beginning."""

    @property
    def outcome(self) -> str:
        return PASSED if self.became is None else self.became[0]

    @property
    def size(self) -> int:
        """What it holds in memory, roughly."""
        return _ENTRY_BYTES + len(self.raw) + (0 if self.became is None else len(self.became[1]))


_AS_FLOAT = struct.Struct(">d")
_BEFORE_SEQ = 2
"""Bytes, in MessagePack: one says that an array comes, one that a float does."""


def count_in(entries: bytes | bytearray) -> int:
    """How many there are of entries that were encoded one after the other, with nothing left out between them."""
    if not entries:
        return 0
    [first] = _AS_FLOAT.unpack_from(entries, _BEFORE_SEQ)
    [last] = _AS_FLOAT.unpack_from(entries, len(entries) - _AS_FLOAT.size)
    return int(last - first) + 1


class Progress(msgspec.Struct, array_like=True):
    """What has come of all entries so far."""

    recorded: int = 0
    redacted: int = 0
    unwritten: int = 0
    """They could not be written."""
    held_bytes: int = 0
    """By entries that wait in a ring."""
    is_failing: bool = False
    notes: list[tuple[int, str]] = []
    """For the log: levels and lines."""


class Setup(msgspec.Struct, array_like=True):
    """The first frame."""

    options: RecordOptions
    head: Head
    started_s: float
    """When the recording began, by the clock that does not jump."""
    key: bytes
    """What stands for sessions is made with it. It is written nowhere."""
    before: Progress
    """What a process before this one had come to."""


class Ready(msgspec.Struct, array_like=True):
    """The answer to that."""

    errno: int = 0
    """Why it cannot write, as an `OSError` says it."""
    told: str = ""
    file: str = ""


class Batch(msgspec.Struct, array_like=True):
    """Goes before a frame of entries. Both together are answered with `Progress`."""

    entries: int
    """How many there are."""
    wall_offset_s: float
    """The wall clock less the other one."""
    left_out: int
    """How many entries have been left out so far."""
    is_last: bool


_LIST = b"\xdd"
"""In MessagePack: an array, whose length follows in four bytes."""
_encode_into = msgspec.msgpack.Encoder().encode_into


def framed(value: Setup | Ready | Batch | Progress) -> bytearray:
    frame = bytearray(_LENGTH_BYTES)
    _encode_into(value, frame, _LENGTH_BYTES)
    frame[:_LENGTH_BYTES] = _length(len(frame) - _LENGTH_BYTES)
    return frame


def framed_with(batch: Batch, entries: bytes | bytearray) -> bytearray:
    """The batch, and another frame with its encoded entries as a list."""
    frame = framed(batch)
    frame += _length(len(_LIST) + 4 + len(entries)) + _LIST + batch.entries.to_bytes(4, "big")
    frame += entries
    return frame


def _length(size: int) -> bytes:
    return size.to_bytes(_LENGTH_BYTES, "big")


def read_frame(read: Callable[[int], bytes | None]) -> bytes | None:
    """The next frame's value, from something that may give less than it is asked for; None at the end."""
    head = _read_exactly(read, _LENGTH_BYTES)
    return None if head is None else _read_exactly(read, int.from_bytes(head, "big"))


def read_whole(read: Callable[[int], bytes | None]) -> bytes | None:
    """The same where nothing comes after it: in one reading as a rule."""
    start = read(_ANSWER_BYTES)
    if not start:
        return None
    head = (
        start
        if len(start) >= _LENGTH_BYTES
        else start + (_read_exactly(read, _LENGTH_BYTES - len(start)) or b"")
    )
    left = _LENGTH_BYTES + int.from_bytes(head[:_LENGTH_BYTES], "big") - len(head)
    rest = _read_exactly(read, left)
    return None if rest is None else head[_LENGTH_BYTES:] + rest


def _read_exactly(read: Callable[[int], bytes | None], size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size:
        piece = read(size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)

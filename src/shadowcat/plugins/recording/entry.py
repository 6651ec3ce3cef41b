"""What passes between the proxy and the process that writes: plain values, each in a frame of bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire.tape import PASSED, Head

ENTRY_BYTES = 400
"""What holds an entry in memory, beside its messages."""
_LENGTH_BYTES = 4


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message, and what became of it. The members are those of a tape's frame, where nothing else is said."""

    seq: int
    at_s: float
    """By the clock that does not jump."""
    to_server: bool
    legacy: bool
    session_id: str | None
    upstream: str
    status: int
    request: int | None
    took_s: float
    """For an answer: since its request; else 0."""
    kind: str
    method: str
    raw: bytes
    outcome: str = PASSED
    became: bytes = b""

    @property
    def size(self) -> int:
        """What it holds in memory, roughly."""
        return ENTRY_BYTES + len(self.raw) + len(self.became)


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
    """Every other frame; each is answered with `Progress`."""

    entries: list[Entry]
    wall_offset_s: float
    """The wall clock less the other one."""
    left_out: int
    """How many entries have been left out so far."""
    is_last: bool


_encode_into = msgspec.msgpack.Encoder().encode_into


def framed(value: Setup | Ready | Batch | Progress) -> bytearray:
    frame = bytearray(_LENGTH_BYTES)
    _encode_into(value, frame, _LENGTH_BYTES)
    frame[:_LENGTH_BYTES] = (len(frame) - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "big")
    return frame


def read_frame(read: Callable[[int], bytes | None]) -> bytes | None:
    """The next frame's value, from something that may give less than it is asked for; None at the end."""
    head = _read_exactly(read, _LENGTH_BYTES)
    return None if head is None else _read_exactly(read, int.from_bytes(head, "big"))


def _read_exactly(read: Callable[[int], bytes | None], size: int) -> bytes | None:
    pieces: list[bytes] = []
    while size:
        piece = read(size)
        if not piece:
            return None
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)

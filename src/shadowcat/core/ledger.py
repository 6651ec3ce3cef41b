"""A session as a store keeps it, and numbered changes to it. To the store, all of it is opaque bytes.

A change says what the store has to hold afterwards, not what happened: whoever wrote nothing for a while, because the
store was away or slow, writes the difference once and leaves out what has come and gone meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class StreamChange(NamedTuple):
    """A stream as it is to be held: `events` are added, with numbers from `next_seq` on without gaps."""

    id: int
    head: bytes
    first_seq: int
    """Events before this one are let go of. Where it is beyond the last that is held, none is left of those."""
    next_seq: int
    """Never more than one beyond the last event held, unless `first_seq` lets go of all that is."""
    events: Sequence[bytes]


class SessionChange(NamedTuple):
    """What is to be different of one session: done whole, or not at all."""

    session_id: str
    fence: int
    """The number its writer got when it took the session over; 1 for who opened it."""
    is_whole: bool = False
    """It replaces everything that was held of the session, if anything was."""
    record: bytes | None = None
    streams: Sequence[StreamChange] = ()
    dropped: Sequence[int] = ()
    """Streams that are let go of."""
    releases: bool = False
    """The owner leaves the session to whoever claims it next."""
    ends: bool = False
    """The session is over. The store remembers that for an hour, and refuses who has not heard of it."""
    node: str = ""
    """Who writes it, and owns the session from then on; an empty name leaves the owner as it was."""


class Refusal(Enum):
    """Why a change was not made; nothing of it was."""

    FENCED = "fenced"
    """Somebody has claimed the session since: its writer is its owner no longer."""
    ENDED = "ended"
    MISSING = "missing"
    """There is nothing to change: the store has lost its content. A whole change will be taken."""


class StoredStream(NamedTuple):
    id: int
    head: bytes
    first_seq: int
    """Of the first of `events`, or of the next event where none is held."""
    events: Sequence[bytes]


class StoredSession(NamedTuple):
    session_id: str
    fence: int
    record: bytes
    last_stream: int
    """The highest id of a stream that was ever written, be it dropped since."""
    streams: Sequence[StoredStream]


class Held(NamedTuple):
    """The session has an owner whose lease has not run out."""

    node: str


class SessionSummary(NamedTuple):
    session_id: str
    node: str
    """Its owner, or the last; empty when it was released."""
    record: bytes
    streams: int
    events: int
    event_bytes: int

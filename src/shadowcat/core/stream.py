"""The log of a stored stream: what a client may have missed, within bounds.

Events are numbered from 1 without gaps. A reader takes what follows a number; when that is no longer held, it is
told so. What was handed to the client stays for a resume and may go when room is needed; what was not may only go
where the source cannot be held back, and then the gap is visible to whoever asks for it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from shadowcat.wire.jsonrpc import RequestId


@dataclass(frozen=True, slots=True)
class LogLimits:
    events: int = 1_000
    bytes: int = 8 * 1024 * 1024
    age_s: float = 600.0
    """How long a finished stream, or one nobody reads, is kept."""


class EventId(NamedTuple):
    """`epoch.stream.seq`. The epoch is random per session, so an id of another session or life names nothing here."""

    epoch: str
    stream: int
    seq: int

    def encode(self) -> bytes:
        return f"{self.epoch}.{self.stream}.{self.seq}".encode("ascii")

    @classmethod
    def decode(cls, text: bytes) -> EventId | None:
        found = _EVENT_ID.fullmatch(text)
        if found is None:
            return None
        return cls(found[1].decode("ascii"), int(found[2]), int(found[3]))


_EVENT_ID = re.compile(rb"([A-Za-z0-9_-]{1,32})\.([0-9]{1,15})\.([0-9]{1,15})")


class Logged(NamedTuple):
    seq: int
    data: bytes
    request_id: RequestId | None = None
    """The id, if this is a request to the client: once answered it is not to be replayed."""


class Gap(Exception):
    """What was asked for is not held: evicted, or never was."""


class StreamLog:
    __slots__ = ("_events", "_limits", "closed", "handed_out", "held_bytes", "last_seq")

    def __init__(self, limits: LogLimits, last_seq: int = 0) -> None:
        self._limits = limits
        self._events: deque[Logged] = deque()
        self.last_seq = last_seq
        self.handed_out = last_seq
        """The last event a client's connection was given; it may still have been lost on the way."""
        self.held_bytes = 0
        self.closed = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def is_full(self) -> bool:
        return len(self._events) >= self._limits.events or self.held_bytes >= self._limits.bytes

    def append(self, data: bytes, request_id: RequestId | None = None) -> int:
        """Adds an event, making room by letting go of the oldest that were handed out."""
        events = self._events
        while events and self.is_full and events[0].seq <= self.handed_out:
            self._evict()
        self.last_seq += 1
        events.append(Logged(self.last_seq, data, request_id))
        self.held_bytes += len(data)
        return self.last_seq

    def make_room(self) -> int:
        """For a source that cannot be held back: lets go of the oldest, handed out or not. Returns how many."""
        evicted = 0
        while len(self._events) > self._limits.events or self.held_bytes > self._limits.bytes:
            self._evict()
            evicted += 1
        return evicted

    @property
    def must_wait(self) -> bool:
        """Whether an event more would push out one that no client was given."""
        return self.is_full and self._events[0].seq > self.handed_out

    def _evict(self) -> None:
        self.held_bytes -= len(self._events.popleft().data)

    def after(self, seq: int) -> list[Logged]:
        """The events that follow `seq`. Raises `Gap` when one of them, or `seq` itself, cannot be vouched for."""
        if seq == self.last_seq:
            return []
        events = self._events
        if seq > self.last_seq or not events or events[0].seq > seq + 1:
            raise Gap
        if events[0].seq == seq + 1:
            return list(events)
        skip = seq + 1 - events[0].seq
        if skip > len(events) // 2:
            return [events[i] for i in range(skip - len(events), 0)]
        return [event for event in events if event.seq > seq]

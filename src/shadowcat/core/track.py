"""Which of an upstream's events were seen: where to resume, and what a replay repeats."""

from __future__ import annotations

from collections import deque

from shadowcat.wire.sse import SseEvent

MAX_REMEMBERED = 1_000


class EventTracker:
    """Remembers the last ids in constant time per event.

    Only a replay can repeat an event, so only after a reconnect is an id looked up: a server that gives all its
    events one id must not lose them on a connection that never broke.
    """

    __slots__ = ("_before", "_recent", "last_id")

    def __init__(self) -> None:
        self.last_id: bytes | None = None
        self._recent: deque[bytes] = deque(maxlen=MAX_REMEMBERED)
        self._before: frozenset[bytes] = frozenset()

    def new_of(self, events: list[SseEvent]) -> list[SseEvent]:
        """Notes events that came together; returns those that were not seen before the connection broke."""
        before = self._before
        if before:
            events = [event for event in events if event.id not in before]
        ids = [event.id for event in events if event.id is not None]
        if ids:
            self._recent.extend(ids)
            self.last_id = ids[-1] or None
        return events

    def reconnected(self) -> None:
        """What was seen up to now may come again."""
        self._before = frozenset(self._recent)

    def broke_off_at(self, id: bytes) -> None:
        """The last event that an earlier process saw."""
        self._recent.append(id)
        self.last_id = id

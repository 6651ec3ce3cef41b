"""Which of an upstream's events were seen: where to resume, and what a replay repeats."""

from __future__ import annotations

from array import array

from shadowcat.wire.sse import SseEvents

MAX_REMEMBERED = 1_000
_TRIMMED_AT = MAX_REMEMBERED + MAX_REMEMBERED // 8
_NOTHING: frozenset[int] = frozenset()


class EventTracker:
    """Remembers the last ids in constant time per event.

    Only a replay can repeat an event, so only after a reconnect is an id looked up: a server that gives all its
    events one id must not lose them on a connection that never broke.

    What is remembered of an id is its hash: 8 bytes where the id takes 60. Among a thousand of them two are alike once
    in 10^13 reconnects.
    """

    __slots__ = ("_before", "_recent", "last_id")

    def __init__(self) -> None:
        self.last_id: bytes | None = None
        self._recent: array[int] | None = None
        self._before = _NOTHING

    def new_of(self, events: SseEvents) -> SseEvents:
        """Notes events that came together; returns those that were not seen before the connection broke."""
        before = self._before
        if before:
            new = [event for event in events.each() if event.id is None or hash(event.id) not in before]
            events = SseEvents([], [], new)
        ids = events.ids + [event.id for event in events.others if event.id is not None]
        if ids:
            self._remember(ids)
            self.last_id = ids[-1] or None
        return events

    def _remember(self, ids: list[bytes]) -> None:
        if self._recent is None:
            self._recent = array("q")
        recent = self._recent
        if len(ids) > MAX_REMEMBERED:
            ids = ids[-MAX_REMEMBERED:]
        recent.extend(map(hash, ids))
        if len(recent) > _TRIMMED_AT:
            del recent[:-MAX_REMEMBERED]

    def reconnected(self) -> None:
        """What was seen up to now may come again."""
        if self._recent is not None:
            self._before = frozenset(self._recent[-MAX_REMEMBERED:])

    def broke_off_at(self, id: bytes) -> None:
        """The last event that an earlier process saw."""
        self._remember([id])
        self.last_id = id

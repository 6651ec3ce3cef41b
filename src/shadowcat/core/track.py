"""Which of an upstream's events were seen: where to resume, and what a replay repeats."""

from __future__ import annotations

from collections import deque

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

    def is_new(self, id: bytes | None) -> bool:
        """Notes an event; False for one that was seen before the connection broke."""
        if id is None:
            return True
        if id in self._before:
            return False
        self._recent.append(id)
        self.last_id = id or None
        return True

    def reconnected(self) -> None:
        """What was seen up to now may come again."""
        self._before = frozenset(self._recent)

    def broke_off_at(self, id: bytes) -> None:
        """The last event that an earlier process saw."""
        self._recent.append(id)
        self.last_id = id

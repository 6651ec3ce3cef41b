"""Which of an upstream's events were seen: where to resume, and what a replay repeats."""

from __future__ import annotations

from collections import deque

MAX_REMEMBERED = 1_000


class EventTracker:
    """Remembers the last ids in constant time per event.

    Only a replay can repeat an event, so only after a reconnect is an id looked up: a server that gives all its
    events one id must not lose them on a connection that never broke.
    """

    __slots__ = ("_order", "_replaying", "_seen", "duplicates", "last_id")

    def __init__(self, last_id: bytes | None = None) -> None:
        self.last_id = last_id
        self.duplicates = 0
        self._order: deque[bytes] = deque()
        self._seen: set[bytes] = set()
        self._replaying = False
        if last_id is not None:
            self._remember(last_id)

    def is_new(self, id: bytes | None) -> bool:
        """Notes an event; False for one that was seen before the connection broke."""
        if id is None:
            return True
        if id in self._seen:
            if self._replaying:
                self.duplicates += 1
                return False
        else:
            self._remember(id)
        self.last_id = id or None
        return True

    def reconnected(self) -> None:
        self._replaying = True

    def _remember(self, id: bytes) -> None:
        self._seen.add(id)
        self._order.append(id)
        if len(self._order) > MAX_REMEMBERED:
            self._seen.discard(self._order.popleft())

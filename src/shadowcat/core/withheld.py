"""Events of a stored stream that no client gets yet, because the store does not have them.

An event that the upstream would not give once more under the same number must be in the store before it, or anything
after it, is handed out: a crash would undo what a client has seen.
"""

from __future__ import annotations

import msgspec

NOT_STORED = -1


class Withheld(msgspec.Struct, gc=False):
    """Numbers of events. At first it is the stream itself that is held back, event 0 so to speak.

    A client that comes back for one that the store has not heard of after a crash has lost it.
    """

    is_strict: bool
    """Whether every event is held back."""
    stored_to: int = NOT_STORED
    """The last event that the store has."""
    _first: int = 0
    """Held back, and perhaps not in the store."""
    _last: int = 0

    def hold_back(self, first: int, last: int) -> None:
        if self.stored_to >= self._last:
            self._first = first
        self._last = max(self._last, last)

    def released(self, last_seq: int) -> int:
        """The last of so many events that may be handed out; while not even the stream may be known, less than 0."""
        return last_seq if self.stored_to >= self._last else max(self.stored_to, self._first - 1)

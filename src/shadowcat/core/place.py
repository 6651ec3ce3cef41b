"""From where an upstream can be asked to continue a stream, and what of that the log already has."""

from __future__ import annotations

import msgspec


class Place(msgspec.Struct, gc=False):
    cursor: bytes
    """What the upstream calls the last event that is not part of the rest."""
    seq: int
    """What we call it; more by the proxy's own events after it that `own_after` does not count."""
    own_after: int = 0
    """How many of the events after it were the proxy's own: the upstream will not repeat those."""
    _repeats: int = 0
    """How many of the events that come are in the log."""

    def move(self, cursor: bytes, seq: int) -> bool:
        """The upstream can be asked for what comes after all that has come. Whether that is somewhere else.

        `seq` is the last event that there is: those that are yet to be repeated are part of the rest.
        """
        seq -= self._repeats
        if seq == self.seq and cursor == self.cursor:
            return False
        self.cursor = cursor
        self.seq = seq
        self.own_after = 0
        return True

    def go_on(self, last_seq: int) -> None:
        """The upstream is asked for the rest, of which there is something up to that event."""
        self._repeats = max(0, last_seq - self.seq - self.own_after)

    def repeated(self, count: int) -> int:
        """How many of so many that come next are in the log; they have come then."""
        repeated = min(count, self._repeats)
        self._repeats -= repeated
        return repeated

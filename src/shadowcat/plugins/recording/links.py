"""Which answer belongs to which request, by their place on the tape: ids come again, and differ on the two sides."""

from __future__ import annotations

import msgspec

from shadowcat.wire.jsonrpc import Message

MAX_UNANSWERED = 20_000
MAX_UNANSWERED_BYTES = 64 * 1024 * 1024


class Asked(msgspec.Struct, frozen=True, gc=False):
    seq: int
    at_s: float
    message: Message
    """Held, so that no other message gets the identity by which this one is found."""
    changed: Message | None
    """What it went on as, if it was changed: answers name that."""
    size: int
    """What they take in memory, roughly."""


class Links:
    def __init__(self) -> None:
        self._asked: dict[int, Asked] = {}
        self.held_bytes = 0

    def note(self, asked: Asked) -> None:
        known = self._asked
        key = id(asked.message)
        if key in known:
            self.ended(asked.message)
        known[key] = asked
        if asked.changed is not None:
            self.ended(asked.changed)
            known[id(asked.changed)] = asked
        self.held_bytes += asked.size
        while len(known) > MAX_UNANSWERED or self.held_bytes > MAX_UNANSWERED_BYTES:
            # Nobody will answer the oldest any more: it was cancelled, or its session ended.
            self.ended(next(iter(known.values())).message)

    def seq_of(self, request: Message) -> int:
        """0 for one that is not known."""
        asked = self._asked.get(id(request))
        return 0 if asked is None else asked.seq

    def ended(self, request: Message) -> Asked | None:
        """Forgets it. None for one that is not known."""
        asked = self._asked.pop(id(request), None)
        if asked is None:
            return None
        if asked.changed is not None:
            self._asked.pop(id(asked.message), None)
            self._asked.pop(id(asked.changed), None)
        self.held_bytes -= asked.size
        return asked

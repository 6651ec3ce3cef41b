"""Which answer belongs to which request, by their place on the tape: ids come again, and differ on the two sides."""

from __future__ import annotations

import msgspec

from shadowcat.plugins.recording.entry import Entry, ends_request, names_request
from shadowcat.wire.jsonrpc import Message

MAX_UNANSWERED = 20_000
MAX_UNANSWERED_BYTES = 64 * 1024 * 1024


class Linked(msgspec.Struct, frozen=True, gc=False):
    entry: Entry
    request: int | None
    """`Frame.request`."""
    took_s: float
    """For an answer: since its request; else 0."""


class _Asked(msgspec.Struct, frozen=True, gc=False):
    seq: int
    at_s: float
    messages: tuple[Message, ...]
    """Held, so that no other message gets the identity by which this one is found."""
    size: int
    """What they take in memory, roughly."""


class Links:
    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self.held_bytes = 0

    def link(self, entry: Entry) -> Linked | None:
        """None for the failure of a request whose end was seen already."""
        message, request = entry.message, entry.context.request
        if message is None:
            asked = self._ended(request)
            return None if asked is None else Linked(entry, asked.seq, entry.at_s - asked.at_s)
        if message.is_request and not ends_request(entry.outcome):
            self._note(entry, message)
        if request is None:
            return Linked(entry, None, 0.0)
        if not message.is_response:
            known = self._asked.get(id(request))
            return Linked(entry, 0 if known is None else known.seq, 0.0)
        asked = self._ended(request)
        return Linked(entry, 0, 0.0) if asked is None else Linked(entry, asked.seq, entry.at_s - asked.at_s)

    def _note(self, entry: Entry, message: Message) -> None:
        changed = names_request(entry.outcome)
        messages = (message,) if changed is None else (message, changed)
        asked = _Asked(entry.seq, entry.at_s, messages, entry.size)
        for one in messages:
            self._ended(one)
            self._asked[id(one)] = asked
        self.held_bytes += asked.size
        while len(self._asked) > MAX_UNANSWERED or self.held_bytes > MAX_UNANSWERED_BYTES:
            # Nobody will answer the oldest any more: it was cancelled, or its session ended.
            self._forget(next(iter(self._asked.values())))

    def _ended(self, request: Message | None) -> _Asked | None:
        asked = self._asked.get(id(request))
        if asked is not None:
            self._forget(asked)
        return asked

    def _forget(self, asked: _Asked) -> None:
        self.held_bytes -= asked.size
        for message in asked.messages:
            self._asked.pop(id(message), None)

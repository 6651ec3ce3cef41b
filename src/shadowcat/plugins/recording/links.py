"""Which answer belongs to which request, by place on the tape: ids are reused, and differ on the two sides."""

from __future__ import annotations

from shadowcat.wire.jsonrpc import Message

MAX_UNANSWERED = 20_000
MAX_UNANSWERED_BYTES = 64 * 1024 * 1024


class Links:
    def __init__(self) -> None:
        self.asked: dict[Message, float] = {}
        """Requests, by their identity, and their places. Held, so that no other message gets that identity."""
        self.twins: dict[Message, Message] = {}
        """What a request went on as, and the other way round: answers name the one or the other."""
        self._counted_at = 0
        self._counted_bytes = 0

    @property
    def held_bytes(self) -> int:
        return sum([len(request.raw) for request in self.asked])

    def note_change(self, request: Message, changed: Message) -> None:
        """Of a request that is known: it goes on as another one."""
        self.ended(changed)
        self.asked[changed] = self.asked[request]
        self.twins[request], self.twins[changed] = changed, request

    def ended(self, request: Message) -> float | None:
        """Forgets it. None for one that is not known."""
        if self.twins:
            self.forget_twin(request)
        return self.asked.pop(request, None)

    def forget_twin(self, request: Message) -> None:
        twin = self.twins.pop(request, None)
        if twin is not None:
            del self.twins[twin], self.asked[twin]

    def keep_to_bounds(self, told_bytes: int) -> None:
        """Nobody will answer the oldest any more: they were cancelled, or their sessions ended.

        `told_bytes` is what all told so far came to. No more than that can have come to what was held when it was
        counted last: so counting, and dividing by two what is too much, costs next to nothing.
        """
        while len(self.asked) > MAX_UNANSWERED:
            self.ended(next(iter(self.asked)))
        if self._counted_bytes + told_bytes - self._counted_at <= MAX_UNANSWERED_BYTES:
            return
        held = self.held_bytes
        while self.asked and held > MAX_UNANSWERED_BYTES // 2:
            oldest = next(iter(self.asked))
            held -= len(oldest.raw)
            self.ended(oldest)
        self._counted_at, self._counted_bytes = told_bytes, held

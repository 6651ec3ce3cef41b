"""Calls that nobody waits for any more, but that the server may still be working on.

What it asks or says because of one of them, without naming it, must not be taken for another session's: who calls a
tool and cancels at once could have it put a question of his choice to somebody else.
"""

from __future__ import annotations

from shadowcat.upstream.call import Call, Party

KEPT_S = 300.0
MAX_KEPT = 1_000


class GivenUp:
    def __init__(self) -> None:
        self._calls: dict[int, tuple[Party | None, float]] = {}

    def add(self, call: Call, now: float) -> None:
        self._calls[call.id] = (call.party, now)
        if len(self._calls) > MAX_KEPT:
            # Whoever gives up so many is among the newer ones too.
            del self._calls[next(iter(self._calls))]

    def answered(self, id: object) -> None:
        if isinstance(id, int):
            self._calls.pop(id, None)

    def parties(self, now: float) -> set[Party | None]:
        """Whose they are."""
        while self._calls:
            oldest = next(iter(self._calls))
            if now - self._calls[oldest][1] < KEPT_S:
                break
            del self._calls[oldest]
        return {party for party, _ in self._calls.values()}

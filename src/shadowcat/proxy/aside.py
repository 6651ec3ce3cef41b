"""Sessions that the store refuses while it takes others: set aside after some attempts, and retried later.

A store that chokes on one must not cost the others theirs. But a full one refuses what is large and takes what is
small, and may have room again: nothing is given up for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

S = TypeVar("S")

MAX_REFUSALS = 5
ASIDE_S = 30.0


class SetAside(Generic[S]):
    def __init__(self, offer: Callable[[S], object]) -> None:
        """`offer` hears of each whose time has come."""
        self._offer = offer
        self._refusals: dict[S, int] = {}
        self._timers: dict[S, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, source: S) -> bool:
        return source in self._timers

    def is_refused(self, source: S) -> bool:
        """Once more; whether it was once too often, and it is set aside."""
        times = self._refusals[source] = self._refusals.get(source, 0) + 1
        if times < MAX_REFUSALS:
            return False
        # Next time the first refusal is enough: each attempt costs the others a pause.
        self._refusals[source] = MAX_REFUSALS - 1
        self._timers[source] = asyncio.get_running_loop().call_later(ASIDE_S, self._offer_again, source)
        return True

    def _offer_again(self, source: S) -> None:
        self._timers.pop(source).cancel()
        self._offer(source)

    def offer_all(self) -> None:
        for source in list(self._timers):
            self._offer_again(source)

    def forget(self, source: S) -> None:
        """It was taken, or is of no interest any more."""
        self._refusals.pop(source, None)
        timer = self._timers.pop(source, None)
        if timer is not None:
            timer.cancel()

    def clear(self) -> None:
        for source in list(self._timers):
            self.forget(source)

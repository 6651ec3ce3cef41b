"""Waits that end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

DEADLINE_S = 20.0


def soon(within_s: float = DEADLINE_S) -> asyncio.Timeout:
    return asyncio.timeout(within_s)


async def until(true: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """For what tells nobody that it happened."""
    async with soon(within_s):
        while not true():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.002)


async def happens(event: asyncio.Event, within_s: float = DEADLINE_S) -> None:
    async with soon(within_s):
        await event.wait()


class Changed:
    """Wakes whoever waits for a predicate over something that was changed."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, true: Callable[[], object], within_s: float = DEADLINE_S) -> None:
        async with soon(within_s):
            while not true():
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.add(waiter)
                try:
                    await waiter
                finally:
                    self._waiters.discard(waiter)

"""Tasks with names and owners, and joins that end.

A task nobody holds can vanish mid-flight and its exception with it; so every background task here is spawned by
a `Tasks` that keeps it, reports how it failed, and ends it when the owner closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

log = logging.getLogger("shadowcat")

T = TypeVar("T")

STEP_S = 0.5
"""How much a single wait counts at most, however long it took."""


class Tasks:
    """The tasks of one owner."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()
        self._when_done = self._done
        """Bound once: each task keeps what it calls."""

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str, *, awaited: bool = False) -> asyncio.Task[T]:
        """`awaited`: somebody waits for the outcome and hears of a failure; it is not reported here as well."""
        task = asyncio.get_running_loop().create_task(coro, name=f"{self._owner}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._discard if awaited else self._when_done)
        return task

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Marks it as seen: whoever waited may have gone before it failed.
        _failure_of(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        failure = _failure_of(task)
        if failure is not None:
            log.error("task %s failed", task.get_name(), exc_info=failure)

    async def finish(self, within_s: float, grace_s: float = 5.0) -> None:
        """Lets what runs come to its end, `within_s` seconds at most, then closes."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=within_s)
        await self.aclose(grace_s)

    async def aclose(self, grace_s: float = 5.0) -> None:
        """Cancels what still runs and waits for it, `grace_s` seconds at most."""
        await cancel_and_join(self._tasks, grace_s)


def _failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    """None for one that was cancelled."""
    try:
        return task.exception()
    except asyncio.CancelledError:
        # The task gives it away. Kept, it would keep the frames that it went through, and these often hold the task.
        return None


class Deadline:
    """When all of several steps must be over: each gets what it may take at most, as long as there is so much left."""

    def __init__(self, within_s: float) -> None:
        self._at = asyncio.get_running_loop().time() + within_s

    def left(self, at_most_s: float, *, but_for_s: float = 0.0) -> float:
        """`but_for_s` is what the steps after it are to have."""
        left_s = self._at - asyncio.get_running_loop().time() - but_for_s
        return max(0.0, min(at_most_s, left_s))


async def wait_awake(waiter: asyncio.Future[Any], timeout_s: float) -> bool:
    """Whether it is done in time, counted in steps while the process runs.

    Who was stopped for a while (SIGSTOP, a lid that was closed) finds all its timers run out at once, before it has
    read what has come meanwhile.
    """
    left_s = timeout_s
    while left_s > 0 and not waiter.done():
        await asyncio.wait((waiter,), timeout=min(left_s, STEP_S))
        left_s -= STEP_S
    return waiter.done()


async def cancel_and_join(tasks: Iterable[asyncio.Task[Any]], grace_s: float) -> None:
    pending = {task for task in tasks if not task.done() and task is not asyncio.current_task()}
    for task in pending:
        task.cancel()
    if not pending:
        return
    _, stuck = await asyncio.wait(pending, timeout=grace_s)
    for task in stuck:
        log.error("task %s did not end within %.1f s of its cancellation", task.get_name(), grace_s)

"""Writes what has changed to the store, behind the traffic: one task, one write at a time, the longest waiting first.

Nothing is queued: each session knows what it has that the store has not, and is asked when its turn comes. What
changed twice is written once, and a store that was away gets the difference when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from shadowcat.aio import Tasks
from shadowcat.core.backoff import Backoff
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.core.ports import SessionStore
from shadowcat.proxy.news import News, What

log = logging.getLogger("shadowcat.store")

_MAX_SESSIONS = 200
_MAX_BYTES = 4 * 1024 * 1024
"""Of one write, as far as the changes of one session do not exceed it: the next ones wait for its end."""


@dataclass(frozen=True, slots=True)
class Durability:
    strict: bool = False
    """Each event is in the store before its first byte leaves for the client."""
    gather_s: float = 0.005
    """How long changes wait for company, where nobody waits for them."""
    patience_s: float = 2.0
    """A store that takes longer than this for a write is treated as one that failed."""
    retry_first_s: float = 0.1
    retry_cap_s: float = 2.0


class Book(Protocol):
    """What is to be written of one session."""

    @property
    def session_id(self) -> str: ...

    def change(self) -> SessionChange | None:
        """What the store does not have; until told how it went, no other change is asked for."""
        ...

    def written(self) -> None: ...

    def failed(self) -> None: ...

    def refused(self, refusal: Refusal) -> None: ...

    def give_up_waiting(self) -> None:
        """The store fails, and nobody is to wait for it."""
        ...


class StoreWriter:
    def __init__(self, store: SessionStore, tasks: Tasks, durability: Durability, news: News) -> None:
        self._store = store
        self._news = news
        self._tasks = tasks
        self.durability = durability
        self.is_failing = False
        self.failures = 0
        self.changes_written = 0
        self._closed = False
        self._waiting: dict[Book, None] = {}
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(durability.retry_first_s, durability.retry_cap_s)
        self.on_failing: Callable[[], object] = lambda: None

    @property
    def is_lenient(self) -> bool:
        """Whether what the store does not have may go out all the same."""
        return self._closed or (self.is_failing and not self.durability.strict)

    @property
    def refuses(self) -> bool:
        """Whether nothing new is to be begun, because what comes of it could not be stored."""
        return self.is_failing and self.durability.strict

    def __len__(self) -> int:
        """How many sessions wait to be written."""
        return len(self._waiting)

    def mark(self, book: Book) -> None:
        if not self._closed:
            self._waiting[book] = None
            self._idle.clear()
            self._woken.set()

    def hurry(self) -> None:
        """Somebody waits for what was marked."""
        self._hurried.set()

    async def run(self) -> None:
        """Writes for as long as it is let."""
        while True:
            await self._woken.wait()
            await self._gather()
            self._woken.clear()
            self._hurried.clear()
            while self._waiting:
                await self._write_some()
            self._idle.set()

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self.durability.gather_s):
                await self._hurried.wait()
        except TimeoutError:
            pass  # the usual end of it: nobody was in a hurry

    async def _write_some(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        writing = self._tasks.spawn(self._write([change for _, change in batch]), "write", awaited=True)
        done, _ = await asyncio.wait((writing,), timeout=self.durability.patience_s)
        if not done:
            self._note_failure(f"no answer within {self.durability.patience_s:g} s")
            # Never a second one beside it: the two could land in either order.
            await asyncio.wait((writing,))
        error = writing.exception()
        if error is not None:
            await self._try_later([book for book, _ in batch], error)
            return
        self._note_success(len(batch))
        refusals = writing.result()
        for book, change in batch:
            refusal = refusals.get(change.session_id)
            if refusal is None:
                book.written()
            else:
                book.refused(refusal)

    async def _write(self, changes: list[SessionChange]) -> Mapping[str, Refusal]:
        """In a task of its own, whatever a store does when it is merely called."""
        return await self._store.write(changes)

    def _next_batch(self) -> list[tuple[Book, SessionChange]]:
        batch: list[tuple[Book, SessionChange]] = []
        size = 0
        while self._waiting and len(batch) < _MAX_SESSIONS and size < _MAX_BYTES:
            book = next(iter(self._waiting))
            del self._waiting[book]
            change = book.change()
            if change is not None:
                batch.append((book, change))
                size += sum(len(event) for stream in change.streams for event in stream.events)
        return batch

    async def _try_later(self, books: list[Book], error: BaseException) -> None:
        self._note_failure(str(error) or type(error).__name__)
        for book in books:
            book.failed()
        # They were first in line, and are again.
        self._waiting = dict.fromkeys([*books, *self._waiting])
        await asyncio.sleep(self._backoff.next_s(random.random()))

    def _note_failure(self, because: str) -> None:
        self.failures += 1
        if self.is_failing:
            return
        self.is_failing = True
        goes_on = "new calls are refused" if self.durability.strict else "traffic goes on without it"
        log.error("the store fails: %s; %s", because, goes_on)
        self._news.tell(What.STORE_FAILING)
        self.on_failing()

    def _note_success(self, changes: int) -> None:
        self.changes_written += changes
        self._backoff.succeeded()
        if self.is_failing:
            self.is_failing = False
            log.warning("the store works again; %d sessions are still to be written", len(self._waiting))
            self._news.tell(What.STORE_WORKS)

    async def flush(self, within_s: float) -> bool:
        """Whether the store has everything, at the latest after that time."""
        self.hurry()
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("%d sessions could not be written to the store in time", len(self._waiting))
            return False
        return True

    def close(self) -> None:
        """From now on nothing is written: what happens next happens to a process that goes."""
        self._closed = True
        self._waiting.clear()

"""Writes what has changed to the store, behind the traffic: one task, one write at a time, the longest waiting first.

Nothing is queued: each session knows what it has that the store has not, and is asked when its turn comes. What
changed twice is written once, and a store that was away gets the difference when it is back.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from shadowcat.aio import Tasks, wait_awake
from shadowcat.core.backoff import Backoff
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.core.ports import SessionStore
from shadowcat.proxy.aside import ASIDE_S, SetAside
from shadowcat.proxy.news import News, What

log = logging.getLogger("shadowcat.store")

_MAX_SESSIONS = 200
_MAX_BYTES = 4 * 1024 * 1024
"""Of one write, as far as the changes of one session do not exceed it: the next ones wait for its end."""


class Durability(Struct, frozen=True):
    strict: Annotated[bool, Meta(description="Store each event before sending any of it to the client.")] = (
        False
    )
    gather_s: Annotated[
        float,
        Meta(ge=0, description="How long changes wait to be written together, if nobody waits for them."),
    ] = 0.005
    patience_s: Annotated[
        float, Meta(gt=0, description="A write that takes the store longer counts as failed.")
    ] = 2.0
    retry_first_s: Annotated[
        float, Meta(gt=0, description="The pause after the first failure; each further failure doubles it.")
    ] = 0.1
    retry_cap_s: Annotated[float, Meta(gt=0, description="The longest pause.")] = 2.0


class Source(Protocol):
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

    def set_aside(self) -> None:
        """The store takes others and not this one, which nobody is to wait for until it is written."""
        ...

    def give_up(self) -> None:
        """The session cannot be stored at all, and goes on without."""
        ...


Batch = list[tuple[Source, SessionChange]]


class StoreWriter:
    def __init__(self, store: SessionStore, tasks: Tasks, durability: Durability, news: News) -> None:
        self._store = store
        self._news = news
        self._tasks = tasks
        self.durability = durability
        self.is_failing = False
        self.failures = 0
        self.changes_written = 0
        self.given_up = 0
        self._closed = False
        self._waiting: dict[Source, None] = {}
        self._under_way: Batch = []
        self._aside: SetAside[Source] = SetAside(self.mark)
        self._at_once = _MAX_SESSIONS
        """One at a time after a failure: a session that the store chokes on must not cost the others theirs."""
        self._woken = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(durability.retry_first_s, durability.retry_cap_s)

    @property
    def is_lenient(self) -> bool:
        """Whether what the store does not have may go out all the same."""
        return self._closed or (self.is_failing and not self.durability.strict)

    @property
    def refuses(self) -> bool:
        """Whether nothing new is to be begun, because what comes of it could not be stored."""
        return self.is_failing and self.durability.strict

    def __len__(self) -> int:
        """How many sessions have what the store does not, be it on its way there."""
        under_way = sum(source not in self._waiting for source, _ in self._under_way)
        return len(self._waiting) + len(self._aside) + under_way

    @property
    def set_aside(self) -> int:
        """How many sessions the store does not take, while it takes others."""
        return len(self._aside)

    def mark(self, source: Source) -> None:
        if not self._closed and source not in self._aside:
            self._waiting[source] = None
            self._idle.clear()
            self._woken.set()

    def forget(self, source: Source) -> None:
        self._waiting.pop(source, None)
        self._aside.forget(source)

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
            await self._write_what_waits()
            if self._waiting:
                # What came during a write gathers too: at once it would be a write of a few events.
                self._woken.set()
            else:
                self._idle.set()

    async def _write_what_waits(self) -> None:
        is_rest = True
        while is_rest:
            batch = self._next_batch()
            is_rest = bool(self._waiting)
            if batch:
                self._under_way = batch
                await self._write(batch)
                self._under_way = []

    async def _gather(self) -> None:
        try:
            async with asyncio.timeout(self.durability.gather_s):
                await self._hurried.wait()
        except TimeoutError:
            pass  # the usual end of it: nobody was in a hurry

    def _next_batch(self) -> Batch:
        batch: Batch = []
        size = 0
        while self._waiting and len(batch) < self._at_once and size < _MAX_BYTES:
            source = next(iter(self._waiting))
            del self._waiting[source]
            try:
                change = source.change()
            except Exception:
                log.exception("session %s: cannot be stored, and goes on without", source.session_id[:8])
                self.given_up += 1
                source.give_up()
                continue
            if change is not None:
                batch.append((source, change))
                if self._waiting:
                    # Who is alone is not measured: of a fast stream a look at each event is a hundredth of its time.
                    size += _size(change)
        return batch

    async def _write(self, batch: Batch) -> None:
        writing = self._tasks.spawn(self._asked([change for _, change in batch]), "write", awaited=True)
        if not await wait_awake(writing, self.durability.patience_s):
            self._note_failure(f"no answer within {self.durability.patience_s:g} s", batch)
            # Never a second one beside it: the two could land in either order.
            await asyncio.wait((writing,))
        # A store may well cancel what it waits for itself.
        because = "the write was cancelled" if writing.cancelled() else writing.exception()
        if because is not None:
            await self._try_later(batch, because)
            return
        refusals = writing.result()
        if any(refusals.get(change.session_id) is Refusal.MISSING for _, change in batch if change.is_whole):
            await self._try_later(batch, "it does not take what it asked for")
            return
        self._note_success(batch)
        for source, change in batch:
            refusal = refusals.get(change.session_id)
            if refusal is None:
                source.written()
            else:
                source.refused(refusal)

    async def _asked(self, changes: list[SessionChange]) -> Mapping[str, Refusal]:
        """In a task of its own, whatever a store does when it is merely called."""
        refusals = await self._store.write(changes)
        return {session_id: Refusal(refusal) for session_id, refusal in refusals.items()}

    async def _try_later(self, batch: Batch, because: BaseException | str) -> None:
        was_failing = self.is_failing
        self._note_failure(str(because) or type(because).__name__, batch)
        for source, _ in batch:
            source.failed()
            # Behind the others: it may be the one that the store chokes on.
            self._waiting[source] = None
        if len(batch) == 1 and not was_failing:
            self._refuse_alone(batch[0][0])
        self._at_once = 1
        await asyncio.sleep(self._backoff.next_s(random.random()))

    def _refuse_alone(self, source: Source) -> None:
        """The store has taken what others had to say, and not this."""
        if not self._aside.is_refused(source):
            return
        log.error(
            "session %s: the store does not take it; offered again in %g s", source.session_id[:8], ASIDE_S
        )
        del self._waiting[source]
        source.set_aside()
        # It takes what others have to say. Where none has anything, nothing else would show that.
        self._note_works()

    def _note_failure(self, because: str, batch: Batch) -> None:
        self.failures += 1
        if not self.is_failing:
            self.is_failing = True
            goes_on = "new calls are refused" if self.durability.strict else "traffic goes on without it"
            log.error("the store fails: %s; %s", because, goes_on)
            self._news.tell(What.STORE_FAILING)
        for source in [*(source for source, _ in batch), *self._waiting]:
            source.give_up_waiting()

    def _note_success(self, batch: Batch) -> None:
        self.changes_written += len(batch)
        self._backoff.succeeded()
        self._at_once = min(2 * self._at_once, _MAX_SESSIONS)
        for source, _ in batch:
            self._aside.forget(source)
        if self.is_failing:
            self._note_works()

    def _note_works(self) -> None:
        self.is_failing = False
        log.warning("the store works again; %d sessions are still to be written", len(self._waiting))
        self._news.tell(What.STORE_WORKS)

    async def flush(self, within_s: float) -> bool:
        """Whether the store has everything, at the latest after that time."""
        self._aside.offer_all()
        self.hurry()
        try:
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        except TimeoutError:
            log.error("%d sessions could not be written to the store in time", len(self))
            return False
        return not self._aside

    def close(self) -> None:
        """From now on nothing is written: what happens next happens to a process that goes."""
        self._closed = True
        self._aside.clear()
        self._waiting.clear()


def _size(change: SessionChange) -> int:
    return len(change.record or b"") + sum([sum(map(len, stream.events)) for stream in change.streams])

"""Sessions that an earlier process or another node left in the store: taken over, whole or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shadowcat.aio import wait_awake
from shadowcat.core import kept
from shadowcat.core.exchange import Elsewhere
from shadowcat.core.ledger import Held, SessionChange, StoredSession
from shadowcat.core.ports import SessionStore
from shadowcat.core.session import SessionRecord
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.news import What
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Shared

log = logging.getLogger("shadowcat.session")

_PATIENCE_S = 5.0
"""How long a request waits for the store to say whether there is a session."""
_CLAIMS = 4
"""At a time: whoever makes up session ids must not keep the store from what else it has to do."""
_MAX_WAITING = 1_000
_MAX_OWNERS = 10_000

Admit = Callable[[SessionRecord, int], Session | None]
"""Makes a session of a record and a fence; None where its upstream is not known here."""


class Revival:
    def __init__(
        self, shared: Shared, store: SessionStore, admit: Admit, undo: Callable[[Session], object]
    ) -> None:
        """`undo` lets go of a session that was admitted and cannot be taken up."""
        self._shared = shared
        self._store = store
        self._admit = admit
        self._undo = undo
        self._under_way: dict[str, asyncio.Task[Session | Elsewhere | None]] = {}
        self._owners: dict[str, str] = {}
        """The nodes that sessions were last seen at."""
        self._turn = asyncio.Semaphore(_CLAIMS)

    def __len__(self) -> int:
        return len(self._under_way)

    async def revived(self, session_id: str) -> Session | Elsewhere | None:
        """The session as the store has it. Taken over once, for all who ask at the same time."""
        lease = self._shared.lease
        if lease is not None and not lease.is_settled:
            if session_id in self._owners:
                return Elsewhere(self._owners[session_id])
            if not await lease.settled():
                raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")
        task = self._under_way.get(session_id)
        if task is None:
            if len(self._under_way) >= _MAX_WAITING:
                raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")
            task = self._shared.tasks.spawn(
                self._revive(session_id), f"revive {session_id[:8]}", awaited=True
            )
            self._under_way[session_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(session_id, None))
        done = await wait_awake(task, _PATIENCE_S)
        if done and not task.cancelled() and task.exception() is None:
            return self._noted(session_id, task.result())
        because = f"no answer within {_PATIENCE_S:g} s"
        if done:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Fault):
                # Several may wait for the same.
                raise error.anew()
            because = repr(error)
        self._shared.counters.store_failures += 1
        log.error("session %s: the store cannot say whether it exists: %s", session_id[:8], because)
        if session_id in self._owners:
            return Elsewhere(self._owners[session_id])
        # Not "unknown", on which the client would give the session up.
        raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")

    def _noted(self, session_id: str, found: Session | Elsewhere | None) -> Session | Elsewhere | None:
        """The same; whose session it is is remembered for when the store is away."""
        self._owners.pop(session_id, None)
        if isinstance(found, Elsewhere):
            self._owners[session_id] = found.node
            if len(self._owners) > _MAX_OWNERS:
                del self._owners[next(iter(self._owners))]
        return found

    async def settled(self, within_s: float) -> None:
        """Until nothing is taken over any more: what is claimed now must be let go of again."""
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=within_s)

    async def _revive(self, session_id: str) -> Session | Elsewhere | None:
        async with self._turn:
            stored = await self._store.claim(session_id, self._shared.node)
        if isinstance(stored, Held):
            return Elsewhere(stored.node)
        if stored is None:
            return None
        session = None
        try:
            held = kept.decode_session(stored.record)
            session = self._admit(held.record, stored.fence)
            if session is not None:
                session.go_on(held, stored)
                self._note(session)
                return session
            log.error("session %s: its upstream %s is not known here", session_id[:8], held.record.upstream)
        except BaseException as error:
            if session is not None:
                self._undo(session)
            if not isinstance(error, kept.Unreadable):
                raise
            log.error("session %s: the store has it, but it cannot be read: %s", session_id[:8], error)
        await self._give_back(stored)
        return None

    def _note(self, session: Session) -> None:
        self._shared.counters.sessions_revived += 1
        log.info("session %s: restored from the store", session.id[:8])
        upstream = session.core.record.upstream
        self._shared.news.tell(What.SESSION_REVIVED, session_id=session.id, upstream=upstream)

    async def _give_back(self, stored: StoredSession) -> None:
        """Another node may know what to do with it."""
        await self._store.write([SessionChange(stored.session_id, stored.fence, releases=True)])

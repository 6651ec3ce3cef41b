"""The live sessions: found by id, bounded in number, brought back from the store, ended when idle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from shadowcat.aio import cancel_and_join
from shadowcat.core.exchange import Caller
from shadowcat.core.ports import Link
from shadowcat.core.session import Event, SessionRecord, State
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Shared

log = logging.getLogger("shadowcat.session")

_LONGEST_LOOK_S = 30.0
_CLOSE_S = 3.0


class Registry:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sessions: dict[str, Session] = {}
        self._ending: set[str] = set()
        """No longer served, but perhaps still in the store."""
        self._opening = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def reserve(self) -> None:
        """Takes a place for a session about to be opened, before the upstream is bothered; `add` or `release` it."""
        shared = self._shared
        if len(self._sessions) + self._opening >= shared.limits.sessions:
            shared.counters.sessions_refused += 1
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_sessions")
        self._opening += 1

    def release(self) -> None:
        self._opening -= 1

    async def add(self, record: SessionRecord, link: Link) -> Session:
        session = self._admit(record, link)
        self._shared.counters.sessions_opened += 1
        await session.core.save()
        sharers = self._shared.ids.own_side(record.upstream, record.upstream_id) if record.upstream_id else ()
        if len(sharers) > 1:
            log.warning("upstream %s issued one session id to %d sessions", record.upstream, len(sharers))
        log.info("session %s: opened on upstream %s (%s)", record.id[:8], record.upstream, record.version)
        return session

    def _admit(self, record: SessionRecord, link: Link) -> Session:
        session = Session(SessionCore(record, link, self._shared))
        self._sessions[record.id] = session
        self._shared.ids.bind(record.id, record.upstream, record.upstream_id)
        return session

    async def find(self, session_id: str, caller: Caller) -> Session | None:
        session = self._sessions.get(session_id) or await self._revive(session_id)
        if session is None or session.core.caller != caller:
            return None
        return session if session.core.state in (State.OPEN, State.RECOVERING) else None

    async def _revive(self, session_id: str) -> Session | None:
        try:
            record = await self._shared.store.get(session_id)
        except Exception as error:
            self._shared.counters.store_failures += 1
            log.exception("session %s: the store cannot tell whether there is one", session_id[:8])
            # Not "unknown", on which the client would give the session up.
            raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable") from error
        if record is None or session_id in self._ending:
            return None
        upstream = self._shared.upstreams.named(record.upstream)
        if upstream is None:
            return None
        # Another request may have brought it back while the store was asked.
        if session_id in self._sessions:
            return self._sessions[session_id]
        session = self._admit(record, upstream.attach(record.upstream_id, record.version))
        # The upstream has seen the ids of the session's earlier life: begin above any that were counted up to.
        session.core.correlator.skip_to(int(self._shared.clock.wall() * 1000))
        return session

    async def end(self, session: Session) -> None:
        record = session.core.record
        if self._sessions.pop(record.id, None) is None:
            return
        ids = self._shared.ids
        ids.unbind(record.id)
        is_shared = record.upstream_id is not None and ids.own_side(record.upstream, record.upstream_id)
        self._shared.counters.sessions_ended += 1
        # First, so that nothing under way puts it back into the store.
        session.core.happened(Event.ENDED)
        self._ending.add(record.id)
        try:
            await self._forget(record.id)
            await session.end(tell_upstream=not is_shared)
        finally:
            self._ending.discard(record.id)
        log.info("session %s: ended", record.id[:8])

    async def _forget(self, session_id: str) -> None:
        """A store that fails must not keep the session's streams and calls alive."""
        try:
            await self._shared.store.delete(session_id)
        except Exception:
            self._shared.counters.store_failures += 1
            log.exception("session %s: still in the store", session_id[:8])

    async def watch(self) -> None:
        """Ends idle sessions, for as long as it is let."""
        limits = self._shared.limits
        spans = (limits.idle_s, limits.linger_s, limits.server_request_s, limits.log.age_s)
        while True:
            await asyncio.sleep(min(min(spans) / 4, _LONGEST_LOOK_S))
            for session in self:
                await session.look_after()
            for session in self.expired():
                self._shared.counters.sessions_expired += 1
                # One upstream that does not answer its DELETE must not hold up the rest.
                self._shared.tasks.spawn(self.end(session), f"expire {session.id[:8]}")

    def expired(self) -> list[Session]:
        now = self._shared.clock.monotonic()
        found: list[Session] = []
        for session in self._sessions.values():
            core = session.core
            if core.is_busy:
                core.last_used = now
            elif core.state is State.BROKEN or now - core.last_used >= self._shared.limits.idle_s:
                found.append(session)
        return found

    async def close(self) -> None:
        """Lets go of every session; it ends at the upstream if no store can bring it back in another process."""
        tell_upstream = not self._shared.store.lasts
        # Together, and not for long: each may wait for an upstream that hangs.
        ending = [
            self._shared.tasks.spawn(session.end(tell_upstream=tell_upstream), "close") for session in self
        ]
        if ending:
            _, hanging = await asyncio.wait(ending, timeout=_CLOSE_S)
            await cancel_and_join(hanging, grace_s=1.0)
        self._sessions.clear()

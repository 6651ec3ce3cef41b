"""The live sessions: found by id, bounded in number, brought back from the store, ended when idle."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from shadowcat.aio import Deadline, cancel_and_join
from shadowcat.core.correlate import ID_BITS
from shadowcat.core.exchange import Caller, Elsewhere
from shadowcat.core.ledger import Refusal
from shadowcat.core.ports import Link, SessionStore
from shadowcat.core.session import OPEN, Event, SessionRecord, State
from shadowcat.core.shares import Shares, client_at
from shadowcat.errors import Fault, FaultKind, proxy_stops
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.news import What
from shadowcat.proxy.revival import Revival
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Phase, SessionLimits, Shared

log = logging.getLogger("shadowcat.session")

_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.05, 30.0
REMOVED_S = 2.0
"""How often a store is asked what was removed."""
_CLOSE_S = 3.0
_FLUSH_S = 3.0
_SETTLE_S = 0.5
UPSTREAMS_S = 2.5
"""What a deadline leaves for the servers after all this: a child that ignores what it is told takes two seconds."""
_RESERVED_S = UPSTREAMS_S + 0.5
"""What it leaves for what comes after the store was told."""
LEAST_S = _SETTLE_S + _RESERVED_S
"""What is to be left of a deadline when the sessions are closed: a store that works is told all in much less."""
OWN_ID = re.compile(r"[0-9a-f]{32}")
"""The ids given out here; others need not be asked for in a store."""
_REST_S = 0.05
"""A session in which nothing has run for so long is handed over; how often that is looked for."""
_LOOKS = 5
"""How often a session is looked for that has moved on each time it was found."""
_MAX_ENDING = 100_000
"""Ended while the store was away, and remembered so that they are not brought back from it."""


@dataclass(slots=True)
class Place:
    """Kept for a session of that client's until there is one, or will be none."""

    client: str
    is_kept: bool = False


class Registry:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sessions: dict[str, Session] = {}
        self._ending: dict[str, SessionLedger] = {}
        """No longer served, but perhaps still in the store."""
        self._leaving: dict[str, asyncio.Task[None]] = {}
        """Handed over at the moment."""
        self._opening = 0
        self._shares = Shares()
        self._clients: dict[str, str] = {}
        """Whose they are, of those that were opened here: the store does not know where clients come from."""
        self._doubted: set[str] = set()
        """Others may have taken them over while our lease had run out."""
        store = shared.store
        self._revival = None if store is None else Revival(shared, store, self._admit_again, self._undo)

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def reserve(self, address: str) -> Place:
        """A place for a session about to be opened, before the upstream is bothered. `release` it in any case."""
        shared = self._shared
        if shared.writer is not None and shared.writer.refuses:
            raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")
        if len(self._sessions) + self._opening >= shared.limits.max_sessions:
            shared.counters.sessions_refused += 1
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_sessions")
        client = client_at(address)
        most = shared.limits.max_sessions_per_client
        if most is not None and client and self._shares[client] >= most:
            shared.counters.sessions_refused += 1
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_sessions_of_client")
        self._shares.take(client)
        self._opening += 1
        return Place(client)

    def release(self, place: Place) -> None:
        self._opening -= 1
        if not place.is_kept:
            self._shares.give_back(place.client)

    async def add(self, record: SessionRecord, link: Link, place: Place) -> Session:
        session = self._admit(record, link, fence=0)
        # Let go of with the session.
        self._clients[record.id] = place.client
        place.is_kept = True
        core = session.core
        core.ledger.record_changed()
        # Before the client hears of it: a session it was given must not be gone after a crash.
        if not await core.ledger.committed() and core.ledger.refuses:
            self._let_go(session)
            core.ledger.end()
            core.book.close_all()
            raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")
        self._shared.counters.sessions_opened += 1
        sharers = self._shared.ids.own_side(record.upstream, record.upstream_id) if record.upstream_id else ()
        if len(sharers) > 1:
            log.warning("upstream %s issued one session id to %d sessions", record.upstream, len(sharers))
        log.info("session %s: opened on upstream %s (%s)", record.id[:8], record.upstream, record.version)
        core.tell(What.SESSION_OPENED)
        return session

    def _admit(self, record: SessionRecord, link: Link, *, fence: int) -> Session:
        core = SessionCore(
            record,
            link,
            self._shared,
            fence=fence,
            # Of one that is revived too: its upstream has seen the ids of its earlier life.
            last_upstream_id=secrets.randbits(ID_BITS),
            on_refused=partial(self._lost, record.id),
        )
        session = Session(core)
        self._sessions[record.id] = session
        self._shared.ids.bind(record.id, record.upstream, record.upstream_id)
        return session

    def _admit_again(self, record: SessionRecord, fence: int) -> Session | None:
        upstream = self._shared.upstreams.named(record.upstream)
        if upstream is None:
            return None
        return self._admit(record, upstream.attach(record.upstream_id, record.version), fence=fence)

    def _undo(self, session: Session) -> None:
        """It was admitted, and cannot be taken up: the store keeps it as it is."""
        self._let_go(session)
        session.core.ledger.give_up()
        session.core.book.close_all()

    def at_hand(self, session_id: str, caller: Caller) -> Session | None:
        """The session where nobody has to be asked about it."""
        session = self._sessions.get(session_id)
        if session is None or self._leaving or session.core.caller != caller:
            return None
        if session.core.state is not OPEN:
            return None
        return None if self._shared.lease is not None and self._is_doubtful(session) else session

    async def find(self, session_id: str, caller: Caller) -> Session | Elsewhere | None:
        for _ in range(_LOOKS):
            found = await self._look(session_id)
            if not isinstance(found, Session):
                return found
            if found.core.caller != caller:
                return None
            if session_id in self._leaving:
                # Since it was found: we are told of that some turns of the loop later.
                continue
            if found.core.state in (State.OPEN, State.RECOVERING):
                return found
            if self._sessions.get(session_id) is found:
                # Broken: its client is to begin anew.
                return None
            # It was handed over, or ended, by the time that we were told of it.
        raise Fault(FaultKind.OVER_CAPACITY, reason="session_on_the_move")

    async def _look(self, session_id: str) -> Session | Elsewhere | None:
        if self._leaving and (leaving := self._leaving.get(session_id)) is not None:
            await asyncio.wait((leaving,))
        session = self._sessions.get(session_id)
        if session is not None and self._shared.lease is not None and self._is_doubtful(session):
            session = await self._if_still_ours(session)
        if session is None and self._revival is not None and session_id not in self._ending:
            return await self._revived(self._revival, session_id)
        return session

    async def _revived(self, revival: Revival, session_id: str) -> Session | Elsewhere | None:
        if not OWN_ID.fullmatch(session_id):
            return None
        if self._shared.phase is Phase.DRAINING and self._shared.lease is None:
            # What comes after us has it. Where there are other nodes, one of them may have it by now.
            raise proxy_stops()
        if len(self._sessions) + self._opening + len(revival) >= self._shared.limits.max_sessions:
            self._shared.counters.sessions_refused += 1
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_sessions")
        return await revival.revived(session_id)

    # Whose they are.

    def doubt(self) -> None:
        """The lease had run out: the store has to say of each session whether it is still ours."""
        self._doubted.update(self._sessions)
        for session in self:
            session.core.ledger.record_changed()

    def _is_doubtful(self, session: Session) -> bool:
        lease = self._shared.lease
        return session.id in self._doubted or (lease is not None and lease.has_lapsed)

    async def _if_still_ours(self, session: Session) -> Session | None:
        """Asks the store by a write, which it refuses when somebody has taken the session over."""
        session.core.ledger.record_changed()
        if await session.core.ledger.committed():
            self._doubted.discard(session.id)
        return self._sessions.get(session.id)

    def _lost(self, session_id: str, refusal: Refusal) -> None:
        """The store has refused a change: the session is another's now, or over."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        self._shared.counters.sessions_lost += 1
        log.warning("session %s: given up here: %s", session_id[:8], refusal.value)
        session.core.tell(What.SESSION_LOST, refusal.value)
        if refusal is Refusal.ENDED:
            self._shared.tasks.spawn(self.end(session, refusal.value), f"end {session_id[:8]}")
        else:
            self._let_go(session)
            session.parting.taken_over()
            self._shared.tasks.spawn(session.parting.leave(), f"let go of {session_id[:8]}")

    def _let_go(self, session: Session) -> bool:
        """Takes it off the list; whether it was there."""
        if self._sessions.pop(session.id, None) is None:
            return False
        self._shared.ids.unbind(session.id)
        client = self._clients.pop(session.id, None)
        if client is not None:
            self._shares.give_back(client)
        self._doubted.discard(session.id)
        # First, so that nothing under way changes it any more.
        session.core.happened(Event.ENDED)
        return True

    async def end(self, session: Session, reason: str | None = None) -> None:
        """`reason`: why, where it was not its client that ended it."""
        record = session.core.record
        if not self._let_go(session):
            return
        is_shared = record.upstream_id is not None and self._shared.ids.own_side(
            record.upstream, record.upstream_id
        )
        self._shared.counters.sessions_ended += 1
        ledger = session.core.ledger
        self._remember_ending(ledger)
        ledger.end()
        if await ledger.committed():
            self._ending.pop(record.id, None)
        # Where somebody else has it by now, its upstream session is theirs.
        await session.parting.end(tell_upstream=not is_shared and not ledger.is_anothers)
        log.info("session %s: ended", record.id[:8])
        session.core.tell(What.SESSION_ENDED, reason)

    def _remember_ending(self, ledger: SessionLedger) -> None:
        self._ending[ledger.session_id] = ledger
        if len(self._ending) > _MAX_ENDING:
            forgotten = self._ending.pop(next(iter(self._ending)))
            if self._shared.writer is not None:
                self._shared.writer.forget(forgotten)

    # Before the process ends.

    async def come_to_rest(self, within_s: float, look_back_s: float = 0.0) -> None:
        """Returns once nothing is at work any more, or the time is over.

        Where something was, `look_back_s` later: for what its client asks as soon as it has the answer.
        """
        try:
            async with asyncio.timeout(within_s):
                if await self._rested() and look_back_s:
                    await asyncio.sleep(look_back_s)
                    await self._rested()
        except TimeoutError:
            pass  # what is still at work is told so

    async def _rested(self) -> bool:
        """Whether it had to be waited for."""
        has_waited = False
        at_work: list[Session] = []
        while True:
            # All of them only now and then: to look at thousands that rest takes time that calls need.
            at_work = [each for each in at_work if each.parting.is_at_work] or [
                each for each in self if each.parting.is_at_work
            ]
            if not at_work:
                return has_waited
            has_waited = True
            await asyncio.sleep(_REST_S)

    @property
    def is_asking(self) -> bool:
        """Whether something at work here may wait for its client's answer."""
        return any(session.core.correlator.unanswered() and session.parting.is_at_work for session in self)

    async def hand_over(self) -> None:
        """Leaves each session to the other nodes once nothing runs in it any more, for as long as it is let.

        Nor is one kept whose client is asked something: its answer comes to another node.
        """
        while True:
            for session in self._leavable():
                leaving = self._shared.tasks.spawn(self._release(session), f"hand over {session.id[:8]}")
                self._leaving[session.id] = leaving
                leaving.add_done_callback(lambda _, id=session.id: self._leaving.pop(id))
            await asyncio.sleep(_REST_S)

    def _leavable(self) -> list[Session]:
        before = self._shared.clock.monotonic() - _REST_S
        return [
            session
            for session in self
            if (not session.core.is_busy or session.parting.waits_for_its_client)
            and session.core.last_used <= before
            and session.core.state is State.OPEN
            and session.id not in self._leaving
        ]

    async def _release(self, session: Session) -> None:
        """Where the store cannot take it, it stays until all are closed."""
        # First: some servers refuse a second stream while there is one.
        await session.parting.prepare()
        session.core.ledger.release()
        if await session.core.ledger.committed() and self._let_go(session):
            self._shared.tasks.spawn(session.parting.suspend(), f"let go of {session.id[:8]}")

    async def watch(self) -> None:
        """Ends idle sessions, for as long as it is let."""
        while True:
            await asyncio.sleep(look_s(self._shared.limits))
            for session in self:
                await self._look_after(session)
            for session in self.expired():
                self._shared.counters.sessions_expired += 1
                # One upstream that does not answer its DELETE must not hold up the rest.
                self._shared.tasks.spawn(self.end(session, _why(session)), f"expire {session.id[:8]}")
            for session in self:
                session.core.touch()
            self._ending = {id: ledger for id, ledger in self._ending.items() if not ledger.is_written}

    async def _look_after(self, session: Session) -> None:
        try:
            await session.look_after()
        except Exception:
            # The others are to be looked after all the same.
            log.exception("session %s: its upkeep failed", session.id[:8])

    async def watch_store(self, store: SessionStore) -> None:
        """Has the store let go of the sessions that nobody came back for, for as long as it is let."""
        idle_s = self._shared.limits.idle_s
        while True:
            await asyncio.sleep(idle_s / 4)
            try:
                await store.expire(idle_s)
            except Exception as error:
                self._shared.counters.store_failures += 1
                log.error("the store cannot remove old sessions: %s", error)

    async def watch_removals(self, store: SessionStore) -> None:
        """Writes what others have removed, and is refused, for as long as it is let."""
        while True:
            await asyncio.sleep(REMOVED_S)
            try:
                removed = await store.removed(self._shared.node)
            except Exception as error:
                # Nothing depends on it: the next write is refused all the same.
                log.debug("the store cannot say what was removed: %s", error)
                continue
            for session_id in removed:
                session = self._sessions.get(session_id)
                if session is not None:
                    session.core.ledger.record_changed()

    def expired(self) -> list[Session]:
        now = self._shared.clock.monotonic()
        found: list[Session] = []
        for session in self._sessions.values():
            core = session.core
            if core.is_busy or self._is_doubtful(session):
                core.last_used = now
            elif core.state is State.BROKEN or now - core.last_used >= self._shared.limits.idle_s:
                found.append(session)
        return found

    async def close(self, deadline: Deadline) -> None:
        """Lets go of every session; it ends at the upstream if no store can bring it back in another process."""
        writer = self._shared.writer
        if writer is not None and self._revival is not None:
            await self._revival.settled(_SETTLE_S)
            for session in self:
                session.core.ledger.release()
            flush_s = _SETTLE_S if writer.is_failing else _FLUSH_S
            await writer.flush(deadline.left(flush_s, but_for_s=_RESERVED_S))
            writer.close()
        # Together, and not for long: each may wait for an upstream that hangs.
        leaving = [self._shared.tasks.spawn(self._leave(session), "close") for session in self]
        if leaving:
            _, hanging = await asyncio.wait(leaving, timeout=deadline.left(_CLOSE_S, but_for_s=UPSTREAMS_S))
            await cancel_and_join(hanging, grace_s=deadline.left(1.0, but_for_s=UPSTREAMS_S))
        self._sessions.clear()

    async def _leave(self, session: Session) -> None:
        if self._shared.store is None:
            await session.parting.end(tell_upstream=True)
        else:
            await session.parting.suspend()


def _why(session: Session) -> str:
    return "broken" if session.core.state is State.BROKEN else "idle"


def look_s(limits: SessionLimits) -> float:
    """How often sessions are looked after: often enough for the shortest of what is measured then, be that nothing."""
    spans = (limits.idle_s, limits.linger_s, limits.server_request_s, limits.call_s, limits.log.age_s)
    return min(max(min(spans) / 4, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)

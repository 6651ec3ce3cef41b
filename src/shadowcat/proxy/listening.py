"""Follows the upstream's standalone stream from the client's first GET until the client has been away a while.

A server drops what it has to ask while nobody follows it. So it is opened at once where the session goes on: on another
upstream session, or in another process.
"""

from __future__ import annotations

import asyncio
import logging
import random
from copy import copy

from shadowcat.aio import cancel_and_join
from shadowcat.core.backoff import Backoff
from shadowcat.core.exchange import MessageStream, PromptStream
from shadowcat.core.session import State
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import deliver, tell_of_changes
from shadowcat.proxy.passing import Passing
from shadowcat.proxy.recovery import Recovery

log = logging.getLogger("shadowcat.session")

_LIVED_S = 30.0
"""A stream that was open this long ended for a reason of its own, even if nothing came on it."""
OPENING_S = 0.5
"""How long a client's stream waits for the server's to be open. Some servers begin theirs only with an event."""


class _Following:
    """What a task that follows has to itself: the one before it may not have ended yet."""

    __slots__ = ("backoff", "opened_at", "passing", "tried")

    def __init__(self, backoff: Backoff) -> None:
        self.backoff = backoff
        self.tried = asyncio.Event()
        self.passing: Passing | None = None
        """On the stream that is open."""
        self.opened_at = 0.0

    def has_lasted(self, now: float) -> bool:
        """Whether the stream has. Not for being let in: a server that ends each must not be asked ever faster."""
        return self.passing is not None and (self.passing.has_come or now - self.opened_at >= _LIVED_S)


class Listening:
    __slots__ = (
        "_core",
        "_cursor",
        "_followed_in",
        "_following",
        "_recovery",
        "_reopened",
        "_task",
    )

    def __init__(self, core: SessionCore, recovery: Recovery) -> None:
        self._core = core
        self._following = _Following(Backoff())
        self._cursor: bytes | None = None
        """Where an earlier process was in the stream."""
        self._followed_in: int | None = None
        """The epoch of the upstream session whose stream was followed: what came since it broke was missed."""
        self._recovery = recovery
        self._reopened: int | None = None
        """The epoch of an upstream session that was just opened, and whose stream was not asked for yet."""
        self._task: asyncio.Task[None] | None = None

    def go_on_from(self, cursor: bytes | None) -> None:
        """An earlier process followed the stream: what was said meanwhile is caught up with, or owned up to."""
        self._cursor = cursor
        self._followed_in = self._core.correlator.epoch

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        if not self.is_running:
            # Not for good: what knows each other in a circle stays when the session ends.
            self._recovery.on_reopened = self._start_anew
            self._begin(Backoff())

    def _begin(self, backoff: Backoff) -> None:
        before, self._following = self._following, _Following(backoff)
        # Who waits for that one finds that there is another to wait for.
        before.tried.set()
        following = self._follow(self._following)
        self._task = self._core.shared.tasks.spawn(following, f"listen {self._core.record.id[:8]}")

    def _start_anew(self) -> None:
        """The session has another upstream session. The wait goes on growing if that one's stream does not last."""
        if self._task is not None:
            # It follows the stream of the one before, or waits to ask for it again, or for this.
            self._task.cancel()
        self._reopened = self._core.correlator.epoch
        before = self._following
        has_lasted = before.has_lasted(self._core.shared.clock.monotonic())
        self._begin(Backoff() if has_lasted else copy(before.backoff))

    async def opened(self) -> None:
        """Returns once the server's stream is open, or is known not to be.

        A client that is told of an open stream may count on what happens next, and a server drops what it has no
        stream for.
        """
        try:
            async with asyncio.timeout(OPENING_S):
                while not (following := self._following).tried.is_set():
                    await following.tried.wait()
        except TimeoutError:
            pass  # a slow server costs the client this wait, not its stream

    async def stop(self) -> None:
        self._recovery.on_reopened = None
        task, self._task = self._task, None
        if task is not None:
            await cancel_and_join([task], grace_s=1.0)

    async def stop_lingering(self, now: float) -> None:
        if self._task is None:
            return
        unread_since = self._core.book.standalone.unread_since
        if unread_since is not None and now - unread_since >= self._core.shared.limits.linger_s:
            await self.stop()

    async def _follow(self, following: _Following) -> None:
        core = self._core
        while core.state in (State.OPEN, State.RECOVERING):
            seen = core.correlator.epoch
            is_new = seen == self._reopened
            self._reopened = None
            try:
                source = await self._open(following)
                if source is None:
                    return
                # It has the route: where it says 404 to who comes back for the rest, the session is lost.
                is_new = False
                await self._relay(source, following)
            except Fault as fault:
                if fault.kind is FaultKind.UPSTREAM_SESSION_LOST:
                    if is_new:
                        # A session just opened is known: this server has no such route, and 404 means that.
                        return
                    await self._recover(seen)
                elif fault.kind is FaultKind.UPSTREAM_INVALID:
                    core.shared.upstreams.failed(core.record.upstream, fault)
            await asyncio.sleep(following.backoff.next_s(random.random()))

    async def _open(self, following: _Following) -> MessageStream | None:
        core = self._core
        cursor, self._cursor = self._cursor, None
        try:
            if cursor is not None:
                return core.link.resume(cursor, standalone=True)
            source = await core.link.listen()
        finally:
            following.tried.set()
        core.book.standalone.start_afresh()
        if self._followed_in == core.correlator.epoch:
            # There is nothing to ask for it with. Where the upstream session is another one, that was said already.
            tell_of_changes(core)
        self._followed_in = None if source is None else core.correlator.epoch
        return source

    async def _relay(self, source: MessageStream, following: _Following) -> None:
        core = self._core
        stream = core.book.standalone
        clock = core.shared.clock
        following.opened_at = clock.monotonic()
        following.passing = passing = Passing(core, stream)
        if isinstance(source, PromptStream):
            source.take_with(passing)
        try:
            async for batch in source:
                for message in passing.take(batch, source.cursor) or ():
                    if message.is_response:
                        core.shared.counters.dropped_messages += 1
                    else:
                        await deliver(core, message, stream, None)
                stream.mark(source.cursor)
                await core.book.wait_for_room(stream)
        finally:
            if following.has_lasted(clock.monotonic()):
                following.backoff.succeeded()
            following.passing = None
            await source.aclose()

    async def _recover(self, seen_epoch: int) -> None:
        try:
            await self._recovery.run(seen_epoch)
        except Fault as fault:
            session_id = self._core.record.id[:8]
            log.info("session %s: cannot be reopened at the upstream yet: %s", session_id, fault.reason)

"""Reopens a session that its upstream forgot, once for all who wait.

Nothing is invented: what the upstream may have begun is not sent again, a server that came back as less than it was
ends the client's session, and what may have changed meanwhile is told to the client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from shadowcat.core.exchange import MessageStream
from shadowcat.core.ports import Link, Upstream
from shadowcat.core.session import Event, covers, promise_of
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import lost_with_session, tell_of_changes, withdraw
from shadowcat.proxy.news import What
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.session")


class Recovery:
    """The recoveries of one session, one at a time."""

    __slots__ = ("_core", "_running", "last_at", "on_reopened")

    def __init__(self, core: SessionCore) -> None:
        self._core = core
        self._running: asyncio.Task[None] | None = None
        self.last_at: float | None = None
        self.on_reopened: Callable[[], object] | None = None
        """Called before anything is sent again. What it begins must not be waited for."""

    async def run(self, seen_epoch: int) -> None:
        """Returns once the session has an upstream again; `seen_epoch` is the one that the caller saw fail.

        Raises `Fault`: the upstream cannot be reached, refuses, or no longer keeps the promise.
        """
        core = self._core
        if core.correlator.epoch != seen_epoch:
            # Somebody else's recovery has ended meanwhile, one way or the other.
            core.require_alive()
            return
        if self._running is None:
            now = core.shared.clock.monotonic()
            if self.last_at is not None and now - self.last_at < core.shared.limits.recovery_gap_s:
                raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost_again")
            self.last_at = now
            self._running = core.shared.tasks.spawn(
                self._recover(), f"recover {core.record.id[:8]}", awaited=True
            )
            self._running.add_done_callback(self._done)
        # A caller that gives up must not take the recovery away from the others.
        await asyncio.shield(self._running)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running = None

    async def _recover(self) -> None:
        core = self._core
        # It may have been ended while whoever noticed was still on the way here.
        core.require_alive()
        core.happened(Event.UPSTREAM_LOST)
        try:
            upstream, (link, answer) = await self._reopen()
            await self._prepare(link, answer)
        except _PromiseShrank as shrank:
            core.happened(Event.PROMISE_SHRANK)
            core.shared.counters.promises_shrunk += 1
            self._break_off()
            raise Fault(FaultKind.SESSION_UNKNOWN) from shrank
        except BaseException:
            core.happened(Event.RECOVERY_FAILED)
            core.shared.counters.recoveries_failed += 1
            raise
        self._break_off()
        left = core.link
        core.relink(upstream.name, link)
        # Where the session goes on elsewhere, the upstream it leaves may know nothing of that.
        core.shared.tasks.spawn(left.detach(), "let go of the lost session")
        core.happened(Event.RECOVERED)
        if self.on_reopened is not None:
            self.on_reopened()
        core.shared.counters.recoveries += 1
        tell_of_changes(core)
        core.ledger.record_changed()
        log.info("session %s: reopened on upstream %s", core.record.id[:8], upstream.name)
        core.tell(What.SESSION_REOPENED)

    async def _reopen(self) -> tuple[Upstream, tuple[Link, Message]]:
        core = self._core
        record = core.record
        params = jsonrpc.members(record.initialize_params)
        params["protocolVersion"] = msgspec.Raw(msgspec.json.encode(record.version))
        initialize = jsonrpc.request(core.correlator.next_id(), Method.INITIALIZE).with_params(
            msgspec.Raw(msgspec.json.encode(params))
        )
        own = core.shared.upstreams.named(record.upstream)
        return await core.shared.upstreams.first_reachable(
            lambda upstream: upstream.open(initialize), core.caller, before=own
        )

    async def _prepare(self, link: Link, answer: Message) -> None:
        """Makes the upstream session ready before any request goes over it; one that cannot be used is let go of."""
        try:
            self._core.require_alive()
            self._keeps_promise(answer)
            await self._replay(link)
            self._core.require_alive()
        except (Fault, _PromiseShrank):
            await link.end()
            raise

    def _keeps_promise(self, answer: Message) -> None:
        if answer.kind is Kind.ERROR:
            raise Fault(FaultKind.UPSTREAM_FAILED, reason="upstream_refused_initialize")
        offered = promise_of(answer)
        if offered.protocol_version != self._core.record.version:
            raise _PromiseShrank("another protocol version")
        if not covers(self._core.record.promised(), offered.capabilities):
            raise _PromiseShrank("fewer capabilities")

    def _break_off(self) -> None:
        """Ends what the old upstream session can no longer answer."""
        core = self._core
        for asked in core.correlator.lose_upstream():
            withdraw(core, asked, "the server restarted")
        standalone = core.book.find(STANDALONE)
        if standalone is not None:
            standalone.forget_cursor()
        lost = lost_with_session()
        for entry in core.correlator.in_flight():
            # One that has no stream yet waits for its own refusal, and is then sent again.
            if entry.stream is not None:
                entry.fail(lost)

    async def _replay(self, link: Link) -> None:
        """What the client had set is set again before its requests go on: these wait for it as long as for a call."""
        core = self._core
        if core.record.initialized:
            await link.send(jsonrpc.notification(Method.INITIALIZED))
        try:
            async with asyncio.timeout(core.shared.limits.call_s):
                await self._set_again(link)
        except TimeoutError:
            log.warning("session %s: not all settings were restored: no answer in time", core.record.id[:8])

    async def _set_again(self, link: Link) -> None:
        record = self._core.record
        if record.log_level is not None:
            await self._ask(link, Method.SET_LEVEL, {"level": record.log_level})
        for uri in sorted(record.subscriptions):
            await self._ask(link, Method.SUBSCRIBE, {"uri": uri})

    async def _ask(self, link: Link, method: str, params: dict[str, str]) -> None:
        request = jsonrpc.request(self._core.correlator.next_id(), method, params)
        try:
            answer = await link.exchange(request)
            if answer.stream is not None:
                await _read_up_to_answer(answer.stream, request)
        except Fault as fault:
            log.warning("session %s: replaying %s failed: %s", self._core.record.id[:8], method, fault.reason)


async def _read_up_to_answer(stream: MessageStream, request: Message) -> None:
    try:
        async for batch in stream:
            if any(message.id == request.id and message.is_response for message in batch):
                return
    finally:
        await stream.aclose()


class _PromiseShrank(Exception):
    pass

"""Asks a client's request upstream until its answer has begun: whole, as a stream, or as a refusal."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple

from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import Answer, Direction, MessageStream, Reply
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import finished, give_up, thought_about, until_stopped
from shadowcat.proxy.pipeline import Undecided
from shadowcat.proxy.recovery import Recovery
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method


class Begun(NamedTuple):
    """A request whose answer has begun as a stream."""

    request: Message
    entry: InFlight[Stream]
    source: MessageStream


class Asking:
    """What one session asks."""

    __slots__ = ("_core", "_recovery")

    def __init__(self, core: SessionCore, recovery: Recovery) -> None:
        self._core = core
        self._recovery = recovery

    async def begin(self, message: Message) -> Message | Begun | None:
        """Asks the upstream: the whole response, an answer that has begun, or None for a cancelled request."""
        core = self._core
        core.require_alive()
        core.require_store()
        core.note_request(core.shared.clock.monotonic())
        assert message.id is not None
        if message.method == Method.PING:
            return jsonrpc.result(message.id, {})
        return await self._pass_on(message, core.judge(message, Direction.TO_SERVER))

    async def judged(self, message: Message, judged: Message | Reply | Undecided) -> Message | Begun | None:
        """The same for one that interceptors have judged, or are about to."""
        self._core.note_request(self._core.shared.clock.monotonic())
        return await self._pass_on(message, judged)

    async def _pass_on(self, message: Message, judged: Message | Reply | Undecided) -> Message | Begun | None:
        core = self._core
        outcome = await self._decided(message, judged) if isinstance(judged, Undecided) else judged
        # It may have been ended while an interceptor thought about it.
        core.require_alive()
        if outcome is None:
            return None
        if isinstance(outcome, Reply):
            return outcome.message.with_id(message.id)
        if outcome.method == Method.SUBSCRIBE and not core.record.has_room_to_subscribe:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_subscriptions")
        entry, outgoing = core.correlator.begin(outcome, core.shared.clock.monotonic())
        return await self.conclude(outcome, entry, core.correlator.epoch, core.link.exchange(outgoing))

    async def _decided(self, message: Message, judged: Undecided) -> Message | Reply | None:
        """What interceptors make of it; None when the client cancelled it before they were done."""
        correlator = self._core.correlator
        try:
            entry = correlator.consider(message)
        except Fault:
            judged.let_go()
            raise
        try:
            outcome = await until_stopped(entry, judged.outcome())
        finally:
            correlator.finish(entry)
        if outcome is None and entry.fault is not None:
            raise entry.fault.anew()
        return outcome

    async def conclude(
        self, message: Message, entry: InFlight[Stream], seen: int, asking: Coroutine[Any, Any, Answer]
    ) -> Message | Begun | None:
        """What comes of a request that is in flight, asked for in that epoch."""
        core = self._core
        try:
            answer = await self._first_answer(entry, message, seen, asking)
        except BaseException as error:
            core.correlator.finish(entry)
            if isinstance(error, Fault):
                give_up(core, message, entry, error)
            raise
        if answer is not None and answer.stream is not None:
            return Begun(message, entry, answer.stream)
        if answer is None or answer.whole is None:
            core.correlator.finish(entry)
            return None
        return await thought_about(core, message, entry, finished(core, message, entry, answer.whole))

    async def _first_answer(
        self, entry: InFlight[Stream], message: Message, seen: int, asking: Coroutine[Any, Any, Answer]
    ) -> Answer | None:
        """Asks the upstream once more where it is sure that the first time was not heard."""
        core = self._core
        try:
            return await self._answered(entry, asking)
        except Fault as fault:
            if not self._may_retry(fault):
                raise
        await self._recovery.run(seen)
        if entry.fault is not None:
            raise entry.fault.anew()
        if entry.cancelled:
            return None
        return await self._answered(entry, core.link.exchange(core.correlator.renew(entry, message)))

    def _may_retry(self, fault: Fault) -> bool:
        if fault.kind is FaultKind.UPSTREAM_UNAVAILABLE:
            # Nothing was sent; with one upstream there is nowhere else to go.
            return len(self._core.shared.upstreams) > 1 and not fault.sent
        return fault.kind is FaultKind.UPSTREAM_SESSION_LOST

    async def _answered(self, entry: InFlight[Stream], asking: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The upstream's answer; None when the client cancelled before it began."""
        upstreams, name = self._core.shared.upstreams, self._core.record.upstream
        try:
            answer = await until_stopped(entry, asking)
        except Fault as fault:
            if fault.kind is not FaultKind.UPSTREAM_SESSION_LOST:
                upstreams.failed(name, fault)
            raise
        if answer is not None:
            upstreams.answered(name)
        elif entry.fault is not None:
            raise entry.fault.anew()
        return answer

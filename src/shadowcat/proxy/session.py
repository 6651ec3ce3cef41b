"""A client's session as its transport sees it: requests, batches, notifications, streams, and its end."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import NamedTuple

from shadowcat.aio import cancel_and_join
from shadowcat.core.backoff import Backoff
from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import Answer, Direction, MessageStream, Reply
from shadowcat.core.session import Event, State
from shadowcat.core.stream import Gap
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import deliver, finished, follow
from shadowcat.proxy.recovery import Recovery
from shadowcat.proxy.streams import Reader, Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.session")


class Session:
    """Implements `core.ports.ClientSession`."""

    __slots__ = ("_listening", "_recovery", "core")

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self._recovery = Recovery(core)
        self._listening: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        return self.core.record.id

    @property
    def version(self) -> str:
        return self.core.record.version

    # Requests.

    async def request(self, message: Message) -> Message | Reader | None:
        core = self.core
        outcome = await self._begin(message)
        if not isinstance(outcome, _Begun):
            return outcome
        stream = core.book.new()
        core.shared.tasks.spawn(self._follow_alone(outcome, stream), "follow")
        return stream.read()

    async def batch(self, elements: list[Message | Fault]) -> Reader:
        """Each message on its own, in order; the answers on one stream as they come."""
        core = self.core
        core.require_alive()
        stream = core.book.new()
        running: list[asyncio.Task[None]] = []
        for element in elements:
            if isinstance(element, Fault):
                stream.append(jsonrpc.error(None, element.error()))
            elif element.is_request:
                running.append(core.shared.tasks.spawn(self._element(element, stream), "batch element"))
            else:
                await self.receive(element)
        core.shared.tasks.spawn(self._close_after(running, stream), "batch end")
        return stream.read()

    async def _element(self, request: Message, stream: Stream) -> None:
        try:
            outcome = await self._begin(request)
        except Fault as fault:
            stream.append(jsonrpc.error(request.id, fault.error()))
            return
        if isinstance(outcome, Message):
            stream.append(outcome)
        elif outcome is not None:
            await follow(self.core, outcome.request, outcome.entry, outcome.source, stream)

    async def _close_after(self, running: list[asyncio.Task[None]], stream: Stream) -> None:
        try:
            if running:
                await asyncio.wait(running)
        finally:
            stream.close(self.core.shared.clock.monotonic())

    async def _follow_alone(self, begun: _Begun, stream: Stream) -> None:
        core = self.core
        try:
            await follow(core, begun.request, begun.entry, begun.source, stream)
        finally:
            stream.close(core.shared.clock.monotonic())
            core.book.prune(core.shared.clock.monotonic())

    async def _begin(self, message: Message) -> Message | _Begun | None:
        """Asks the upstream: the whole response, an answer that has begun, or None for a cancelled request."""
        core = self.core
        core.require_alive()
        core.last_used = core.shared.clock.monotonic()
        core.shared.counters.exchanges += 1
        assert message.id is not None
        if message.method == Method.PING:
            return jsonrpc.result(message.id, {})
        if core.shared.pipeline:
            judged = await core.judged(message, Direction.TO_SERVER)
            if isinstance(judged, Reply):
                return judged.message.with_id(message.id)
            message = judged
        entry, outgoing = core.correlator.begin(message)
        try:
            answer = await self._first_answer(entry, message, outgoing)
            if answer is not None and answer.stream is not None:
                entry.source = answer.stream
                return _Begun(message, entry, answer.stream)
            if answer is None or answer.whole is None:
                return None
            return await finished(core, message, entry, answer.whole)
        finally:
            if entry.source is None:
                core.correlator.finish(entry)

    async def _first_answer(self, entry: InFlight, message: Message, outgoing: Message) -> Answer | None:
        """Asks the upstream, and once more where it is sure that the first time was not heard."""
        core = self.core
        seen = core.correlator.epoch
        try:
            return await self._ask(entry, outgoing)
        except Fault as fault:
            if not self._may_retry(fault):
                raise
        await self._recovery.run(seen)
        return await self._ask(entry, core.correlator.renew(entry, message))

    def _may_retry(self, fault: Fault) -> bool:
        if fault.kind is FaultKind.UPSTREAM_UNAVAILABLE:
            # Nothing was sent; with one upstream there is nowhere else to go.
            return len(self.core.shared.upstreams) > 1 and not fault.sent
        return fault.kind is FaultKind.UPSTREAM_SESSION_LOST

    async def _ask(self, entry: InFlight, outgoing: Message) -> Answer | None:
        """The upstream's answer; None when the client cancelled before it began."""
        task = asyncio.current_task()
        assert task is not None
        entry.waiting = task.cancel
        try:
            return await self.core.link.exchange(outgoing)
        except asyncio.CancelledError:
            if not entry.cancelled:
                raise
            task.uncancel()
            return None
        finally:
            entry.waiting = None

    # Notifications, and answers to the server's requests.

    async def receive(self, message: Message) -> None:
        core = self.core
        core.require_alive()
        core.last_used = core.shared.clock.monotonic()
        judged = await core.judged(message, Direction.TO_SERVER)
        if isinstance(judged, Reply):
            return
        if judged.is_response:
            answer = core.correlator.answered_by_client(judged)
            if answer is None:
                core.shared.counters.dropped_messages += 1
            else:
                await core.link.send(answer)
        elif judged.method == Method.CANCELLED:
            await self._cancel(judged)
        else:
            if judged.method == Method.INITIALIZED:
                core.record.initialized = True
                await core.save()
            await self._notify(judged)

    async def _cancel(self, notification: Message) -> None:
        core = self.core
        cancelled = core.correlator.cancelled_by_client(notification)
        if cancelled is None:
            core.shared.counters.dropped_messages += 1
            return
        entry, renamed = cancelled
        await self._notify(renamed)
        # What still comes for it is for nobody; a server that honours the cancellation may send nothing at all.
        if entry.waiting is not None:
            entry.waiting()
        elif entry.source is not None:
            await entry.source.aclose()

    async def _notify(self, notification: Message) -> None:
        """One that does not arrive is lost, as the protocol lets it be; the client has no use for the news."""
        try:
            await self.core.link.send(notification)
        except Fault as fault:
            log.warning(
                "session %s: %s did not reach the upstream: %s",
                self.id[:8],
                notification.method,
                fault.reason,
            )

    # Streams.

    def listen(self, last_event_id: bytes | None) -> Reader:
        core = self.core
        core.require_alive()
        core.last_used = core.shared.clock.monotonic()
        if self._listening is None:
            self._listening = core.shared.tasks.spawn(self._listen(), f"listen {self.id[:8]}")
        if last_event_id is None:
            return core.book.standalone.read()
        try:
            reader = core.book.resume(last_event_id)
        except Gap:
            raise Fault(FaultKind.STREAM_NOT_RESUMABLE, reason="events_no_longer_held") from None
        if reader is None:
            raise Fault(FaultKind.STREAM_NOT_RESUMABLE, reason="unknown_event_id")
        return reader

    async def _listen(self) -> None:
        """Follows the upstream's standalone stream for as long as the session lives."""
        core = self.core
        backoff = Backoff()
        while core.state in (State.OPEN, State.RECOVERING):
            seen = core.correlator.epoch
            try:
                source = await core.link.listen()
                if source is None:
                    return
                backoff.succeeded()
                await self._relay_standalone(source)
            except Fault as fault:
                if fault.kind is FaultKind.UPSTREAM_SESSION_LOST:
                    await self._recover_quietly(seen)
            await asyncio.sleep(backoff.next_s(random.random()))

    async def _relay_standalone(self, source: MessageStream) -> None:
        stream = self.core.book.standalone
        try:
            async for batch in source:
                for message in batch:
                    if message.is_response:
                        self.core.shared.counters.dropped_messages += 1
                    else:
                        await deliver(self.core, message, stream, None)
                await stream.wait_for_room()
        finally:
            await source.aclose()

    async def _recover_quietly(self, seen_epoch: int) -> None:
        try:
            await self._recovery.run(seen_epoch)
        except Fault as fault:
            log.info("session %s: the upstream cannot be opened again yet: %s", self.id[:8], fault.reason)

    # The end.

    async def end(self, *, tell_upstream: bool) -> None:
        """Ends the streams, cancels what runs, and tells the upstream where nobody else shares its session."""
        core = self.core
        core.happened(Event.ENDED)
        if self._listening is not None:
            await cancel_and_join([self._listening], grace_s=1.0)
        for entry in core.correlator.in_flight():
            cancelled = jsonrpc.notification(
                Method.CANCELLED, {"requestId": entry.client_id, "reason": "the session ended"}
            )
            await self._cancel(cancelled)
        core.book.close_all(core.shared.clock.monotonic())
        if tell_upstream:
            await core.link.end()


class _Begun(NamedTuple):
    """A request whose answer has begun as a stream."""

    request: Message
    entry: InFlight
    source: MessageStream

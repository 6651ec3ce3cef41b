"""A client's session as its transport sees it: requests, batches, notifications, streams, and its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from shadowcat.aio import cancel_and_join
from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import Answer, Direction, MessageStream, Reply, Rest
from shadowcat.core.kept import KeptSession
from shadowcat.core.ledger import StoredSession
from shadowcat.core.session import Event
from shadowcat.core.stream import EventId, Gap
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy import direct
from shadowcat.proxy.answering import Answering
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.ending import proxy_stopped
from shadowcat.proxy.inbound import (
    finished,
    follow,
    give_up,
    tell_of_changes,
    until_stopped,
)
from shadowcat.proxy.listening import Listening
from shadowcat.proxy.news import What
from shadowcat.proxy.recovery import Recovery
from shadowcat.proxy.shared import Phase
from shadowcat.proxy.streams import Reader, Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import PRIMING_VERSIONS, Method

log = logging.getLogger("shadowcat.session")

_CANCEL_S = 2.0
"""How long an upstream is given to hear that a session's requests are cancelled."""


class Session:
    """Implements `core.ports.ClientSession`."""

    __slots__ = ("_answering", "_listening", "_recovery", "core")

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self._answering = Answering(core)
        self._recovery = Recovery(core)
        self._listening = Listening(core, self._recovery)

    @property
    def id(self) -> str:
        return self.core.record.id

    @property
    def version(self) -> str:
        return self.core.record.version

    @property
    def is_listening(self) -> bool:
        """Whether the upstream's standalone stream is followed, or tried for."""
        return self._listening.is_running

    # Requests.

    async def request(self, message: Message) -> Message | Reader | None:
        core = self.core
        core.visitors += 1
        try:
            upgrade_after_s = core.shared.limits.upgrade_after_s
            if upgrade_after_s is not None and self.version in PRIMING_VERSIONS:
                return await self._request_upgraded(message, upgrade_after_s)
            return self._readable(await self._begin(message))
        finally:
            core.visitors -= 1

    def _readable(self, outcome: Message | _Begun | None) -> Message | Reader | None:
        if not isinstance(outcome, _Begun):
            return outcome
        stream = self.core.book.new(outcome.request.id)
        self.core.shared.tasks.spawn(self._follow_alone(outcome, stream), "follow")
        return stream.read()

    def ask(
        self, message: Message, then: Callable[[Message | Rest[Message | Reader | None]], object]
    ) -> Callable[[], object] | None:
        limits = self.core.shared.limits
        if limits.upgrade_after_s is not None and self.version in PRIMING_VERSIONS:
            return None
        return direct.ask(self.core, message, self._go_on, then)

    async def _go_on(
        self, message: Message, entry: InFlight[Stream], seen: int, asking: Rest[Answer]
    ) -> Message | Reader | None:
        """What a direct call leaves to be waited for."""
        with self.core.visited():
            return self._readable(await self._conclude(message, entry, seen, asking()))

    async def _request_upgraded(self, message: Message, after_s: float) -> Message | Reader | None:
        """A response that is long in coming is given a stream, which the client can come back to."""
        core = self.core
        begun = core.shared.tasks.spawn(self._begin(message), "begin", awaited=True)
        done, _ = await asyncio.wait((begun,), timeout=after_s)
        if done and not isinstance(begun.result(), _Begun):
            return begun.result()  # type: ignore[return-value]
        stream = core.book.new(message.id)
        core.shared.tasks.spawn(self._fill(begun, message, stream), "fill")
        return stream.read()

    async def _fill(
        self, begun: asyncio.Task[Message | _Begun | None], request: Message, stream: Stream
    ) -> None:
        try:
            await self._put_outcome(begun, request, stream)
        finally:
            self.core.book.finish(stream)

    async def batch(self, elements: list[Message | Fault]) -> Reader:
        """Each message on its own, in order; the answers on one stream as they come."""
        core = self.core
        core.require_alive()
        stream = core.book.new()
        asked = [element for element in elements if isinstance(element, Message) and element.is_request]
        stream.expect(request.id for request in asked)
        running: list[asyncio.Task[None]] = []
        for element in elements:
            if isinstance(element, Fault):
                stream.append(jsonrpc.error(None, element.error()))
            elif element.is_request:
                answering = self._put_outcome(self._begin(element), element, stream)
                running.append(core.shared.tasks.spawn(answering, "batch element"))
            else:
                await self._receive_element(element)
        core.shared.tasks.spawn(self._close_after(running, stream), "batch end")
        return stream.read()

    async def _receive_element(self, message: Message) -> None:
        try:
            await self.receive(message)
        except Fault as fault:
            # There is no status of its own to tell it by, and the others must not suffer.
            log.warning("session %s: %r did not reach the upstream: %s", self.id[:8], message, fault.reason)

    async def _put_outcome(
        self, asking: Awaitable[Message | _Begun | None], request: Message, stream: Stream
    ) -> None:
        """What becomes of a request, on a stream that others may share."""
        try:
            outcome = await asking
        except Fault as fault:
            outcome = jsonrpc.error(request.id, fault.error())
        except Exception:
            # A stream that ends without an answer leaves its client waiting.
            log.exception("session %s: %r cannot be answered", self.id[:8], request)
            outcome = jsonrpc.error(request.id, Fault(FaultKind.INTERNAL).error())
        if isinstance(outcome, Message):
            stream.append(outcome)
        elif outcome is not None:
            await follow(self.core, outcome.request, outcome.entry, outcome.source, stream)

    async def _close_after(self, running: list[asyncio.Task[None]], stream: Stream) -> None:
        try:
            if running:
                await asyncio.wait(running)
        finally:
            self.core.book.finish(stream)

    async def _follow_alone(self, begun: _Begun, stream: Stream) -> None:
        try:
            await follow(self.core, begun.request, begun.entry, begun.source, stream)
        finally:
            self.core.book.finish(stream)

    async def _begin(self, message: Message) -> Message | _Begun | None:
        """Asks the upstream: the whole response, an answer that has begun, or None for a cancelled request."""
        core = self.core
        core.require_alive()
        core.require_store()
        core.last_used = core.shared.clock.monotonic()
        core.shared.counters.exchanges += 1
        assert message.id is not None
        if message.method == Method.PING:
            return jsonrpc.result(message.id, {})
        if not core.passed(message, Direction.TO_SERVER):
            judged = await core.judged(message, Direction.TO_SERVER)
            if isinstance(judged, Reply):
                return judged.message.with_id(message.id)
            message = judged
            # It may have been ended while an interceptor thought about it.
            core.require_alive()
        if message.method == Method.SUBSCRIBE and not core.record.has_room_to_subscribe:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_subscriptions")
        entry, outgoing = core.correlator.begin(message)
        return await self._conclude(message, entry, core.correlator.epoch, core.link.exchange(outgoing))

    async def _conclude(
        self, message: Message, entry: InFlight[Stream], seen: int, asking: Coroutine[Any, Any, Answer]
    ) -> Message | _Begun | None:
        """What comes of a request that is in flight, asked for in that epoch."""
        core = self.core
        try:
            answer = await self._first_answer(entry, message, seen, asking)
        except BaseException as error:
            core.correlator.finish(entry)
            if isinstance(error, Fault):
                give_up(core, message, entry, error)
            raise
        if answer is not None and answer.stream is not None:
            return _Begun(message, entry, answer.stream)
        core.correlator.finish(entry)
        if answer is None or answer.whole is None:
            return None
        return await finished(core, message, entry, answer.whole)

    async def _first_answer(
        self, entry: InFlight[Stream], message: Message, seen: int, asking: Coroutine[Any, Any, Answer]
    ) -> Answer | None:
        """Asks the upstream once more where it is sure that the first time was not heard."""
        core = self.core
        try:
            return await self._answered(entry, asking)
        except Fault as fault:
            if not self._may_retry(fault):
                raise
        await self._recovery.run(seen)
        if entry.fault is not None:
            raise entry.fault
        if entry.cancelled:
            return None
        return await self._answered(entry, core.link.exchange(core.correlator.renew(entry, message)))

    def _may_retry(self, fault: Fault) -> bool:
        if fault.kind is FaultKind.UPSTREAM_UNAVAILABLE:
            # Nothing was sent; with one upstream there is nowhere else to go.
            return len(self.core.shared.upstreams) > 1 and not fault.sent
        return fault.kind is FaultKind.UPSTREAM_SESSION_LOST

    async def _answered(self, entry: InFlight[Stream], asking: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The upstream's answer; None when the client cancelled before it began."""
        upstreams, name = self.core.shared.upstreams, self.core.record.upstream
        try:
            answer = await until_stopped(entry, asking)
        except Fault as fault:
            if fault.kind is not FaultKind.UPSTREAM_SESSION_LOST:
                upstreams.failed(name, fault)
            raise
        if answer is not None:
            upstreams.answered(name)
        elif entry.fault is not None:
            raise entry.fault
        return answer

    # Notifications, and answers to the server's requests.

    async def receive(self, message: Message) -> None:
        with self.core.visited():
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        core = self.core
        core.require_alive()
        core.last_used = core.shared.clock.monotonic()
        try:
            asked = core.correlator.question(message) if message.is_response else None
            judged = await core.judged(message, Direction.TO_SERVER, asked)
        except Fault as fault:
            core.shared.counters.dropped_messages += 1
            if not message.is_response:
                return
            # The server waits for an answer, and this is the one it gets.
            judged = jsonrpc.error(message.id, fault.error())
        core.require_alive()
        if isinstance(judged, Reply):
            if not message.is_response:
                return
            judged = judged.message
        if judged.is_response:
            if not await self._answering.give(judged):
                core.shared.counters.dropped_messages += 1
        elif judged.method == Method.CANCELLED:
            await self._cancel(judged)
        else:
            if judged.method == Method.INITIALIZED:
                core.record.initialized = True
                core.ledger.record_changed()
            await self._notify(judged)

    async def _cancel(self, notification: Message) -> None:
        core = self.core
        cancelled = core.correlator.cancelled_by_client(notification)
        if cancelled is None:
            core.shared.counters.dropped_messages += 1
            return
        entry, renamed = cancelled
        # What still comes for it is for nobody; a server that honours the cancellation may send nothing at all,
        # and one that hangs may not even take the notification.
        if entry.interrupt is not None:
            entry.interrupt()
        await self._notify(renamed)

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

    async def listen(self, last_event_id: bytes | None) -> Reader | None:
        with self.core.visited():
            reader = await self._reader(last_event_id)
        if self.core.shared.phase is Phase.DRAINING:
            # Its request was on its way when the others were ended; the drain would wait for it in vain.
            self.stop_listening_client()
        return reader

    async def _reader(self, last_event_id: bytes | None) -> Reader | None:
        core = self.core
        core.require_alive()
        core.require_store()
        core.last_used = core.shared.clock.monotonic()
        self._listening.start()
        if last_event_id is None:
            await self._listening.opened()
            core.require_alive()
            return core.book.standalone.read()
        cursor = core.book.cursor(last_event_id)
        if cursor is None:
            raise Fault(FaultKind.STREAM_NOT_RESUMABLE, reason="unknown_event_id")
        core.shared.counters.client_resumes += 1
        try:
            reader = core.book.resume(cursor)
            core.tell(What.STREAM_RESUMED)
            return reader
        except Gap:
            core.shared.counters.gaps += 1
            core.tell(What.STREAM_GAP)
            return self._after_gap(cursor)

    def _after_gap(self, cursor: EventId) -> Reader:
        """The one answer that every official client brings before its application at once is one on the stream.

        A standalone stream starts afresh, with word that anything may have changed; one that answered a request
        ends with an error for that request.
        """
        core = self.core
        if cursor.stream == STANDALONE:
            reader = core.book.standalone.read()
            tell_of_changes(core)
            return reader
        stream = core.book.new()
        fault = Fault(FaultKind.STREAM_NOT_RESUMABLE, reason="events_no_longer_held")
        stream.append(jsonrpc.error(core.book.request_of(cursor.stream), fault.error()))
        # Read before it is finished, as it could not be let go of then.
        reader = stream.read(after=0)
        core.book.finish(stream)
        return reader

    def stop_listening_client(self) -> None:
        """Ends the client's standalone stream; what it did not get waits for it."""
        standalone = self.core.book.find(STANDALONE)
        if standalone is not None:
            standalone.part()

    def give_up_what_ends_here(self) -> None:
        """Ends the calls that no other process could go on with: their clients are told so while they listen."""
        is_kept = self.core.shared.store is not None
        for entry in self.core.correlator.in_flight():
            if entry.stream is None or not (is_kept and entry.stream.can_go_on_elsewhere):
                entry.fail(proxy_stopped())

    async def prepare_to_leave(self) -> None:
        """Leaves the streams where they are, for who goes on with the session."""
        self.core.book.part()
        await self._listening.stop()

    @property
    def waits_for_its_client(self) -> bool:
        """Whether nothing runs that another process could not bring to its end, once the client answers it."""
        core = self.core
        running = [entry.stream for entry in core.correlator.in_flight()]
        return (
            core.visitors == 0
            and bool(core.correlator.unanswered())
            and all(stream is not None and stream.can_go_on_elsewhere for stream in running)
        )

    # Time.

    async def look_after(self) -> None:
        """What is due now and then: questions nobody answers, streams nobody reads."""
        core = self.core
        now = core.shared.clock.monotonic()
        core.book.prune()
        abandoned = core.book.abandoned()
        core.shared.counters.streams_abandoned += len(abandoned)
        for asked in core.correlator.unanswered():
            if asked.stream is not None:
                # The server waits for the client: it has said what it had to say.
                asked.stream.heard()
        for entry in core.correlator.in_flight():
            stream = entry.stream
            if stream is None:
                continue
            if stream in abandoned:
                entry.fail(Fault(FaultKind.DEADLINE, reason="nobody_read_the_stream", sent=True))
            elif now - stream.heard_at >= core.shared.limits.call_s and not stream.log.must_wait:
                entry.fail(Fault(FaultKind.DEADLINE, reason="no_progress", sent=True))
        for asked in core.correlator.overdue(now - core.shared.limits.server_request_s):
            self._answering.give_up(asked)
        await self._listening.stop_lingering(now)

    # From one process to the next.

    def go_on(self, held: KeptSession, stored: StoredSession) -> None:
        """Takes up what an earlier process left: the rest of its streams is asked for, or given up in so many words.

        Raises `Unreadable`.
        """
        core = self.core
        unfinished = core.book.restore(stored.last_stream, stored.streams)
        core.book.make_room()
        # The upstream has seen the ids of the session's earlier life, and the client those of its questions.
        now_ms = int(core.shared.clock.wall() * 1000)
        core.correlator.skip_to(now_ms)
        core.correlator.skip_questions_to(held.last_question)
        now = core.shared.clock.monotonic()
        for asked in held.questions:
            stream = core.book.find(asked.stream)
            core.correlator.restore_question(asked.client_id, asked.upstream_id, asked.method, stream, now)
        standalone = core.book.find(STANDALONE)
        if standalone is not None:
            self._listening.go_on_from(standalone.resume())
        for stream in unfinished:
            # Before a client can ask for what is to come again.
            cursor = stream.resume()
            core.shared.tasks.spawn(self._go_on_with(stream, cursor), "go on")

    async def _go_on_with(self, stream: Stream, cursor: bytes | None) -> None:
        core = self.core
        try:
            for client_id, known in list(stream.unanswered.items()):
                if known is None or cursor is None:
                    lost = Fault(
                        FaultKind.OUTCOME_UNKNOWN, reason="proxy_restarted", side=Side.OURS, sent=True
                    )
                    stream.append(jsonrpc.error(client_id, lost.error()), own=True)
                    continue
                request = jsonrpc.request(client_id, known.method)
                if known.params:
                    request = request.with_params(msgspec.Raw(known.params))
                entry = core.correlator.restore(client_id, known.upstream_id, known.method, known.token)
                await follow(core, request, entry, core.link.resume(cursor, standalone=False), stream)
        finally:
            core.book.finish(stream)

    async def suspend(self) -> None:
        """The process goes, and the store has what another one needs: nobody is told that anything has ended."""
        await self._listening.stop()
        for entry in self.core.correlator.in_flight():
            if entry.stream is not None and entry.interrupt is not None:
                # Some servers refuse to go on with a stream elsewhere while somebody reads it here.
                entry.interrupt()
        self.core.book.close_all()
        await self.core.link.detach()

    # The end.

    async def end(self, *, tell_upstream: bool) -> None:
        """Ends the streams, cancels what runs, and tells the upstream where nobody else shares its session."""
        core = self.core
        core.happened(Event.ENDED)
        await self._listening.stop()
        cancelling = [
            core.shared.tasks.spawn(self._cancel(_session_ended(entry)), "cancel")
            for entry in core.correlator.in_flight()
        ]
        if cancelling:
            _, hanging = await asyncio.wait(cancelling, timeout=_CANCEL_S)
            await cancel_and_join(hanging, grace_s=1.0)
        core.book.close_all()
        if tell_upstream:
            await core.link.end()


def _session_ended(entry: InFlight[Stream]) -> Message:
    params = {"requestId": entry.client_id, "reason": "the session ended"}
    return jsonrpc.notification(Method.CANCELLED, params)


class _Begun(NamedTuple):
    """A request whose answer has begun as a stream."""

    request: Message
    entry: InFlight[Stream]
    source: MessageStream

"""A client's session as its transport sees it: requests, batches, notifications, and streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TypeVar

from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import Answer, Direction, Reply, Rest
from shadowcat.core.kept import KeptSession
from shadowcat.core.ledger import StoredSession
from shadowcat.core.stream import EventId, Gap
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy import direct
from shadowcat.proxy.answering import Answering
from shadowcat.proxy.asking import Asking, Begun
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.continuing import go_on
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import (
    follow,
    tell_of_changes,
)
from shadowcat.proxy.listening import Listening
from shadowcat.proxy.news import What
from shadowcat.proxy.parting import Parting
from shadowcat.proxy.pipeline import Undecided
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.recovery import Recovery
from shadowcat.proxy.shared import Phase
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import PRIMING_VERSIONS, Method

log = logging.getLogger("shadowcat.session")

T = TypeVar("T")

_TURNS = 2
"""Of the loop, until a request is in flight: one for its task, and one for the task that tries it for a while."""


class Session:
    """Implements `core.ports.ClientSession`."""

    __slots__ = ("_answering", "_asking", "_listening", "core", "parting")

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self._answering = Answering(core)
        recovery = Recovery(core)
        self._asking = Asking(core, recovery)
        self._listening = Listening(core, recovery)
        self.parting = Parting(core, self._listening)

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
        with self.core.visited():
            upgrade_after_s = self.core.shared.limits.upgrade_after_s
            if upgrade_after_s is not None and self.version in PRIMING_VERSIONS:
                return await self._request_upgraded(message, upgrade_after_s)
            return self._readable(await self._asking.begin(message))

    def _readable(self, outcome: Message | Begun | None) -> Message | Reader | None:
        if not isinstance(outcome, Begun):
            return outcome
        stream = self.core.book.new(outcome.request.id)
        following = follow(
            self.core, outcome.request, outcome.entry, outcome.source, stream, ends_stream=True
        )
        self.core.shared.tasks.spawn(following, "follow")
        return stream.read()

    # As it stands: a method that calls it would be one more for each call of a client's.
    ask = direct.ask

    async def ask_judged(
        self, message: Message, judged: Message | Reply | Undecided
    ) -> Message | Reader | None:
        """Waits for what a request comes to of which interceptors have made that, or are about to."""
        with self.core.visited():
            return self._readable(await self._asking.judged(message, judged))

    async def conclude(
        self, message: Message, entry: InFlight[Stream], seen: int, asking: Rest[Answer]
    ) -> Message | Reader | None:
        """Waits for what the answer comes to of a request that was sent in the epoch `seen`."""
        with self.core.visited():
            return self._readable(await self._asking.conclude(message, entry, seen, asking()))

    async def _request_upgraded(self, message: Message, after_s: float) -> Message | Reader | None:
        """A response that is long in coming is given a stream, which the client can come back to."""
        core = self.core
        begun = core.shared.tasks.spawn(self._asking.begin(message), "begin", awaited=True)
        done, _ = await asyncio.wait((begun,), timeout=after_s)
        if done and not isinstance(outcome := await _outcome_of(begun), Begun):
            return outcome
        stream = core.book.new(message.id)
        core.shared.tasks.spawn(self._fill(begun, message, stream), "fill")
        return stream.read()

    async def _fill(
        self, begun: asyncio.Task[Message | Begun | None], request: Message, stream: Stream
    ) -> None:
        try:
            await self._put_outcome(_outcome_of(begun), request, stream)
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
                answering = self._put_outcome(self._asking.begin(element), element, stream)
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
        self, asking: Awaitable[Message | Begun | None], request: Message, stream: Stream
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
            await core.notify(judged)

    async def _cancel(self, notification: Message) -> None:
        core = self.core
        cancelled = core.correlator.cancelled_by_client(notification)
        for _ in range(_TURNS):
            if cancelled is not None:
                break
            # What was said just before it may be a task that has yet to begin.
            await asyncio.sleep(0)
            cancelled = core.correlator.cancelled_by_client(notification)
        if cancelled is None:
            core.shared.counters.dropped_messages += 1
            return
        entry, renamed = cancelled
        if entry.is_considered:
            # Interceptors have it, and the upstream knows nothing of it.
            if entry.interrupt is not None:
                entry.interrupt()
            return
        # What still comes for it is for nobody; a server that honours the cancellation may send nothing at all,
        # and one that hangs may not even take the notification.
        if entry.interrupt is not None:
            entry.interrupt()
        await core.notify(renamed)

    # Streams.

    async def listen(self, last_event_id: bytes | None) -> Reader | None:
        with self.core.visited():
            reader = await self._reader(last_event_id)
        if self.is_leaving:
            # Its request was on its way when the others were ended; the drain would wait for it in vain.
            self.parting.stop_listening()
        return reader

    @property
    def is_leaving(self) -> bool:
        return self.core.shared.phase is Phase.DRAINING

    async def _reader(self, last_event_id: bytes | None) -> Reader | None:
        core = self.core
        core.require_alive()
        core.require_store()
        core.last_used = core.shared.clock.monotonic()
        self._listening.start()
        if not core.record.has_listened:
            core.record.has_listened = True
            core.ledger.record_changed()
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
            elif stream.undecided or stream.log.must_wait:
                continue
            elif now - stream.heard_at >= core.shared.limits.call_s:
                entry.fail(Fault(FaultKind.DEADLINE, reason="no_progress", sent=True))
        for asked in core.correlator.overdue(now - core.shared.limits.server_request_s):
            self._answering.give_up(asked)
        await self._listening.stop_lingering(now)

    # From one process to the next.

    def go_on(self, held: KeptSession, stored: StoredSession) -> None:
        """Takes up what an earlier process left. Raises `Unreadable`."""
        go_on(self.core, self._listening, held, stored)


async def _outcome_of(task: asyncio.Task[T]) -> T:
    """Awaited itself, it would raise the fault that it keeps, which then keeps whoever awaits the task: a circle."""
    await asyncio.wait((task,))
    fault = task.exception()
    if isinstance(fault, Fault):
        raise fault.anew()
    return task.result()

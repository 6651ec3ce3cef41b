"""Messages from a server's event streams; a legacy session's stream is resumed when its connection breaks.

The client's side knows nothing of this: a partial event is discarded, a repeated one dropped, a server that closes
politely and asks to be polled is polled. Who reads the stream ends it when it has what it waits for.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shadowcat.core.backoff import Backoff
from shadowcat.core.exchange import Taker
from shadowcat.core.redact import shown
from shadowcat.core.track import EventTracker
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.incoming import ClientResponse
from shadowcat.upstream.interpret import messages_of
from shadowcat.wire import alike
from shadowcat.wire.glance import tells_or_asks
from shadowcat.wire.jsonrpc import REQUEST, Message
from shadowcat.wire.sse import SseDecoder, SseEvent, SseEvents

log = logging.getLogger("shadowcat.upstream")


_REFUSED_FOR_GOOD = frozenset(f"upstream_http_{status}" for status in (204, 400, 404, 405, 410, 501))
"""A server that answers so to who comes back has no rest of that stream, or takes no GET at all."""


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    first_s: float = 0.5
    cap_s: float = 30.0
    attempts: int = 10
    """In a row without an event; then the stream is given up."""


@dataclass(slots=True)
class StreamCounters:
    """Of all streams of one upstream."""

    opened: int = 0
    ended: int = 0
    reconnect_attempts: int = 0
    reconnects: int = 0
    given_up: int = 0
    duplicates: int = 0
    garbage: int = 0
    """Events that were no message, and cost no call its answer."""
    lifetime_s: float = 0.0


class EventMessages:
    """The messages of one event stream response, as they come; ends where the response ends."""

    __slots__ = (
        "_begun_at",
        "_counters",
        "_decoder",
        "_event_s",
        "_has_answer",
        "_skip_garbage",
        "response",
    )

    def __init__(
        self,
        response: ClientResponse,
        event_s: float | None,
        counters: StreamCounters | None = None,
        *,
        skip_garbage: bool = False,
    ) -> None:
        """`event_s`: how long one event may take from its first byte to its last.

        What is no message ends the stream, unless it is sure that it was no answer; `skip_garbage`: on this one there
        are none.
        """
        self.response = response
        self._decoder = SseDecoder()
        self._event_s = event_s
        self._begun_at: float | None = None
        self._counters = counters or StreamCounters()
        self._skip_garbage = skip_garbage
        self._has_answer = False

    def __aiter__(self) -> EventMessages:
        return self

    async def __anext__(self) -> list[Message]:
        while True:
            messages = self.parse(self.decode(await anext(self.response)))
            if messages:
                return messages

    async def next_events(self) -> list[SseEvent]:
        return self.decode(await anext(self.response)).each()

    def decode(self, data: bytes) -> SseEvents:
        try:
            events = self._decoder.read(data)
            if not events:
                self._require_pace()
            else:
                self._begun_at = None
            return events
        except Fault:
            self.response.abort()
            raise

    def _require_pace(self) -> None:
        """A server that sends byte by byte is never silent, and never done."""
        if self._event_s is None or not self._decoder.has_begun:
            self._begun_at = None
            return
        now = asyncio.get_running_loop().time()
        if self._begun_at is None:
            self._begun_at = now
        elif now - self._begun_at > self._event_s:
            raise Fault(FaultKind.DEADLINE, reason="event", sent=True)

    def parse(self, events: SseEvents) -> list[Message]:
        """Priming and polling events carry no data; other event names are not MCP's."""
        texts = events.messages
        if events.others:
            texts = texts + [
                event.data for event in events.others if event.data and event.event == b"message"
            ]
        messages: list[Message] = []
        at = 0
        while at < len(texts):
            messages += self._messages_of(texts[at])
            at += 1
            if at < len(texts) and messages:
                end = alike.end_of_run(messages[-1], texts, at)
                if end > at:
                    messages += self._run_of(messages[-1], texts[at:end])
                    at = end
        if messages and messages[-1].is_response:
            self._has_answer = True
        return messages

    def _run_of(self, first: Message, texts: list[bytes]) -> list[Message]:
        run = alike.parse_run(first, texts)
        return [message for text in texts for message in self._messages_of(text)] if run is None else run

    def _messages_of(self, text: bytes) -> list[Message]:
        try:
            return messages_of(text)
        except Fault as fault:
            if not (self._skip_garbage or tells_or_asks(text)):
                self.response.abort()
                raise
            self._counters.garbage += 1
            why = fault.__cause__ or fault
            log.warning("an event that is not a message is dropped (%s): %s", why, shown(text, 200))
            return []

    def may_be_silent(self) -> None:
        """The server waits for the client. How long a call may wait is its session's to say, which knows of that; only
        a stream that can be resumed is better asked for again.
        """
        self.response.may_be_silent()

    @property
    def cursor(self) -> bytes | None:
        return None

    async def aclose(self) -> None:
        if self._has_answer:
            # The server is about to end it.
            self.response.leave()
        else:
            self.response.abort()


Reopen = Callable[[bytes], Awaitable[ClientResponse]]


class ResumedMessages:
    """The messages of one event stream over as many connections as it takes.

    `reopen` asks for the rest after an event id. Without an id there is nothing to resume from, and the stream ends
    as its connection ended.
    """

    __slots__ = (
        "_asks_to_poll",
        "_backoff",
        "_closed",
        "_counters",
        "_event_s",
        "_left",
        "_messages",
        "_opened_at",
        "_policy",
        "_reopen",
        "_retry_s",
        "_skip_garbage",
        "_taker",
        "_tracker",
        "_waking",
    )

    def __init__(
        self,
        begun: ClientResponse | bytes,
        reopen: Reopen,
        counters: StreamCounters,
        policy: ReconnectPolicy,
        event_s: float | None,
        *,
        skip_garbage: bool = False,
    ) -> None:
        """`begun` is what the server answers with; or the last event id of a stream that broke in another process."""
        self._messages: EventMessages | None = None
        self._event_s = event_s
        self._skip_garbage = skip_garbage
        self._reopen = reopen
        self._counters = counters
        self._policy = policy
        self._tracker = EventTracker()
        if isinstance(begun, bytes):
            self._tracker.broke_off_at(begun)
        else:
            begun.forget_headers()
            self._messages = EventMessages(begun, event_s, counters, skip_garbage=skip_garbage)
        self._backoff: Backoff | None = None
        """Once it broke, until something comes."""
        self._taker: Taker | None = None
        self._left: list[Message] | Exception | None = None
        """Of a read that the taker was given: for who iterates."""
        self._retry_s: float | None = None
        self._asks_to_poll = False
        self._opened_at = asyncio.get_running_loop().time()
        self._closed = False
        self._waking: asyncio.Future[None] | None = None
        counters.opened += 1

    @property
    def cursor(self) -> bytes | None:
        """The upstream's id of the last event read: where another process would go on."""
        return self._tracker.last_id

    def take_with(self, taker: Taker) -> None:
        self._taker = taker

    def __aiter__(self) -> ResumedMessages:
        return self

    async def __anext__(self) -> list[Message]:
        while True:
            source = self._messages
            if source is None:
                await self._reconnect(None)
                continue
            try:
                # Awaited from here: each coroutine in between is kept, and gone through, for as long as it waits.
                if not source.response.has_come:
                    await source.response.arrival(self if self._taker is not None else None)
                messages = self._come(source)
            except StopAsyncIteration:
                if self._tracker.last_id is None:
                    raise
                if self._asks_to_poll:
                    # The server's wish, renewed on each connection, and no failure that counts.
                    self._backoff = None
                await self._reconnect(None)
                continue
            except Fault as fault:
                if self._tracker.last_id is None or self._closed or fault.kind is FaultKind.UPSTREAM_INVALID:
                    raise
                await self._reconnect(fault)
                continue
            if messages is not None:
                return messages

    def _come(self, source: EventMessages) -> list[Message] | None:
        """What the taker has left, or what has come since."""
        left, self._left = self._left, None
        if isinstance(left, Exception):
            raise left
        return self._said(source, source.response.take()) if left is None else left

    def at_once(self, data: bytes) -> bool:
        source, taker = self._messages, self._taker
        assert source is not None
        assert taker is not None
        try:
            messages = self._said(source, data)
            self._left = None if messages is None else taker.take(messages, self._tracker.last_id)
        except Exception as error:
            # It is for who waits, not for the connection.
            self._left = error
        if self._left == []:
            # There is no room. At full speed the next read would be here before who waits for room has run.
            source.response.pause()
        return self._left is None

    def _said(self, source: EventMessages, data: bytes) -> list[Message] | None:
        """None where that is nothing, and no new place to go on from either."""
        tracker = self._tracker
        before = tracker.last_id
        messages = source.parse(self._new_of(source.decode(data)))
        if messages:
            self._backoff = None
            if tracker.last_id is None and any(message.kind is REQUEST for message in messages):
                source.may_be_silent()
            return messages
        return None if tracker.last_id is before else messages

    def _new_of(self, events: SseEvents) -> SseEvents:
        for event in events.others:
            if event.retry is not None:
                self._asks_to_poll = True
                self._retry_s = min(max(event.retry / 1000, self._policy.first_s), self._policy.cap_s)
        fresh = self._tracker.new_of(events)
        if len(fresh) < len(events):
            self._counters.duplicates += len(events) - len(fresh)
        return fresh

    async def _reconnect(self, broken: Fault | None) -> None:
        """Waits and asks for the rest, until it comes, is refused for good, or the attempts are used up."""
        last_id = self._tracker.last_id
        assert last_id is not None
        policy = self._policy
        backoff = self._backoff = self._backoff or Backoff(policy.first_s, policy.cap_s)
        while backoff.tries < policy.attempts and not self._closed:
            if await self._closed_within(self._wait_s(backoff)):
                break
            self._counters.reconnect_attempts += 1
            try:
                response = await self._reopen(last_id)
            except Fault as fault:
                if fault.kind is FaultKind.UPSTREAM_SESSION_LOST:
                    raise
                broken = fault
                if fault.reason in _REFUSED_FOR_GOOD:
                    break
                continue
            self._counters.reconnects += 1
            self._tracker.reconnected()
            self._messages = EventMessages(
                response, self._event_s, self._counters, skip_garbage=self._skip_garbage
            )
            self._asks_to_poll = False
            if self._closed:
                response.abort()
            return
        self._counters.given_up += 1
        raise Fault(FaultKind.OUTCOME_UNKNOWN, reason="upstream_connection_lost", sent=True) from broken

    async def _closed_within(self, wait_s: float) -> bool:
        """A wait that whoever closes the stream does not have to sit out."""
        if not self._closed:
            self._waking = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait((self._waking,), timeout=wait_s)
            finally:
                self._waking = None
        return self._closed

    def _wait_s(self, backoff: Backoff) -> float:
        """What the server asked for, on the first try; after that, or unasked, the backoff."""
        asked = self._retry_s if backoff.tries == 0 else None
        if self._messages is None and backoff.tries == 0:
            # Whoever broke off has been away for long enough.
            asked = 0.0
        wait_s = backoff.next_s(random.random())
        return wait_s if asked is None else asked

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._counters.ended += 1
            self._counters.lifetime_s += asyncio.get_running_loop().time() - self._opened_at
            if self._waking is not None and not self._waking.done():
                self._waking.set_result(None)
        if self._messages is not None:
            await self._messages.aclose()

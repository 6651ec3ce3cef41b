"""A conduit over the 2024-11-05 transport: one event stream from the server, and a URL to post messages to."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

from shadowcat.core.correlate import ID_BITS
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList
from shadowcat.upstream.call import Call
from shadowcat.upstream.conduit import Conduit, ConduitLimits
from shadowcat.upstream.events import EventMessages
from shadowcat.upstream.interpret import JSON, SSE, media_type, refusal_of
from shadowcat.upstream.readers import ConduitCounters
from shadowcat.upstream.requests import Requests
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.sse import SseEvent

log = logging.getLogger("shadowcat.upstream")

_OPEN_S = 10.0
"""How long a server may take to say where messages are to be posted."""
_STREAM = Timeouts(head_s=_OPEN_S, gap_s=None)
_GET: HeaderList = [(b"accept", SSE), (b"accept-encoding", b"identity")]
_POST: HeaderList = [(b"content-type", JSON), (b"accept-encoding", b"identity")]


class SseChannel(Conduit):
    ended = "upstream_connection_lost"

    def __init__(
        self,
        name: str,
        requests: Requests,
        call: Timeouts,
        counters: ConduitCounters,
        on_gone: Callable[[SseChannel], object],
    ) -> None:
        """Use `open`."""
        super().__init__(name, ConduitLimits(call_s=call.gap_s), counters)
        # The server has other sessions: see `core.correlate`.
        self._last_id = secrets.randbits(ID_BITS)
        self.endpoint = ""
        """Where messages are posted: only this session knows it."""
        self._requests = requests
        self._call = call
        self._on_gone = on_gone
        self._is_over = False
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._events: EventMessages
        self._reading: asyncio.Task[None]

    @classmethod
    async def open(
        cls,
        name: str,
        requests: Requests,
        call: Timeouts,
        counters: ConduitCounters,
        on_gone: Callable[[SseChannel], object],
    ) -> SseChannel:
        """Opens a session. `on_gone` hears if it ends by itself. Raises `Fault`; nothing is left of it then."""
        channel = cls(name, requests, call, counters, on_gone)
        try:
            async with asyncio.timeout(_OPEN_S):
                rest = await channel._begin()
        except TimeoutError as error:
            raise _no_endpoint() from error
        channel._reading = channel._tasks.spawn(channel._read(rest), "read")
        return channel

    async def _begin(self) -> Sequence[SseEvent]:
        """Returns what came along with the endpoint."""
        response = await self._requests.send(self._requests.head("GET", _GET), b"", _STREAM)
        try:
            await self._require_stream(response)
            self._events = EventMessages(response, self._call.gap_s)
            while True:
                events = await self._events.next_events()
                for index, event in enumerate(events):
                    if event.event == b"endpoint":
                        self._post_to(event.data or b"")
                        return events[index + 1 :]
                    if event.data and event.event == b"message":
                        raise _no_endpoint()
        except StopAsyncIteration:
            raise _no_endpoint() from None
        except BaseException:
            response.abort()
            raise

    async def _require_stream(self, response: ClientResponse) -> None:
        kind = media_type(response.headers.get(b"content-type"))
        if response.status == 200 and kind == SSE:
            return
        body = await self._requests.body(response)
        if response.status != 200:
            refusal_of(None, response.status, kind, body, in_session=False)
        raise Fault(FaultKind.UPSTREAM_FAILED, reason="upstream_sent_no_stream", sent=True)

    def _post_to(self, reference: bytes) -> None:
        target = self._requests.same_origin_target(reference)
        if target is None:
            told = "The upstream wants messages to be posted to another origin"
            raise Fault(FaultKind.UPSTREAM_INVALID, told, reason="upstream_foreign_endpoint")
        self.endpoint = target
        self._post_head = self._requests.head("POST", _POST, target)

    @property
    def is_gone(self) -> bool:
        return self._is_over

    async def stop(self) -> None:
        """Closes the stream, and with it the session."""
        if not self._is_over:
            self._is_over = True
            self._over()
        await self._settle()
        # Reading may have been ended before it began.
        await self._events.aclose()

    # The stream.

    async def _read(self, events: Sequence[SseEvent]) -> None:
        invalid: Fault | None = None
        try:
            while True:
                for event in events:
                    if event.data and event.event == b"message":
                        self._hear(event.data)
                await self._may_read.wait()
                events = await self._events.next_events()
        except StopAsyncIteration:
            log.info("upstream %s: the server ended a session", self.name)
        except Fault as fault:
            log.info(
                "upstream %s: the stream of a session broke: %s (%s)", self.name, fault.message, fault.reason
            )
            if fault.kind is FaultKind.UPSTREAM_INVALID:
                invalid = fault.anew()
        finally:
            await self._events.aclose()
            if not self._is_over:
                self._is_over = True
                self._over(invalid)
                self._on_gone(self)

    def _pause_reading(self) -> None:
        self._may_read.clear()

    def _resume_reading(self) -> None:
        self._may_read.set()

    # Messages to the server.

    async def _carry(self, message: Message, call: Call | None = None) -> None:
        self._require_open()
        if call is None:
            await self._post(message, None)
        else:
            # Not waited for: some servers let the POST wait for as long as the request runs.
            self._tasks.spawn(self._post_call(message, call), "post")

    def _carry_nowait(self, message: Message) -> bool:
        self._require_open()
        return False

    def _require_open(self) -> None:
        if self._is_over:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason=self.ended)

    async def _post_call(self, request: Message, call: Call) -> None:
        try:
            refusal = await self._post(request, request)
        except Fault as fault:
            # Of a POST that was taken, and waits, the call's own deadline counts: what is heard on the stream puts
            # that off.
            if fault.kind is not FaultKind.DEADLINE:
                self._refuse(call, fault)
        else:
            if refusal is not None:
                self._hear(refusal.raw)

    async def _post(self, message: Message, request: Message | None) -> Message | None:
        """Returns the error that a server may refuse a request with."""
        response = await self._requests.send(self._post_head, message.raw, self._call)
        body = await self._requests.body(response)
        if 200 <= response.status < 300:
            return None
        kind = media_type(response.headers.get(b"content-type"))
        try:
            return refusal_of(request, response.status, kind, body, in_session=True).whole
        except Fault as fault:
            if fault.kind is FaultKind.UPSTREAM_SESSION_LOST:
                # What its stream still says is of no use.
                asyncio.get_running_loop().call_soon(self._reading.cancel)
            raise


def _no_endpoint() -> Fault:
    told = "The upstream did not say where to post messages"
    return Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="upstream_sent_no_endpoint")

"""The way of an event through the proxy without its sockets: from a read of the upstream's to a write to the client.

Everything in between is the proxy's own, put together as `app` does it, with a server that is only a list of reads.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Callable, Sequence
from typing import cast

from shadowcat.clock import SystemClock
from shadowcat.core.exchange import Answer, Caller, Forwarded, MessageStream
from shadowcat.core.ports import ClientSession, ClientStream, Link
from shadowcat.downstream.answers import stream_response
from shadowcat.http.incoming import ClientResponse, Prompt
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import SessionLimits, Shared
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.upstream.events import ReconnectPolicy, ResumedMessages, StreamCounters
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

EVENT_BYTES = 200
_EVENT = b"event: message\nid: %d\ndata: %b\n\n"
_MESSAGE = (
    b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"indexer",'
    b'"data":"%b"}}'
)
_DONE = b'event: message\nid: done\ndata: {"jsonrpc":"2.0","id":%d,"result":{"content":[]}}\n\n'
_INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "bench", "version": "1"},
}

Source = Callable[[ClientResponse], MessageStream]


def events(count: int) -> list[bytes]:
    """Notifications of 200 bytes with ids of their own."""
    told = b"a document of the collection was read and its words were counted; " * 2
    message = _MESSAGE % told[: EVENT_BYTES - len(_MESSAGE % b"")]
    return [_EVENT % (number, message) for number in range(1, count + 1)]


def in_reads(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def resumed(response: ClientResponse) -> MessageStream:
    """As the proxy reads a call's stream in a session."""

    async def reopen(last_event_id: bytes) -> ClientResponse:
        raise AssertionError("the stream does not break")

    return ResumedMessages(response, reopen, StreamCounters(), ReconnectPolicy(), 300.0)


class Reads:
    """What stands in for an HTTP response: its reads are here already, one for each turn of the loop."""

    def __init__(self, reads: Sequence[bytes]) -> None:
        self._reads = iter(reads)
        self._read: bytes | None = None
        self._ended = False
        self._loop = get_running_loop()

    def __aiter__(self) -> Reads:
        return self

    async def __anext__(self) -> bytes:
        await self.arrival()
        return self.take()

    @property
    def has_come(self) -> bool:
        return self._ended or self._read is not None

    def arrival(self, reader: Prompt | None = None) -> Future[None]:
        waiter = self._loop.create_future()
        self._loop.call_soon(self._arrive, waiter, reader)
        return waiter

    def _arrive(self, waiter: Future[None], reader: Prompt | None) -> None:
        read = next(self._reads, None)
        if read is not None and reader is not None and reader.at_once(read):
            self._loop.call_soon(self._arrive, waiter, reader)
            return
        self._read, self._ended = None if reader is not None else read, read is None
        waiter.set_result(None)

    def take(self) -> bytes:
        read, self._read = self._read, None
        if read is None:
            raise StopAsyncIteration
        return read

    def forget_headers(self) -> None: ...

    def abort(self) -> None: ...

    def leave(self) -> None: ...

    async def aclose(self) -> None: ...


class ReadyLink:
    """A session with a server whose every call is answered with the same events."""

    upstream_id: str | None = "up"

    def __init__(self, reads: Sequence[bytes], source: Source) -> None:
        self._reads = reads
        self._source = source

    async def exchange(self, request: Message) -> Answer:
        assert isinstance(request.id, int)
        response = cast(ClientResponse, Reads([*self._reads, _DONE % request.id]))
        return Answer(stream=self._source(response))

    async def send(self, message: Message) -> None: ...

    async def listen(self) -> MessageStream | None: ...

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        raise AssertionError("there was no earlier process")

    async def detach(self) -> None: ...

    async def end(self) -> None: ...


class ReadyUpstream:
    name = "ready"

    def __init__(self, reads: Sequence[bytes], source: Source) -> None:
        self._link = ReadyLink(reads, source)

    async def open(self, initialize: Message) -> tuple[Link, Message]:
        assert initialize.id is not None
        return self._link, jsonrpc.result(initialize.id, _INITIALIZED)

    def attach(self, upstream_id: str | None, version: str) -> Link:
        return self._link

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        raise AssertionError("only sessions are measured")

    async def aclose(self) -> None: ...


class Way:
    """A session whose calls take the way; each call leaves a finished stream in the log, as far as that reaches."""

    def __init__(self, reads: Sequence[bytes], source: Source = resumed) -> None:
        self._shared = Shared(
            upstreams=Upstreams([ReadyUpstream(reads, source)]),
            store=None,
            pipeline=Pipeline(()),
            clock=SystemClock(),
            limits=SessionLimits(),
        )
        self._session: ClientSession | None = None

    async def call(self) -> int:
        """Returns how many bytes there were for the client."""
        session = self._session = self._session or await self._open()
        outcome = await session.request(jsonrpc.request(1, Method.TOOLS_CALL, {"name": "index"}))
        response = stream_response(cast(ClientStream, outcome), lambda: 1_000, 15.0, [])
        written = 0
        assert not isinstance(response.body, bytes)
        async for chunk in response.body:
            written += len(chunk)
        return written

    async def _open(self) -> ClientSession:
        initialize = jsonrpc.request(
            0, Method.INITIALIZE, {"protocolVersion": "2025-11-25", "capabilities": {}}
        )
        session, answer = await Relay(self._shared).open(initialize, Caller(), "")
        assert session is not None, answer.raw
        return session

"""Who takes a stream's messages as they are read, and who waits for what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.message import Request, Response
from shadowcat.http.outgoing import OutgoingConnection
from shadowcat.http.server import Server
from shadowcat.upstream.events import ReconnectPolicy, ResumedMessages, StreamCounters
from shadowcat.wire.jsonrpc import Message
from tests.rig.wait import soon, until


class Said:
    """A body whose pieces a test gives, each written by itself."""

    response: ClientResponse
    """At the other end."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def event(self, number: int) -> None:
        self.say(b'{"jsonrpc":"2.0","method":"n/%d"}' % number, number)

    def say(self, data: bytes, number: int) -> None:
        self.say_at_once(b"event: message\nid: %d\ndata: %b\n\n" % (number, data))

    def say_at_once(self, events: bytes) -> None:
        self._pieces.put_nowait(events)

    def __aiter__(self) -> Said:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.get()
        if piece is None:
            raise StopAsyncIteration
        return piece

    def end(self) -> None:
        self._pieces.put_nowait(None)


class Taking:
    """Takes what is given until it is told to leave something."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.cursors: list[bytes | None] = []
        self.leaves: list[Message] | Exception | None = None
        self.has_room = True

    def take(self, messages: list[Message], cursor: bytes | None) -> list[Message] | None:
        if isinstance(self.leaves, Exception):
            raise self.leaves
        if self.leaves is not None:
            return messages
        self.taken += methods(messages)
        self.cursors.append(cursor)
        return None if self.has_room else []


def methods(messages: list[Message]) -> list[str]:
    return [message.method for message in messages]


@asynccontextmanager
async def source_of(said: Said) -> AsyncIterator[ResumedMessages]:
    async def handle(request: Request) -> Response:
        return Response(200, [(b"content-type", b"text/event-stream")], said)

    async def reopen(last_event_id: bytes) -> ClientResponse:
        raise Fault(FaultKind.UPSTREAM_SESSION_LOST)

    server, client = Server(handle), Client()
    await server.listen("127.0.0.1")
    try:
        origin = Origin("http", "127.0.0.1", server.port)
        said.response = await client.send(origin, "POST", "/", [])
        source = ResumedMessages(said.response, reopen, StreamCounters(), ReconnectPolicy(), 300.0)
        yield source
        await source.aclose()
    finally:
        await client.aclose()
        await server.aclose()


async def batch(source: ResumedMessages) -> list[Message]:
    async with soon():
        return await anext(source)


async def test_what_is_taken_wakes_nobody() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        waiting = asyncio.create_task(batch(source))
        for number in (1, 2, 3):
            said.event(number)
            await until(lambda number=number: len(taking.taken) == number)
        assert not waiting.done()
        assert taking.taken == ["n/1", "n/2", "n/3"]
        assert taking.cursors == [b"1", b"2", b"3"]
        taking.leaves = []
        said.event(4)
        assert methods(await waiting) == ["n/4"]
        assert source.cursor == b"4"


async def test_what_comes_in_one_read_keeps_its_order_whatever_its_form() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        waiting = asyncio.create_task(batch(source))
        said.say_at_once(
            b'event: message\nid: 1\ndata: {"jsonrpc":"2.0","method":"n/1"}\n\n'
            b'event: message\nid: 2\ndata: {"jsonrpc":"2.0","method":"n/2"}\n\n'
            b"event: message\nid: 3\ndata: \n\n"
            b'id: 4\ndata: {"jsonrpc":"2.0","method":"n/4"}\n\n'
        )
        await until(lambda: bool(taking.taken))
        assert taking.taken == ["n/1", "n/2", "n/4"]
        assert taking.cursors == [b"4"]
        waiting.cancel()


async def test_nothing_is_read_while_there_is_no_room_for_it() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        taking.has_room = False
        waiting = asyncio.create_task(batch(source))
        said.event(1)
        assert await waiting == []
        assert taking.taken == ["n/1"]
        line = said.response._connection
        assert isinstance(line, OutgoingConnection)
        assert line._paused
        taking.has_room = True
        waiting = asyncio.create_task(batch(source))
        said.event(2)
        await until(lambda: len(taking.taken) == 2)
        assert not waiting.done()
        assert not line._paused
        waiting.cancel()


async def test_what_comes_while_nobody_waits_is_left_to_who_comes() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        taking.leaves = []
        waiting = asyncio.create_task(batch(source))
        said.event(1)
        assert methods(await waiting) == ["n/1"]
        taking.leaves = None
        said.event(2)
        await until(lambda: said.response.has_come)
        assert methods(await batch(source)) == ["n/2"]
        assert taking.taken == []


async def test_what_cannot_be_read_is_told_to_who_waits() -> None:
    said = Said()
    async with source_of(said) as source:
        source.take_with(Taking())
        waiting = asyncio.create_task(batch(source))
        said.say(b"{", 1)
        with pytest.raises(Fault) as caught:
            await waiting
        assert caught.value.kind is FaultKind.UPSTREAM_INVALID


async def test_what_the_taker_raises_is_told_to_who_waits() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        taking.leaves = ZeroDivisionError()
        waiting = asyncio.create_task(batch(source))
        said.event(1)
        with pytest.raises(ZeroDivisionError):
            await waiting


async def test_an_end_is_told_to_who_waits() -> None:
    said, taking = Said(), Taking()
    async with source_of(said) as source:
        source.take_with(taking)
        waiting = asyncio.create_task(batch(source))
        said.event(1)
        await until(lambda: taking.taken)
        said.end()
        # It can be asked for the rest, and the server has none.
        with pytest.raises(Fault) as caught:
            await waiting
        assert caught.value.kind is FaultKind.UPSTREAM_SESSION_LOST

"""What a client of HTTP+SSE hears when its session, a scripted one here, does not give everything at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from shadowcat.core.exchange import Caller, Piece
from shadowcat.core.ports import ClientSession, ClientStream, Gateway
from shadowcat.downstream.sse_stream import SseStream
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from tests.rig.wait import soon

INITIALIZED = jsonrpc.notification("notifications/initialized")
NOTE = jsonrpc.notification("notifications/vendor")
ANSWER = jsonrpc.result(1, {})


class Pieces:
    """What one reading of a stored stream brings before it stops."""

    def __init__(self, *events: tuple[int, Message]) -> None:
        self._events = [Piece(b"", number, (message.raw,)) for number, message in events]

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if not self._events:
            raise StopAsyncIteration
        return self._events.pop(0)

    async def aclose(self) -> None:
        pass


class Scripted:
    """A session, and the gateway to it."""

    version = "2024-11-05"
    is_leaving = False

    def __init__(self, answer: Pieces, *listens: Pieces | Fault) -> None:
        self.asked_for: list[bytes | None] = []
        self._answer = answer
        self._listens = list(listens)

    async def open(self, initialize: Message, caller: Caller, address: str) -> tuple[ClientSession, Message]:
        return cast(ClientSession, self), jsonrpc.result(0, {})

    async def request(self, message: Message) -> ClientStream:
        return self._answer

    async def receive(self, message: Message) -> None:
        pass

    async def listen(self, last_event_id: bytes | None) -> ClientStream:
        self.asked_for.append(last_event_id)
        found = self._listens.pop(0)
        if isinstance(found, Fault):
            raise found
        return found

    async def end(self, session: ClientSession) -> None:
        pass


@asynccontextmanager
async def conversing(session: Any) -> AsyncIterator[SseStream]:
    conversation = SseStream(cast(Gateway, session), Caller(), "", "/messages", lambda _: None)
    try:
        await anext(conversation)
        await conversation.take(jsonrpc.request(0, "initialize"))
        assert b'"id":0' in await anext(conversation)
        yield conversation
    finally:
        await conversation.end()


async def test_an_answer_that_the_store_holds_back_for_long_comes_all_the_same() -> None:
    session = Scripted(Pieces((1, NOTE)), Pieces(), Pieces(), Pieces((2, ANSWER)))
    async with conversing(session) as conversation, soon():
        await conversation.take(jsonrpc.request(1, "tools/call"))
        assert NOTE.raw in await anext(conversation)
        assert ANSWER.raw in await anext(conversation)
    assert session.asked_for == [b"1", b"1", b"1"]


async def test_who_could_not_listen_may_say_again_that_it_is_initialized() -> None:
    away = Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")
    over = Fault(FaultKind.SESSION_UNKNOWN)
    async with conversing(Scripted(Pieces(), away, Pieces((1, NOTE)), over)) as conversation, soon():
        with pytest.raises(Fault):
            await conversation.take(INITIALIZED)
        await conversation.take(INITIALIZED)
        assert NOTE.raw in await anext(conversation)

"""One client of the 2024-11-05 transport: what it posts, and the one stream that everything comes back on.

The stream is the session: it begins before `initialize`, and when it ends all that runs is cancelled. Its events have
no ids, because nobody can come back for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Caller, Piece
from shadowcat.core.ports import ClientSession, ClientStream, Gateway
from shadowcat.downstream.body import asks_something, require_batches
from shadowcat.downstream.outbox import Outbox
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method
from shadowcat.wire.sse import encode_event

log = logging.getLogger("shadowcat.session")

MAX_RUNNING = 1_000
"""Requests under way, and answers that wait for the client to read."""
OPEN_S = 60.0
"""How long a client may take to send `initialize`."""


class Conversation:
    """The body of the response that is the stream. `on_end` hears when it was closed; then `end` it."""

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        address: str,
        endpoint: str,
        on_end: Callable[[Conversation], object],
    ) -> None:
        """`address` is the client's, `endpoint` where it is to post."""
        self._gateway = gateway
        self._caller = caller
        self._address = address
        self._first = encode_event(endpoint.encode("ascii"), event=b"endpoint")
        self._on_end = on_end
        self._outbox = Outbox()
        self._tasks = Tasks("old session")
        self._opening: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None
        self._running = 0
        self._is_listening = False
        self._is_draining = False
        self._patience = asyncio.get_running_loop().call_later(OPEN_S, self._require_begun)

    # The stream.

    def __aiter__(self) -> Conversation:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._outbox)

    async def aclose(self) -> None:
        self._on_end(self)

    def _require_begun(self) -> None:
        if self._opening is None:
            self._outbox.end()

    async def _say(self, message: Message) -> None:
        await self._outbox.put(encode_event(message.raw, event=b"message"))

    # What is posted.

    async def take(self, message: Message) -> None:
        """Returns once the message was taken, not once it was answered. Raises `Fault`."""
        if message.is_request and message.method == Method.INITIALIZE:
            self._open(message)
            return
        session = await self._require_session()
        if message.is_request:
            self._run(session, message)
            return
        await session.receive(message)
        if message.method == Method.INITIALIZED:
            await self._listen(session)

    async def take_batch(self, elements: list[Message | Fault]) -> None:
        session = await self._require_session()
        require_batches(session)
        if asks_something(elements):
            self._require_room()
            self._spawn(self._answer_batch(session, elements))
            return
        for element in elements:
            if isinstance(element, Message):
                await session.receive(element)

    async def _require_session(self) -> ClientSession:
        if self._opening is not None:
            # A client may post the next message before it has the answer to the first.
            await asyncio.wait((self._opening,))
        if self._session is None:
            raise Fault(FaultKind.INVALID_REQUEST, "initialize comes first")
        return self._session

    def _require_room(self) -> None:
        if self._running >= MAX_RUNNING:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight")

    # The session.

    def _open(self, initialize: Message) -> None:
        if self._opening is not None:
            raise Fault(FaultKind.INVALID_REQUEST, "This session is already initialized")
        self._opening = self._tasks.spawn(self._opened(initialize), "open")

    async def _opened(self, initialize: Message) -> None:
        answer = jsonrpc.error(initialize.id, Fault(FaultKind.INTERNAL).error())
        try:
            self._session, answer = await self._gateway.open(initialize, self._caller, self._address)
        except Fault as fault:
            answer = jsonrpc.error(initialize.id, fault.error())
        finally:
            if self._session is None:
                # It may try again.
                self._opening = None
            await self._say(answer)

    async def _listen(self, session: ClientSession) -> None:
        if self._is_listening:
            return
        self._is_listening = True
        try:
            stream = await session.listen(None)
        except Fault:
            # The client is told, and may say once more that it is initialized.
            self._is_listening = False
            raise
        if stream is not None:
            self._tasks.spawn(self._follow(session, stream), "listen")

    async def _follow(self, session: ClientSession, stream: ClientStream) -> None:
        """The session's standalone stream, which ends with the session, and never but for that."""
        reading: ClientStream | None = stream
        last_id: bytes | None = None
        try:
            while reading is not None and not self._is_draining:
                try:
                    async for piece in reading:
                        last_id = piece.last_id
                        await self._pass_on(piece)
                finally:
                    await reading.aclose()
                if not self._is_draining:
                    reading = await session.listen(last_id)
        except Fault as fault:
            log.info("an HTTP+SSE session is over: %s", fault.reason)
        finally:
            if not self._is_draining:
                self._outbox.end()

    # Requests.

    def _run(self, session: ClientSession, request: Message) -> None:
        self._require_room()
        self._spawn(self._answer(session, request))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._running += 1
        self._tasks.spawn(work, "request").add_done_callback(self._answered)

    def _answered(self, _: object) -> None:
        self._running -= 1
        self._end_if_drained()

    async def _answer(self, session: ClientSession, request: Message) -> None:
        try:
            outcome = await session.request(request)
            if isinstance(outcome, Message):
                await self._say(outcome)
            elif outcome is not None:
                await self._relay(session, outcome, answers=1)
        except Fault as fault:
            await self._say(jsonrpc.error(request.id, fault.error()))
            if fault.kind is FaultKind.SESSION_UNKNOWN:
                # Which a client of this transport only understands when its stream ends.
                self._outbox.end()
        except Exception:
            log.exception("%r cannot be answered", request)
            await self._say(jsonrpc.error(request.id, Fault(FaultKind.INTERNAL).error()))

    async def _answer_batch(self, session: ClientSession, elements: list[Message | Fault]) -> None:
        asked = sum(isinstance(element, Fault) or element.is_request for element in elements)
        try:
            await self._relay(session, await session.batch(elements), answers=asked)
        except Fault as fault:
            for element in elements:
                if isinstance(element, Message) and element.is_request:
                    await self._say(jsonrpc.error(element.id, fault.error()))

    async def _relay(self, session: ClientSession, stream: ClientStream, answers: int) -> None:
        """A stored stream up to the last of its answers.

        One that stops earlier, as it does where the store is slow, is taken up again; where nothing ever came, there
        is nothing to take up, and the request was most likely cancelled.
        """
        reading: ClientStream | None = stream
        last_id: bytes | None = None
        while reading is not None:
            try:
                async for piece in reading:
                    last_id = piece.last_id
                    answers -= await self._pass_on(piece)
            finally:
                await reading.aclose()
            if answers <= 0 or last_id is None:
                return
            reading = await session.listen(last_id)

    async def _pass_on(self, piece: Piece) -> int:
        """Returns how many answers were in it; priming events are for who can come back."""
        said = [data for data in piece.data if data is not None]
        for data in said:
            # Each by itself: the TypeScript SDK's client loses progress that it reads in one piece with the answer.
            await self._outbox.put(encode_event(data, event=b"message"))
        return sum(jsonrpc.parse(data).is_response for data in said)

    # The end.

    def drain(self) -> None:
        """Ends the stream once what runs is answered."""
        self._is_draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._is_draining and not self._running:
            self._outbox.end()

    async def end(self) -> None:
        """The client is gone, or has been told that this is over."""
        self._patience.cancel()
        self._outbox.end()
        try:
            if self._opening is not None:
                await asyncio.wait((self._opening,))
            if self._session is not None:
                await self._gateway.end(self._session)
        finally:
            await self._tasks.aclose()

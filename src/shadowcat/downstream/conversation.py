"""A legacy client that everything comes back to on one way: HTTP+SSE's stream, or our stdout.

Whoever has the client tells what it said, and is given what it is to hear, message by message and in its order. There
are no ids of events, because nobody can come back for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Caller, Piece
from shadowcat.core.ports import ClientSession, ClientStream, Gateway
from shadowcat.downstream.body import require_batches
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.session")

MAX_RUNNING = 1_000
"""Requests under way, and answers that wait for the client to read."""


class Conversation:
    """`say` takes a message for the client, and waits while it reads none; `on_over` hears that it will get no more."""

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        address: str,
        say: Callable[[bytes], Awaitable[None]],
        on_over: Callable[[], object],
    ) -> None:
        self._gateway = gateway
        self._caller = caller
        self._address = address
        self._say = say
        self._on_over = on_over
        self._tasks = Tasks("conversation")
        self._opening: asyncio.Task[None] | None = None
        self._session: ClientSession | None = None
        self._is_listening = False
        self._is_draining = False

    # The session.

    @property
    def has_begun(self) -> bool:
        return self._opening is not None

    def open(self, initialize: Message) -> asyncio.Task[None]:
        """Answers it, whatever comes of it. Raises `Fault` where there is a session."""
        if self._opening is not None:
            raise Fault(FaultKind.INVALID_REQUEST, "This session is already initialized")
        self._opening = self._tasks.spawn(self._opened(initialize), "open")
        return self._opening

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
            await self._say(answer.raw)

    async def require_session(self) -> ClientSession:
        if self._session is None and self._opening is not None:
            # A client may say the next thing before it has the answer to the first.
            await asyncio.wait((self._opening,))
        if self._session is None:
            raise Fault(FaultKind.INVALID_REQUEST, "initialize comes first")
        return self._session

    async def end(self) -> None:
        """The client is gone, or has been told that this is over."""
        try:
            if self._opening is not None:
                await asyncio.wait((self._opening,))
            if self._session is not None:
                await self._gateway.end(self._session)
        finally:
            await self._tasks.aclose()

    # What needs no answer.

    async def receive(self, message: Message) -> None:
        """A notification, or an answer to the server. Raises `Fault`."""
        session = await self.require_session()
        await session.receive(message)
        if message.method == Method.INITIALIZED:
            await self._listen(session)

    async def receive_batch(self, elements: list[Message | Fault]) -> None:
        """One that asks nothing. Raises `Fault`."""
        session = await self.require_session()
        require_batches(session)
        for element in elements:
            if isinstance(element, Message):
                await session.receive(element)

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
            while reading is not None and not self._is_ending(session):
                try:
                    async for piece in reading:
                        last_id = piece.last_id
                        await self._pass_on(piece)
                finally:
                    await reading.aclose()
                if not self._is_ending(session):
                    reading = await session.listen(last_id)
        except Fault as fault:
            log.info("session %s: its client hears no more: %s", session.id[:8], fault.reason)
        finally:
            if not self._is_ending(session):
                self._on_over()

    def _is_ending(self, session: ClientSession) -> bool:
        """Whether a stream that ended would end again at once, without any other task coming to its turn."""
        return self._is_draining or session.is_leaving

    def drain(self) -> None:
        """No more than the answers to what runs is to come."""
        self._is_draining = True

    # Requests.

    async def answer(self, request: Message) -> None:
        """Returns once the client has all that comes of it."""
        try:
            session = await self.require_session()
            outcome = await session.request(request)
            if isinstance(outcome, Message):
                await self._say(outcome.raw)
            elif outcome is not None:
                await self._relay(session, outcome, answers=1)
        except Fault as fault:
            await self.refuse(request, fault)
            if fault.kind is FaultKind.SESSION_UNKNOWN:
                # Which a client that has no status to read only understands when it hears no more.
                self._on_over()
        except Exception:
            log.exception("%r cannot be answered", request)
            await self.refuse(request, Fault(FaultKind.INTERNAL))

    async def answer_batch(self, elements: list[Message | Fault]) -> None:
        """One that asks something; the answers as they come."""
        asked = sum(isinstance(element, Fault) or element.is_request for element in elements)
        try:
            session = await self.require_session()
            require_batches(session)
            await self._relay(session, await session.batch(elements), answers=asked)
        except Fault as fault:
            for element in elements:
                if isinstance(element, Message) and element.is_request:
                    await self.refuse(element, fault)

    async def refuse(self, request: Message, fault: Fault) -> None:
        await self._say(jsonrpc.error(request.id, fault.error()).raw)

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
            await self._say(data)
        return sum(jsonrpc.parse(data).is_response for data in said)

"""The one client on our stdin and stdout, before the machinery that serves any client: lines in, lines out, both eras.

Nothing here has a status, a connection of its own or an event id. What HTTP says by those is said by messages: a fault
is an error response, and `notifications/cancelled` is what closing a connection is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Caller
from shadowcat.core.multiplex import request_named_by
from shadowcat.core.negotiate import Claims, Course, claims_of, course_of
from shadowcat.core.ports import Gateway
from shadowcat.downstream.body import asks_something
from shadowcat.downstream.conversation import MAX_RUNNING, Conversation
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.lines import OversizedLine
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.stdio")

CALLER = Caller(route="stdio")
END_S = 6.0
"""For the server to hear that the session is over, which may not even have begun."""


class StdioFront:
    """`heard` takes lines and waits for nothing; where it has enough of them for now, it says so."""

    def __init__(
        self,
        gateway: Gateway,
        write: Callable[[bytes], Awaitable[None]],
        on_over: Callable[[], object],
        on_room: Callable[[bool], object],
    ) -> None:
        """`on_over` hears that the session cannot go on; `on_room`, whether more is to be read."""
        self._gateway = gateway
        self._write = write
        self._on_room = on_room
        self._conversation = Conversation(gateway, CALLER, "", self._say, on_over)
        self._running = Tasks("stdio")
        self._has_room = True
        self._is_ending = False
        self._modern: dict[RequestId, asyncio.Task[None]] = {}
        self._subscriptions: set[asyncio.Task[None]] = set()
        self._initialized: asyncio.Task[None] | None = None

    def heard(self, lines: Sequence[bytes | OversizedLine]) -> None:
        if self._is_ending:
            # Told to stop while the client goes on: it sees that by our end.
            return
        for line in lines:
            try:
                if isinstance(line, OversizedLine):
                    raise Fault(FaultKind.BODY_TOO_LARGE)
                parsed = jsonrpc.parse_body(line)
            except Fault as fault:
                id = None if isinstance(line, OversizedLine) else jsonrpc.readable_id(line)
                self._spawn(self._refuse(id, fault), "refuse")
            else:
                self._take(parsed)

    def _take(self, said: Message | list[Message | Fault]) -> None:
        if isinstance(said, list):
            self._spawn(self._in_session(partial(self._take_batch, said)), "batch")
        elif said.method == Method.CANCELLED and self._cancels(said):
            return
        else:
            try:
                is_modern = _is_modern(said)
            except Fault as fault:
                self._spawn(self._refuse(said.id if said.is_request else None, fault), "refuse")
                return
            if is_modern:
                self._exchange(said)
            else:
                self._take_legacy(said)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._running.spawn(work, name)
        task.add_done_callback(self._make_room)
        if self._has_room and len(self._running) >= MAX_RUNNING:
            self._has_room = False
            self._on_room(False)
        return task

    def _make_room(self, _: object) -> None:
        if not self._has_room and len(self._running) < MAX_RUNNING:
            self._has_room = True
            self._on_room(True)

    async def _say(self, data: bytes) -> None:
        await self._write(jsonrpc.line_of(data))

    async def _refuse(self, id: RequestId | None, fault: Fault) -> None:
        await self._say(jsonrpc.error(id, fault.error()).raw)

    # Legacy.

    def _take_legacy(self, message: Message) -> None:
        conversation = self._conversation
        if message.is_request and message.method == Method.INITIALIZE:
            try:
                conversation.open(message)
            except Fault as fault:
                self._spawn(self._refuse(message.id, fault), "refuse")
        elif message.is_request:
            self._spawn(self._in_session(partial(conversation.answer, message)), f"answer {message.method}")
        else:
            task = self._spawn(self._in_session(partial(self._receive, message)), "receive")
            if message.method == Method.INITIALIZED:
                self._initialized = task

    async def _in_session(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Lines come in an order, and some servers refuse all else before they have heard that we are initialized."""
        before = self._initialized
        if before is not None and before is not asyncio.current_task():
            await asyncio.wait((before,))
        await work()

    async def _receive(self, message: Message) -> None:
        try:
            await self._conversation.receive(message)
        except Fault as fault:
            log.info("%r goes nowhere: %s", message, fault.reason)

    async def _take_batch(self, elements: list[Message | Fault]) -> None:
        try:
            if asks_something(elements):
                await self._conversation.answer_batch(elements)
            else:
                await self._conversation.receive_batch(elements)
        except Fault as fault:
            log.info("a batch goes nowhere: %s", fault.reason)

    # Modern.

    def _exchange(self, message: Message) -> None:
        if message.id is None:
            # There are none but cancellations, and this one is of nothing.
            return
        id = message.id
        if id in self._modern:
            fault = Fault(FaultKind.INVALID_REQUEST, "A request with this id is in flight")
            self._spawn(self._refuse(id, fault), "refuse")
            return
        task = self._modern[id] = self._spawn(self._answer(id, message), f"answer {message.method}")
        task.add_done_callback(lambda _: self._modern.pop(id, None))
        if message.method == Method.LISTEN:
            self._subscriptions.add(task)
            task.add_done_callback(self._subscriptions.discard)

    async def _answer(self, id: RequestId, request: Message) -> None:
        try:
            answer = await self._gateway.exchange(request, CALLER, (), "")
            if answer.whole is not None:
                await self._say(answer.whole.raw)
            elif answer.stream is not None:
                try:
                    async for batch in answer.stream:
                        for message in batch:
                            await self._say(message.raw)
                finally:
                    await answer.stream.aclose()
        except Fault as fault:
            await self._refuse(id, fault)
        except Exception:
            log.exception("%r cannot be answered", request)
            await self._refuse(id, Fault(FaultKind.INTERNAL))

    def _cancels(self, cancellation: Message) -> bool:
        """Whether it was of a modern request: that one ends here, and at the server with its connection."""
        id = request_named_by(cancellation)
        running = None if id is None else self._modern.get(id)
        if running is None:
            return False
        running.cancel()
        return True

    # The end.

    async def end(self, within_s: float) -> None:
        """What was asked has so long to be answered; then all of it ends, at the server too."""
        self._is_ending = True
        self._conversation.drain()
        for subscription in tuple(self._subscriptions):
            subscription.cancel()
        await self._running.finish(within_s)
        try:
            async with asyncio.timeout(END_S):
                await self._conversation.end()
        except TimeoutError:
            log.warning("the server did not end the session within %.0f s", END_S)


def _is_modern(message: Message) -> bool:
    """What it says of itself decides: there is no header to repeat it. Raises `Fault`."""
    claims = claims_of(message, None)
    alone = Claims(claims.body, claims.body, claims.has_capabilities)
    return course_of(message.kind, alone) is not Course.LEGACY

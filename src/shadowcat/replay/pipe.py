"""A tape as a server that speaks stdio: lines in, lines out, both eras as recorded."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Answer
from shadowcat.core.multiplex import request_named_by
from shadowcat.core.negotiate import claims_of
from shadowcat.core.redact import shown
from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.conversation import Conversation
from shadowcat.replay.server import TapeServer
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.lines import OversizedLine
from shadowcat.wire.mcp import MODERN_VERSIONS, Method

log = logging.getLogger("shadowcat.replay")

MAX_IN_FLIGHT = 1_000


class TapePipe:
    def __init__(self, server: TapeServer, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._server = server
        self._write = write
        self._tasks = Tasks("replay")
        self._running: dict[RequestId, Callable[[], object]] = {}
        """What is being answered, and how to stop that."""
        self._conversation: Conversation | None = None

    def heard(self, lines: Iterable[bytes | OversizedLine]) -> None:
        for line in lines:
            if isinstance(line, OversizedLine):
                log.warning("a line of %d bytes is too long: %s", line.size, shown(line.start, 200))
                continue
            try:
                found = jsonrpc.parse_body(line)
            except Fault as fault:
                self._refuse(jsonrpc.readable_id(line), fault)
                continue
            for message in found if isinstance(found, list) else [found]:
                if isinstance(message, Message):
                    self._take(message)

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> Callable[[], object]:
        return self._tasks.spawn(work, "answer").cancel

    def _refuse(self, id: RequestId | None, fault: Fault) -> None:
        """Not a client that writes on and on and reads none of it: that would be held without end."""
        if len(self._tasks) < 2 * MAX_IN_FLIGHT:
            self._spawn(self._say(jsonrpc.error(id, fault.error())))

    def _take(self, message: Message) -> None:
        if message.is_request and message.id is not None:
            if len(self._tasks) >= MAX_IN_FLIGHT:
                self._refuse(message.id, Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight"))
                return
            self._running[message.id] = self._spawn(self._answer(message, message.id))
            return
        if message.method == Method.CANCELLED:
            stop = self._running.pop(request_named_by(message) or "", None)
            if stop is not None:
                stop()
        if self._conversation is not None:
            self._conversation.heard(message)

    async def _answer(self, request: Message, id: RequestId) -> None:
        try:
            if request.method == Method.INITIALIZE:
                await self._open(request)
            elif self._conversation is None or claims_of(request, None).body in MODERN_VERSIONS:
                await self._give(await self._server.stateless.answer(request))
            else:
                await self._give(await self._conversation.answer(request))
        finally:
            self._running.pop(id, None)

    async def _open(self, initialize: Message) -> None:
        self._conversation, answer = await self._server.open(initialize)
        await self._say(answer)
        if self._conversation is not None and self._conversation.has_standalone:
            self._spawn(self._tell(self._conversation))

    async def _tell(self, conversation: Conversation) -> None:
        async for batch in conversation.standalone():
            for message in batch:
                await self._say(message)

    async def _give(self, answer: Answer) -> None:
        if answer.whole is not None:
            await self._say(answer.whole)
        if answer.stream is None:
            return
        try:
            async for batch in answer.stream:
                for message in batch:
                    await self._say(message)
        finally:
            await answer.stream.aclose()

    async def _say(self, message: Message) -> None:
        await self._write(message.line())

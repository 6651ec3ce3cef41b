"""A stream of the demo server: the steps of a call or a subscription, read one by one, ended by its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shadowcat.core.exchange import Answer
from shadowcat.demo.tools import Steps
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message

CursorAfter = Callable[[int], bytes]


class Run:
    """A `core.exchange.MessageStream`. It may be closed while somebody waits for its next message."""

    def __init__(self, steps: Steps, cursor_after: CursorAfter | None = None, said: int = 0) -> None:
        """`cursor_after` names the place behind so many messages; without it, nobody can go on there."""
        self._steps = steps
        self._cursor_after = cursor_after
        self._said = said
        self._ahead: list[Message] = []
        self._is_over = False
        self._is_stepping = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def answer(self) -> Answer:
        """The response if that comes first, or else the stream that leads to it."""
        first = await self._next()
        if first.is_response:
            return Answer(whole=first)
        self._ahead.append(first)
        return Answer(stream=self)

    @property
    def cursor(self) -> bytes | None:
        return None if self._cursor_after is None else self._cursor_after(self._said)

    def __aiter__(self) -> Run:
        return self

    async def __anext__(self) -> list[Message]:
        message = self._ahead.pop() if self._ahead else await self._next()
        self._said += 1
        return [message]

    async def _next(self) -> Message:
        while not self._is_over:
            message = await self._step()
            if message is None:
                continue
            if message.is_response:
                self._is_over = True
                await self._steps.aclose()
            return message
        raise StopAsyncIteration

    async def _step(self) -> Message | None:
        step = asyncio.ensure_future(anext(self._steps))
        self._is_stepping = True
        try:
            await asyncio.wait((step, self._closed), return_when=asyncio.FIRST_COMPLETED)
            if step.done():
                return step.result()
        finally:
            self._is_stepping = False
            if not step.done():
                step.cancel()
                await asyncio.wait((step,))
        raise Fault(FaultKind.OUTCOME_UNKNOWN, reason="closed")

    async def aclose(self) -> None:
        self._is_over = True
        if not self._closed.done():
            self._closed.set_result(None)
        if not self._is_stepping:
            await self._steps.aclose()

"""One request asked again, and what the server says to it this time.

What belongs to a request by its token or id is compared with what belonged to it then. All else that comes on its
stream is the session's: a server that has one pipe for everything says such things between any two others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shadowcat.core.exchange import Answer, Rest
from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.recorded import Exchange
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method

MAX_MESSAGES = 100_000
"""Of one request's."""


class Live:
    def __init__(
        self,
        exchange: Exchange,
        request: Message,
        on_other: Callable[[Message], object],
        on_said: Callable[[], object],
    ) -> None:
        """`on_said` is called when the server has said something, or will say nothing any more."""
        self.exchange = exchange
        self.request = request
        self.expected: list[Message] = []
        """What the server said then, as far as the tape was walked through."""
        self.got: list[Message] = []
        self.fault: Fault | None = None
        self.is_over = False
        self._on_other = on_other
        self._on_said = on_said
        self._changed = asyncio.Event()

    async def ask(self, ask: Rest[Answer]) -> None:
        try:
            answer = await ask()
            if answer.whole is not None:
                self._take(answer.whole)
            elif answer.stream is not None:
                try:
                    async for batch in answer.stream:
                        for message in batch:
                            self._take(message)
                        if self.is_over:
                            break
                finally:
                    await answer.stream.aclose()
        except Fault as fault:
            self.fault = fault
        finally:
            self.is_over = True
            self._tell()

    def _take(self, message: Message) -> None:
        if belongs_to_request(message):
            if len(self.got) >= MAX_MESSAGES:
                raise Fault(FaultKind.OVER_CAPACITY, f"{MAX_MESSAGES} messages, and no answer among them")
            self.got.append(message)
            self.is_over = message.is_response
        else:
            self._on_other(message)
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_said()

    async def come_to(self, count: int) -> None:
        """Until the server has said that much, or all that it will."""
        while len(self.got) < count and not self.is_over:
            await self._changed.wait()

    async def wait_over(self) -> None:
        while not self.is_over:
            await self._changed.wait()


def belongs_to_request(message: Message) -> bool:
    return message.is_response or message.method == Method.PROGRESS

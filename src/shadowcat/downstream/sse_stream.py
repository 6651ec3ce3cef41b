"""One client of the 2024-11-05 transport: what it posts, and the one stream that everything comes back on.

The stream is the session: it begins before `initialize`, and when it ends all that runs is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Caller
from shadowcat.core.ports import Gateway
from shadowcat.downstream.body import asks_something, require_batches
from shadowcat.downstream.conversation import MAX_RUNNING, Conversation
from shadowcat.downstream.outbox import Outbox
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method
from shadowcat.wire.sse import encode_event

OPEN_S = 60.0
"""How long a client may take to send `initialize`."""


class SseStream:
    """The body of the response that is the stream. `on_end` hears when it was closed; then `end` it."""

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        address: str,
        endpoint: str,
        on_end: Callable[[SseStream], object],
    ) -> None:
        """`address` is the client's, `endpoint` where it is to post."""
        self._first = encode_event(endpoint.encode("ascii"), event=b"endpoint")
        self._on_end = on_end
        self._outbox = Outbox()
        # It knows the outbox and not this: in a circle, what no client has read would stay.
        say = partial(_say, self._outbox)
        self._conversation = Conversation(gateway, caller, address, say, self._outbox.end)
        self._requests = Tasks("old session")
        self._is_draining = False
        self._patience = asyncio.get_running_loop().call_later(OPEN_S, self._require_begun)

    # The stream.

    def __aiter__(self) -> SseStream:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await anext(self._outbox)

    async def aclose(self) -> None:
        self._on_end(self)

    def _require_begun(self) -> None:
        if not self._conversation.has_begun:
            self._outbox.end()

    # What is posted.

    async def take(self, message: Message) -> None:
        """Returns once the message was taken, not once it was answered. Raises `Fault`."""
        if message.is_request and message.method == Method.INITIALIZE:
            opening = self._conversation.open(message)
            # Its answer is waited for as that to any other request.
            self._run(_over(opening))
        elif message.is_request:
            await self._conversation.require_session()
            self._require_room()
            self._run(self._conversation.answer(message))
        else:
            await self._conversation.receive(message)

    def refuse(self, request: Message, fault: Fault) -> None:
        """Answers one that was taken and is not seen to. Raises `Fault`."""
        self._require_room()
        self._run(self._conversation.refuse(request, fault))

    async def take_batch(self, elements: list[Message | Fault]) -> None:
        """As `take`."""
        if not asks_something(elements):
            await self._conversation.receive_batch(elements)
            return
        require_batches(await self._conversation.require_session())
        self._require_room()
        self._run(self._conversation.answer_batch(elements))

    def _require_room(self) -> None:
        if len(self._requests) >= MAX_RUNNING:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests_in_flight")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._requests.spawn(work, "request").add_done_callback(lambda _: self._end_if_drained())

    # The end.

    def drain(self) -> None:
        """Ends the stream once what runs is answered."""
        self._is_draining = True
        self._conversation.drain()
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._is_draining and not len(self._requests):
            self._outbox.end()

    async def end(self) -> None:
        """The client is gone, or has been told that this is over."""
        self._patience.cancel()
        self._outbox.end()
        try:
            await self._conversation.end()
        finally:
            await self._requests.aclose()


async def _over(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))


async def _say(outbox: Outbox, data: bytes) -> None:
    await outbox.put(encode_event(data, event=b"message"))

"""A modern client's `subscriptions/listen`: open as long as it likes, closed properly when the proxy stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shadowcat.core.exchange import MessageStream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Meta


class Subscription:
    """The stream of one listen request. `on_close` hears when it is over."""

    cursor = None

    def __init__(
        self, request: Message, stream: MessageStream, on_close: Callable[[Subscription], object]
    ) -> None:
        self._request = request
        self._stream = stream
        self._on_close = on_close
        self._is_ending = False
        self._is_over = False
        self._reading: asyncio.Task[Any] | None = None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> list[Message]:
        if self._is_over:
            raise StopAsyncIteration
        if not self._is_ending:
            task = self._reading = asyncio.current_task()
            assert task is not None
            try:
                return await anext(self._stream)
            except asyncio.CancelledError:
                # What somebody else cancels besides is not ours to stop.
                if not self._is_ending or task.uncancel() > 0:
                    raise
            finally:
                self._reading = None
        self._is_over = True
        return [self._result()]

    def _result(self) -> Message:
        """What tells the client that no more will come, and that nothing broke."""
        id = self._request.id
        assert id is not None
        return jsonrpc.result(id, {"resultType": "complete", "_meta": {Meta.SUBSCRIPTION_ID: id}})

    def end(self) -> None:
        """Who waits for more waits no longer. Not by closing the stream: some cannot be closed while they are read."""
        if not self._is_ending:
            self._is_ending = True
            if self._reading is not None:
                self._reading.cancel()

    async def aclose(self) -> None:
        self._on_close(self)
        await self._stream.aclose()

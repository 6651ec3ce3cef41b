"""A modern client's `subscriptions/listen`: open for as long as it likes, ended in form when the proxy goes."""

from __future__ import annotations

from collections.abc import Callable

from shadowcat.core.exchange import MessageStream
from shadowcat.errors import Fault
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
        self._ending = False
        self._ended = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> list[Message]:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await anext(self._stream)
        except Fault:
            if not self._ending:
                raise
        self._ended = True
        return [self._result()]

    def _result(self) -> Message:
        """What tells the client that no more will come, and that nothing broke."""
        id = self._request.id
        assert id is not None
        return jsonrpc.result(id, {"resultType": "complete", "_meta": {Meta.SUBSCRIPTION_ID: id}})

    async def end(self) -> None:
        self._ending = True
        await self._stream.aclose()

    async def aclose(self) -> None:
        self._on_close(self)
        await self._stream.aclose()

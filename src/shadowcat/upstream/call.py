"""What is in progress on a conduit: its sessions, their requests, and the server's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shadowcat.core.exchange import Answer
from shadowcat.upstream.inbox import Inbox
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import Method


class Party:
    """One legacy session on the channel, or nobody in particular for modern requests."""

    def __init__(self, on_taken: Callable[[Inbox], object]) -> None:
        self.standalone = Inbox(on_taken)
        # Until somebody listens, nobody is waited for.
        self.standalone.is_slow = True
        self.calls: dict[RequestId, Call] = {}


class Call(Inbox):
    """A request under way. Iterate it for what comes, up to the response; closing it earlier cancels the request."""

    def __init__(
        self,
        request: Message,
        id: int,
        party: Party | None,
        *,
        on_taken: Callable[[Inbox], object],
        on_close: Callable[[Call], object],
    ) -> None:
        super().__init__(on_taken)
        assert request.id is not None
        self.client_id = request.id
        self.id = id
        self.token: RequestId | None = None
        self.party = party
        self.is_subscription = party is None and request.method == Method.LISTEN
        self.is_handshake = request.method == Method.INITIALIZE
        self.heard_at = 0.0
        self.is_sent = False
        self.is_cancelled = False
        self.has_begun = False
        self._on_close = on_close

    async def answer(self) -> Answer:
        """The response if that comes first, or else the stream that leads to it."""
        try:
            await self.begun()
            if self.first is not None and self.first.is_response:
                [whole] = await anext(self)
                return Answer(whole=whole)
        except BaseException:
            await self.aclose()
            raise
        return Answer(stream=self)

    async def aclose(self) -> None:
        self._on_close(self)


@dataclass(slots=True, eq=False)
class Question:
    """A request of the server's that was given to a party."""

    id: RequestId
    party: Party
    inbox: Inbox
    asked_at: float
    token: RequestId | None

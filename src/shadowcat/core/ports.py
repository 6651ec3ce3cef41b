"""The seams: what the machinery sees of transports, stores and plugins, and what transports see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from shadowcat.core.exchange import Answer, Caller, Context, Forwarded, MessageStream, StreamEvent, Verdict
from shadowcat.core.session import SessionRecord
from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message


class Upstream(Protocol):
    """One MCP server. A bridge between eras is an upstream that wraps an upstream."""

    @property
    def name(self) -> str: ...

    async def open(self, initialize: Message) -> tuple[Link, Message]:
        """Opens a legacy session. Raises `Fault`; an error response comes back as the message, with a dead link."""
        ...

    def attach(self, upstream_id: str | None, version: str) -> Link:
        """A link to a session opened earlier, without asking the server."""
        ...

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        """One modern request: stateless, never resumed, cancelled by closing the answer."""
        ...

    async def aclose(self) -> None: ...


class Link(Protocol):
    """One legacy session with an upstream."""

    @property
    def upstream_id(self) -> str | None: ...

    async def exchange(self, request: Message) -> Answer:
        """Raises `Fault` with kind UPSTREAM_SESSION_LOST when the upstream does not know the session (any more)."""
        ...

    async def send(self, message: Message) -> None:
        """A notification, or the answer to a request of the server's."""
        ...

    async def listen(self) -> MessageStream | None:
        """The standalone stream; None when the server offers none."""
        ...

    async def end(self) -> None:
        """Tells the server that the session is over, as far as it can be told."""
        ...


class SessionStore(Protocol):
    """Keeps session records beyond the process.

    One that raises costs what it would have kept: the sessions that are alive go on. It must not wait for long.
    """

    lasts: bool
    """Whether it outlives the process: sessions are then left to the next one, and otherwise ended upstream."""

    async def get(self, session_id: str) -> SessionRecord | None: ...

    async def put(self, record: SessionRecord) -> None: ...

    async def delete(self, session_id: str) -> None: ...

    async def aclose(self) -> None: ...


class Interceptor(Protocol):
    """Sees each message once, on its way, and says what becomes of it."""

    async def intercept(self, message: Message, context: Context) -> Verdict: ...


class ClientStream(Protocol):
    """Messages for a client, ready to be written; ends with the stream. Closing it detaches, it cancels nothing."""

    def __aiter__(self) -> AsyncIterator[list[StreamEvent]]: ...

    async def aclose(self) -> None: ...


class ClientSession(Protocol):
    """A legacy session as the client's transport sees it."""

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> str: ...

    async def request(self, message: Message) -> Message | ClientStream | None:
        """The response, or the stream that leads to it; None when the client cancelled it meanwhile."""
        ...

    async def batch(self, elements: list[Message | Fault]) -> ClientStream:
        """The answers to a 2025-03-26 batch as they come; an element that was none is answered with its fault."""
        ...

    async def receive(self, message: Message) -> None:
        """A notification, or an answer to a request of the server's."""
        ...

    async def listen(self, last_event_id: bytes | None) -> ClientStream | None:
        """The standalone stream; or, with an id, the stream that id is of, from there on: None after its end."""
        ...


class Gateway(Protocol):
    """The machinery as a client-facing transport sees it."""

    async def open(self, initialize: Message, caller: Caller) -> tuple[ClientSession | None, Message]:
        """Opens a session; without one, the message is the upstream's refusal."""
        ...

    async def find(self, session_id: str, caller: Caller) -> ClientSession | None:
        """None for an unknown session and for somebody else's: the two look the same."""
        ...

    async def end(self, session: ClientSession) -> None: ...

    async def exchange(self, request: Message, caller: Caller, forwarded: Forwarded, address: str) -> Answer:
        """One modern request; `address` is the client's, by which it stays with one upstream."""
        ...

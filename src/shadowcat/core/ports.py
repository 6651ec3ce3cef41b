"""The seams: what the machinery sees of transports, stores and taps, and what transports see of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from shadowcat.core.exchange import (
    Answer,
    Caller,
    Context,
    Elsewhere,
    Forwarded,
    MessageStream,
    Piece,
    Rest,
    Verdict,
)
from shadowcat.core.ledger import Held, Refusal, SessionChange, SessionSummary, StoredSession
from shadowcat.core.statistics import UpstreamStatistics
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

    def exchange(self, request: Message, forwarded: Forwarded) -> Coroutine[Any, Any, Answer]:
        """One modern request: stateless, never resumed, cancelled by closing the answer."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Counting(Protocol):
    """An upstream that counts what it does; it need not."""

    def statistics(self) -> UpstreamStatistics: ...


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

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        """The rest of a stream that another process has read up to there; reading it raises `Fault` if it is lost."""
        ...

    async def detach(self) -> None:
        """Lets go of what this process holds for the session, which goes on in another one."""
        ...

    async def end(self) -> None:
        """Tells the server that the session is over, as far as it can be told."""
        ...


@runtime_checkable
class DirectLink(Link, Protocol):
    """One that can ask without a task that waits."""

    def ask(
        self, request: Message, then: Callable[[Answer | Rest[Answer]], object]
    ) -> Callable[[], object] | None:
        """As `exchange`. None if that takes waiting, and nothing was sent; otherwise what gives it up.

        `then` is called once, not from in here: with a whole answer, or with what is to be awaited for one or for the
        fault. Once it is given up it is not called any more.
        """
        ...


class SessionStore(Protocol):
    """Keeps sessions and their streams beyond the process.

    One port for both: that an event and the upstream's cursor it stands for are written together is what lets a
    stream go on exactly after a crash. A store may be slow or fail; no call of it holds up traffic. It opens nothing
    before it has to, and is used from one event loop. `shadowcat.testing` has tests that any store should pass.
    """

    @property
    def is_shared(self) -> bool:
        """Whether nodes may use it at the same time: then it keeps leases."""
        ...

    async def check(self) -> None:
        """Raises `StoreUnusable` if it is clear now that it can never work."""
        ...

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        """Makes each change whole or not at all, and lasting. Returns the sessions whose change was refused."""
        ...

    async def claim(self, session_id: str, node: str) -> StoredSession | Held | None:
        """Takes a session over, with a fence one higher than any before; None for one that is not there."""
        ...

    async def read(self, session_id: str) -> StoredSession | None:
        """Looks, and changes nothing."""
        ...

    async def sessions(self, after: str, limit: int) -> Sequence[SessionSummary]:
        """Those that are held, in the order of their ids, from after that one on."""
        ...

    async def remove(self, session_id: str) -> bool:
        """Ends a session, whoever owns it: its owner's next change is refused. False if there is none."""
        ...

    async def removed(self, node: str) -> Collection[str]:
        """Sessions of that node which others have removed since it was last asked, and perhaps more than those. Asked
        often, and no promise: what is not heard of here is refused with the next change."""
        ...

    async def renew(self, node: str, lease_s: float) -> None:
        """The node lives, and keeps what it owns for that long."""
        ...

    async def expire(self, idle_s: float) -> None:
        """Lets go of sessions that no owner has written or claimed for that long; a jump of the clock is no time."""
        ...

    async def aclose(self) -> None: ...


class TapSink(Protocol):
    """Is told of each message, as it came, and of what became of it. The message waits meanwhile."""

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        """Must neither wait nor raise."""
        ...

    def failed(self, context: Context, fault: Fault) -> None:
        """The context's request got no answer from the server: the client is told the fault. Likewise."""
        ...


class SessionTap(Protocol):
    """Is told of the calls of one session that pass as they are, which is nearly all there is to tell."""

    def asked(self, request: Message) -> None:
        """As `TapSink.saw`, of a request of the client's. Likewise."""
        ...

    def answered(self, answer: Message, request: Message) -> None: ...


@runtime_checkable
class TapOfSessions(TapSink, Protocol):
    """One to which what is the same for all calls of a session is told once."""

    def of_session(self, asking: Context) -> SessionTap:
        """`asking` is the context of all that the client asks."""
        ...


class ClientStream(Protocol):
    """Messages for a client, ready to be written; ends with the stream. Closing it detaches, it cancels nothing."""

    def __aiter__(self) -> AsyncIterator[Piece]: ...

    async def __anext__(self) -> Piece: ...

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

    def ask(
        self,
        message: Message,
        then: Callable[[Message | Piece | Rest[Message | ClientStream | None]], object],
    ) -> Callable[[], object] | None:
        """As `request`, without a task that waits: see `DirectLink.ask`. A piece is all of a stream."""
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

    @property
    def is_leaving(self) -> bool:
        """The proxy goes: its standalone stream ends at once, however often it is asked for."""
        ...


class Gateway(Protocol):
    """The machinery as a client-facing transport sees it."""

    async def open(
        self, initialize: Message, caller: Caller, address: str
    ) -> tuple[ClientSession | None, Message]:
        """Opens a session for a client at that address; without one, the message is the upstream's refusal."""
        ...

    async def find(self, session_id: str, caller: Caller) -> ClientSession | Elsewhere | None:
        """None for an unknown session and for somebody else's: the two look the same."""
        ...

    def at_hand(self, session_id: str, caller: Caller) -> ClientSession | None:
        """The same where it takes no waiting to be sure of it; None says nothing."""
        ...

    async def end(self, session: ClientSession) -> None: ...

    async def exchange(self, request: Message, caller: Caller, forwarded: Forwarded, address: str) -> Answer:
        """One modern request; `address` is the client's, by which it stays with one upstream."""
        ...

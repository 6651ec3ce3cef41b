"""What passes between the parts: who asks, what an upstream answers, what an interceptor decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from shadowcat.core.client_info import ClientInfo, client_of
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era

T = TypeVar("T")

Rest = Callable[[], Coroutine[Any, Any, T]]
"""What is left to be done for an outcome where it has to be waited for."""

ANONYMOUS = "anonymous"


class Caller(NamedTuple):
    """Who is at the client's end and on which route it came: what a session is bound to."""

    principal: str = ANONYMOUS
    route: str = ""


class Elsewhere(NamedTuple):
    """The session lives on another node."""

    node: str
    """Its URL, if it has given one."""


class Direction(Enum):
    TO_SERVER = "to_server"
    TO_CLIENT = "to_client"


TO_SERVER, TO_CLIENT = Direction
"""As `wire.jsonrpc` has its kinds."""


class Context(msgspec.Struct, frozen=True, gc=False):
    """What an interceptor knows about a message besides the message."""

    era: Era
    direction: Direction
    caller: Caller
    upstream: str
    """Its name; empty where none has been chosen yet."""
    session_id: str | None = None
    """The proxy's own id, also of the session that an `initialize` is to open; None for modern traffic."""
    request: Message | None = None
    """For what comes back: the client request whose stream it is on; None on a standalone stream.

    For an answer of the client's: the server's request, unless an earlier process has seen it.
    """
    status: int = 200
    """The HTTP status that a whole answer of the modern era came with."""
    introduction: bytes = b""
    """The parameters in which the client said who it is: of `initialize` or, in the modern era, of its request."""

    @property
    def answers(self) -> str:
        """For a response: the method of the request that it answers; empty where that is not known."""
        return "" if self.request is None else self.request.method

    @property
    def client(self) -> ClientInfo | None:
        """As the client calls itself. Nobody checks that."""
        return client_of(self.introduction) if self.introduction else None


@dataclass(frozen=True, slots=True)
class Pass:
    """Let it go on as it is."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Send this instead. It keeps the id of what it replaces, and has to be of its kind."""

    message: Message


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer the request with this; the other side never sees it. It gets the id of what it answers."""

    message: Message

    @classmethod
    def result(cls, value: Any) -> Reply:
        return cls(jsonrpc.result(0, value))

    @classmethod
    def error(cls, code: int, message: str) -> Reply:
        return cls(jsonrpc.error(0, {"code": code, "message": message}))


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse it: a request is answered with the fault, anything else is dropped."""

    fault: Fault

    @classmethod
    def because(cls, message: str) -> Reject:
        """Whoever asked is told so."""
        return cls(Fault(FaultKind.REFUSED_BY_RULE, message))


Verdict = Pass | Replace | Reply | Reject
PASS = Pass()


class Piece(msgspec.Struct, frozen=True, gc=False):
    """Events of a stream for a client, one after the other. The id of each is the prefix and its number."""

    prefix: bytes
    first: int
    """The number of the first."""
    data: Sequence[bytes | None]
    """None leaves a number out."""
    primes: bool = False
    """Whether an event without data goes before them, for the client to come back by if it gets nothing else."""

    @property
    def id_before(self) -> bytes:
        return b"%b%d" % (self.prefix, self.first - 1)

    @property
    def last_id(self) -> bytes:
        return b"%b%d" % (self.prefix, self.first - 1 + len(self.data))


NO_EVENTS = Piece(b"", 0, ())
"""Where there is nothing to be given at present."""


class MessageStream(Protocol):
    """Messages as the upstream sends them, in batches of what arrived together. Close it when done early."""

    @property
    def cursor(self) -> bytes | None:
        """Where the stream can be resumed after what was given so far; None where it cannot."""
        ...

    def __aiter__(self) -> AsyncIterator[list[Message]]: ...

    async def __anext__(self) -> list[Message]: ...

    def aclose(self) -> Coroutine[Any, Any, None]: ...


class Taker(Protocol):
    """Who takes messages in the frame of the read that brings them."""

    def take(self, messages: list[Message], cursor: bytes | None) -> list[Message] | None:
        """None where nothing is left to be done; otherwise what is left, perhaps only to wait, for who iterates."""
        ...


@runtime_checkable
class PromptStream(MessageStream, Protocol):
    """One that asks a taker first: no task is woken for what only passes."""

    def take_with(self, taker: Taker) -> None: ...


class Answer(msgspec.Struct):
    """What an upstream gives back for one request: one whole message, or a stream that ends with the response."""

    whole: Message | None = None
    stream: MessageStream | None = None
    status: int = 200
    """The HTTP status the upstream chose; it matters where that is relayed."""
    came_as_stream: bool = False
    """Whether a whole message was all that an event stream had: the client gets it as one, to come back to."""


Forwarded = tuple[tuple[bytes, bytes], ...]
"""Headers of the client's that go on to the upstream as they came."""

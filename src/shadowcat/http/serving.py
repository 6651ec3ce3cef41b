"""What the connections of one server share: how requests are handled, the bounds of all together, what is counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from shadowcat.http.bodies import Bodies
from shadowcat.http.check import Refusal
from shadowcat.http.later import Later
from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Peer, Request, Response
from shadowcat.http.turn import Turn

Handler = Callable[[Request], Awaitable[Response] | Later]


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Makes a server a forward proxy's: its handler gets targets that name a host, and CONNECT.

    A 2xx to CONNECT means a tunnel, and HTTP inside it: its requests come to the handler with `Peer.tunnel`.
    """

    refuse_tls: Callable[[Peer], str]
    """Hears that a client speaks TLS in a tunnel; what it says is the answer."""


def in_plain_text(refusal: Refusal) -> Response:
    fields = [(b"content-type", b"text/plain")]
    if refusal.status == 503:
        fields.append((b"retry-after", b"5"))
    return Response(refusal.status, fields, refusal.why.encode("ascii", "replace") + b"\n")


class Served(Protocol):
    """A connection, as its server sees it."""

    task: asyncio.Task[None] | None

    def sweep(self, now: float) -> None:
        """Looks at its deadlines."""
        ...

    def drain(self) -> None: ...

    def end(self) -> None: ...


@dataclass(slots=True)
class Serving:
    handler: Handler
    limits: ServerLimits
    forwarding: Forwarding | None = None
    tell: Callable[[Refusal], Response] = in_plain_text
    """What a refused client reads."""
    connections: set[Served] = field(default_factory=set[Served])
    turn: Turn = field(default_factory=lambda: Turn(may_hurry=True))
    draining: bool = False
    """Each connection ends with what it asks for next or runs now."""
    closed: bool = False
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last connection ends."""
    date: bytes = b""
    """The line of a head that says it."""
    requests: int = 0
    refused: int = 0
    slow_closed: int = 0
    errors: Counter[int] = field(default_factory=Counter[int])
    """Answers by status, of those from 400 on."""
    bodies: Bodies = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        # However large one may be, there is to be room for some.
        self.bodies = Bodies(max(limits.bodies_bytes, 4 * limits.body_bytes))

    def forget(self, connection: Served) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self.emptied.set()

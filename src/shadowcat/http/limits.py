"""The bounds of the engine, units in their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

KIB = 1024
MIB = 1024 * 1024

Amount = Annotated[int, Meta(ge=1)]
Span = Annotated[float, Meta(gt=0)]


class ServerLimits(Struct, frozen=True):
    body_bytes: Annotated[Amount, Meta(description="The largest request a client may send.")] = 4 * MIB
    bodies_bytes: Annotated[
        Amount,
        Meta(
            description="The size of all request bodies that are arriving or waiting for an answer, "
            "together; never less than four times `body_bytes`."
        ),
    ] = 256 * MIB
    head_bytes: Annotated[Amount, Meta(description="The largest head of a request.")] = 32 * KIB
    head_fields: Annotated[Amount, Meta(description="How many header fields a request may have.")] = 100
    target_bytes: Annotated[Amount, Meta(description="The longest path and query of a request.")] = 8 * KIB
    head_wait_s: Annotated[
        Span,
        Meta(
            description="How long a request's head may take, from its first byte or, for a connection's "
            "first request, from connecting."
        ),
    ] = 10.0
    body_wait_s: Annotated[
        Span, Meta(description="How long a request's body may take, from the end of its head.")
    ] = 30.0
    idle_s: Annotated[Span, Meta(description="How long a kept-alive connection may be silent.")] = 75.0
    stall_s: Annotated[Span, Meta(description="A client that accepts no byte for this long is cut off.")] = (
        10.0
    )
    vanished_s: Annotated[
        Span,
        Meta(description="A client whose machine acknowledges nothing for this long counts as gone (Linux)."),
    ] = 30.0
    linger_s: Annotated[
        Span,
        Meta(
            description="How long to discard what a refused client still sends, so that it can read the "
            "refusal."
        ),
    ] = 2.0
    pipelined: Annotated[
        Amount,
        Meta(
            description="How many requests may wait behind a running one on a connection before reading "
            "stops."
        ),
    ] = 16
    connections: Annotated[Amount, Meta(description="How many connections may be open at a time.")] = 50_000


@dataclass(frozen=True, slots=True)
class ClientLimits:
    head_bytes: int = 32 * KIB
    head_fields: int = 100
    connections_per_origin: int = 1_000
    waiting_per_origin: int = 10_000
    idle_s: float = 4.0
    """Below the 5 s after which Node and uvicorn close idle connections: who reuses one later races with that."""
    idle_per_origin: int = 256
    buffered_bytes: int = 64 * KIB
    """Of a response nobody reads yet, before its connection is no longer read."""
    vanished_s: float = 30.0
    """A server whose machine confirms nothing for this long is gone, also where it had nothing to say (Linux)."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each phase of a request may take; None is forever."""

    pool_s: float = 5.0
    connect_s: float = 5.0
    head_s: float | None = 300.0
    gap_s: float | None = 300.0
    """Between two pieces of a body."""
    total_s: float | None = None

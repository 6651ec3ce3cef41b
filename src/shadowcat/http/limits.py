"""The bounds of the engine, units in their names."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerLimits:
    body_bytes: int = 4 * MIB
    head_bytes: int = 32 * KIB
    head_fields: int = 100
    target_bytes: int = 8 * KIB
    head_wait_s: float = 10.0
    """From the first byte of a request, or from the connection for the first one, to the end of its head."""
    body_wait_s: float = 30.0
    idle_s: float = 75.0
    """How long a kept-alive connection may be silent."""
    stall_s: float = 10.0
    """A client that accepts no byte for this long is cut off."""
    vanished_s: float = 30.0
    """A client whose machine confirms nothing of what it was sent for this long is gone (Linux)."""
    linger_s: float = 2.0
    """How long what a refused client still sends is thrown away, so that it can read why."""
    pipelined: int = 16
    """Requests waiting behind a running one before no more is read."""
    connections: int = 50_000


@dataclass(frozen=True, slots=True)
class ClientLimits:
    head_bytes: int = 32 * KIB
    head_fields: int = 100
    connections_per_origin: int = 1_000
    waiting_per_origin: int = 10_000
    idle_s: float = 4.0
    """Below the 5 s after which Node and uvicorn close idle connections: who reuses one later races with that."""
    idle_per_origin: int = 256
    buffered_bytes: int = 256 * KIB
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

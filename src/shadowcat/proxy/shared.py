"""What all sessions of one proxy share."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as attribute
from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct, field

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.idmap import IdMap
from shadowcat.core.ports import SessionStore
from shadowcat.core.stream import Budget, LogLimits
from shadowcat.proxy.lease import Lease
from shadowcat.proxy.news import News
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.upstreams import Roster
from shadowcat.proxy.writer import Durability, StoreWriter

_Span = Annotated[float, Meta(gt=0)]


class SessionLimits(Struct, frozen=True):
    max_sessions: Annotated[
        int, Meta(ge=1, description="How many sessions may be open at a time; beyond that, clients get 503.")
    ] = 10_000
    max_sessions_per_client: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        # Behind another proxy all clients have one address, so there is no number that fits everybody.
        Meta(description="How many of them one client address may have; by default any number."),
    ] = None
    idle_s: Annotated[_Span, Meta(description="How long a session may be idle before it ends.")] = 1_800.0
    recovery_gap_s: Annotated[
        float,
        Meta(ge=0, description="An upstream that loses a session again this soon is not asked a third time."),
    ] = 1.0
    log: LogLimits = field(default_factory=LogLimits)
    all_log_bytes: Annotated[
        int, Meta(ge=1, description="How much the stream logs of all sessions may hold together.")
    ] = 512 * 1024 * 1024
    call_s: Annotated[
        _Span,
        # Comments, and connections that come and go, are no word.
        Meta(description="How long a server may be silent during a call."),
    ] = 300.0
    server_request_s: Annotated[
        _Span,
        Meta(description="How long a request from the server waits for the client to come and answer it."),
    ] = 600.0
    linger_s: Annotated[
        float,
        Meta(
            ge=0,
            description="How long a server's standalone stream stays open after the client closed its own.",
        ),
    ] = 60.0
    upgrade_after_s: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="Answer calls that take longer than this as a stream, which 2025-11-25 clients can "
            "resume."
        ),
    ] = None


@dataclass(slots=True)
class Counters:
    """Plain numbers, bumped where things happen and read when somebody asks."""

    sessions_opened: int = 0
    sessions_ended: int = 0
    sessions_expired: int = 0
    sessions_refused: int = 0
    recoveries: int = 0
    recoveries_failed: int = 0
    promises_shrunk: int = 0
    exchanges: int = 0
    dropped_messages: int = 0
    client_resumes: int = 0
    gaps: int = 0
    """Resumes that could not be honoured."""
    server_requests_expired: int = 0
    streams_abandoned: int = 0
    sessions_revived: int = 0
    sessions_lost: int = 0
    """Taken over or ended by somebody else."""
    store_failures: int = 0
    """Of reading; those of writing are the writer's."""


class Phase(Enum):
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    """Or gone: nothing new is begun."""


@dataclass(slots=True)
class Shared:
    upstreams: Roster
    store: SessionStore | None
    """None: sessions end with the process."""
    pipeline: Pipeline
    clock: Clock
    limits: SessionLimits
    durability: Durability = attribute(default_factory=Durability)
    node: str = ""
    """By what the store knows this process: its URL, where others are to reach it."""
    lease_s: float | None = None
    """With a lease, what this node owns is its own until that has run out; without, whoever claims it has it."""
    writer: StoreWriter | None = attribute(init=False)
    lease: Lease | None = attribute(init=False)
    log_budget: Budget = attribute(init=False)
    ids: IdMap = attribute(default_factory=IdMap)
    counters: Counters = attribute(default_factory=Counters)
    news: News = attribute(default_factory=News)
    phase: Phase = Phase.STARTING
    tasks: Tasks = attribute(default_factory=lambda: Tasks("proxy"))

    def __post_init__(self) -> None:
        self.log_budget = Budget(self.limits.all_log_bytes)
        self.upstreams.news = self.news
        store = self.store
        self.writer = None if store is None else StoreWriter(store, self.tasks, self.durability, self.news)
        self.lease = None
        if store is not None and self.lease_s is not None:
            self.lease = Lease(store, self.node, self.lease_s, self.clock, self.tasks)

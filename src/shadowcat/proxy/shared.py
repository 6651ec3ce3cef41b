"""What all sessions of one proxy share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.idmap import IdMap
from shadowcat.core.ports import SessionStore
from shadowcat.core.stream import Budget, LogLimits
from shadowcat.proxy.lease import Lease
from shadowcat.proxy.news import News
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.proxy.writer import Durability, StoreWriter


@dataclass(frozen=True, slots=True)
class SessionLimits:
    sessions: int = 10_000
    idle_s: float = 1_800.0
    recovery_gap_s: float = 1.0
    """An upstream that loses the session again this soon is not asked a third time."""
    log: LogLimits = field(default_factory=LogLimits)
    all_log_bytes: int = 512 * 1024 * 1024
    call_s: float = 300.0
    """How long a call's stream may bring no message. Comments, and connections that come and go, are none."""
    server_request_s: float = 600.0
    """How long a request of the server's waits for the client to come and answer it."""
    linger_s: float = 60.0
    """How long the upstream's standalone stream stays open after the client closed its own."""
    upgrade_after_s: float | None = None
    """Answer a 2025-11-25 call that takes longer than this as a stream, which a client can resume."""


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
    upstreams: Upstreams
    store: SessionStore | None
    """None: sessions end with the process."""
    pipeline: Pipeline
    clock: Clock
    limits: SessionLimits
    durability: Durability = field(default_factory=Durability)
    node: str = ""
    """By what the store knows this process: its URL, where others are to reach it."""
    lease_s: float | None = None
    """With a lease, what this node owns is its own until that has run out; without, whoever claims it has it."""
    writer: StoreWriter | None = field(init=False)
    lease: Lease | None = field(init=False)
    log_budget: Budget = field(init=False)
    ids: IdMap = field(default_factory=IdMap)
    counters: Counters = field(default_factory=Counters)
    news: News = field(default_factory=News)
    phase: Phase = Phase.STARTING
    tasks: Tasks = field(default_factory=lambda: Tasks("proxy"))

    def __post_init__(self) -> None:
        self.log_budget = Budget(self.limits.all_log_bytes)
        self.upstreams.news = self.news
        store = self.store
        self.writer = None if store is None else StoreWriter(store, self.tasks, self.durability, self.news)
        self.lease = None
        if store is not None and self.lease_s is not None:
            self.lease = Lease(store, self.node, self.lease_s, self.clock, self.tasks)

"""What all sessions of one proxy share."""

from __future__ import annotations

from dataclasses import dataclass, field

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.idmap import IdMap
from shadowcat.core.ports import SessionStore
from shadowcat.core.stream import LogLimits
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.upstreams import Upstreams


@dataclass(frozen=True, slots=True)
class SessionLimits:
    sessions: int = 10_000
    idle_s: float = 1_800.0
    recovery_gap_s: float = 1.0
    """An upstream that loses the session again this soon is not asked a third time."""
    log: LogLimits = field(default_factory=LogLimits)


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
    faults: int = 0
    dropped_messages: int = 0


@dataclass(slots=True)
class Shared:
    upstreams: Upstreams
    store: SessionStore
    pipeline: Pipeline
    clock: Clock
    limits: SessionLimits
    ids: IdMap = field(default_factory=IdMap)
    counters: Counters = field(default_factory=Counters)
    tasks: Tasks = field(default_factory=lambda: Tasks("proxy"))

"""Sessions in this process, gone with it: the port in plain Python, which other stores are compared with."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.ledger import (
    Held,
    Refusal,
    SessionChange,
    SessionSummary,
    StoredSession,
    StoredStream,
    StreamChange,
)

ENDED_S = 3600.0
"""How long it is remembered that a session is over."""
MAX_ENDED = 16_384
"""Of how many that is remembered."""


@dataclass(slots=True)
class _Stream:
    head: bytes = b""
    first_seq: int = 1
    events: list[bytes] = field(default_factory=list[bytes])

    @property
    def next_seq(self) -> int:
        return self.first_seq + len(self.events)

    def fits(self, change: StreamChange) -> bool:
        """Whether no event is missing between what is held and what is added."""
        return change.next_seq <= self.next_seq or change.first_seq >= self.next_seq

    def apply(self, change: StreamChange) -> None:
        self.head = change.head
        if change.next_seq > self.next_seq:
            self.first_seq, self.events = change.next_seq, []
        # A change may come twice, when nobody could tell what became of it: then it has events that are held.
        self.events += change.events[self.next_seq - change.next_seq :]
        if change.first_seq > self.first_seq:
            del self.events[: change.first_seq - self.first_seq]
            self.first_seq = change.first_seq


@dataclass(slots=True)
class _Session:
    fence: int = 0
    node: str = ""
    record: bytes = b""
    touched_at: float = 0.0
    last_stream: int = 0
    streams: dict[int, _Stream] = field(default_factory=dict[int, _Stream])

    def refuses(self, change: SessionChange) -> Refusal | None:
        if change.fence < self.fence:
            return Refusal.FENCED
        if change.is_whole or change.ends:
            return None
        is_behind = change.fence > self.fence or any(
            stream.id in self.streams and not self.streams[stream.id].fits(stream)
            for stream in change.streams
        )
        return Refusal.MISSING if is_behind else None

    def apply(self, change: SessionChange) -> None:
        self.fence = change.fence
        self.node = "" if change.releases else change.node or self.node
        if change.record is not None:
            self.record = change.record
        for stream in change.streams:
            self.streams.setdefault(stream.id, _Stream()).apply(stream)
            self.last_stream = max(self.last_stream, stream.id)
        for stream_id in change.dropped:
            self.streams.pop(stream_id, None)

    def stored(self, session_id: str) -> StoredSession:
        streams = [
            StoredStream(stream_id, stream.head, stream.first_seq, tuple(stream.events))
            for stream_id, stream in sorted(self.streams.items())
        ]
        return StoredSession(session_id, self.fence, self.record, self.last_stream, streams)

    def summary(self, session_id: str) -> SessionSummary:
        sizes = [len(event) for stream in self.streams.values() for event in stream.events]
        return SessionSummary(session_id, self.node, self.record, len(self.streams), len(sizes), sum(sizes))


class MemoryStore:
    """`is_shared` says that several proxies of this process use it. Closing it leaves its content to the others."""

    def __init__(self, clock: Clock | None = None, *, is_shared: bool = False) -> None:
        self._clock = clock or SystemClock()
        self._is_shared = is_shared
        self._sessions: dict[str, _Session] = {}
        self._ended: dict[str, float] = {}
        """When each of them ended, the oldest first."""
        self._removed: deque[tuple[str, str]] = deque(maxlen=MAX_ENDED)
        """Owners, and what was removed behind their backs."""
        self._leases: dict[str, float] = {}
        """Until when each node lives."""

    @property
    def is_shared(self) -> bool:
        return self._is_shared

    async def check(self) -> None:
        pass

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        self._forget_ended()
        found = [(change.session_id, self._write(change)) for change in changes]
        return {session_id: refusal for session_id, refusal in found if refusal is not None}

    def _write(self, change: SessionChange) -> Refusal | None:
        held = self._sessions.get(change.session_id)
        if change.session_id in self._ended:
            return Refusal.ENDED
        if held is None and not change.is_whole and not change.ends:
            return Refusal.MISSING
        if held is not None and (refusal := held.refuses(change)) is not None:
            return refusal
        if change.ends:
            self._end(change.session_id)
            return None
        if held is None:
            held = _Session()
        elif change.is_whole:
            held = _Session(node=held.node, last_stream=held.last_stream)
        self._sessions[change.session_id] = held
        held.apply(change)
        held.touched_at = self._clock.monotonic()
        return None

    async def claim(self, session_id: str, node: str) -> StoredSession | Held | None:
        held = self._sessions.get(session_id)
        if held is None:
            return None
        now = self._clock.monotonic()
        if self._is_shared and held.node != node and self._leases.get(held.node, 0.0) > now:
            return Held(held.node)
        held.fence += 1
        held.node = node
        held.touched_at = now
        return held.stored(session_id)

    async def read(self, session_id: str) -> StoredSession | None:
        held = self._sessions.get(session_id)
        return None if held is None else held.stored(session_id)

    async def sessions(self, after: str, limit: int) -> Sequence[SessionSummary]:
        ids = sorted(session_id for session_id in self._sessions if session_id > after)
        return [self._sessions[session_id].summary(session_id) for session_id in ids[:limit]]

    async def remove(self, session_id: str) -> bool:
        if session_id not in self._sessions:
            return False
        self._removed.append((self._sessions[session_id].node, session_id))
        self._end(session_id)
        return True

    async def removed(self, node: str) -> Collection[str]:
        found = [session_id for owner, session_id in self._removed if owner == node]
        others = [removed for removed in self._removed if removed[0] != node]
        self._removed.clear()
        self._removed += others
        return found

    async def renew(self, node: str, lease_s: float) -> None:
        now = self._clock.monotonic()
        self._leases = {other: until for other, until in self._leases.items() if until > now}
        self._leases[node] = now + lease_s

    async def expire(self, idle_s: float) -> None:
        before = self._clock.monotonic() - idle_s
        idle = [session_id for session_id, held in self._sessions.items() if held.touched_at <= before]
        for session_id in idle:
            del self._sessions[session_id]
        self._forget_ended()

    async def aclose(self) -> None:
        pass

    def _end(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
        self._ended[session_id] = self._clock.monotonic()

    def _forget_ended(self) -> None:
        before = self._clock.monotonic() - ENDED_S
        while self._ended:
            oldest = next(iter(self._ended))
            if self._ended[oldest] > before and len(self._ended) <= MAX_ENDED:
                break
            del self._ended[oldest]

"""What the parts of a session share: its record and state, its link upstream, its streams, and who asked what."""

from __future__ import annotations

import logging

from shadowcat.core.correlate import Correlator
from shadowcat.core.exchange import Caller, Context, Direction, Reply
from shadowcat.core.ports import Link
from shadowcat.core.session import Event, SessionRecord, State, after
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.book import StreamBook
from shadowcat.proxy.shared import Shared
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import PRIMING_VERSIONS, Era

log = logging.getLogger("shadowcat.session")


class SessionCore:
    __slots__ = ("book", "caller", "correlator", "last_used", "link", "record", "shared", "state")

    def __init__(self, record: SessionRecord, link: Link, shared: Shared) -> None:
        self.record = record
        self.link = link
        self.shared = shared
        self.state = State.OPEN
        self.caller = Caller(record.principal, record.route)
        self.correlator: Correlator[Stream] = Correlator()
        self.book = StreamBook(
            shared.limits.log,
            shared.log_budget,
            shared.clock.monotonic,
            primed=record.version in PRIMING_VERSIONS,
            is_current=self.correlator.is_unanswered,
        )
        self.last_used = shared.clock.monotonic()

    def happened(self, event: Event) -> None:
        self.state = after(self.state, event)

    def require_alive(self) -> None:
        if self.state is State.BROKEN or self.state is State.ENDED:
            raise Fault(FaultKind.SESSION_UNKNOWN)

    def relink(self, upstream: str, link: Link) -> None:
        """The session goes on over another upstream session."""
        self.link = link
        self.record.upstream = upstream
        self.record.upstream_id = link.upstream_id
        self.shared.ids.bind(self.record.id, upstream, link.upstream_id)

    @property
    def is_busy(self) -> bool:
        """A running request or an open stream is life, however long nothing is said."""
        return not self.correlator.is_idle or self.book.has_readers

    async def judged(
        self, message: Message, direction: Direction, request: Message | None = None
    ) -> Message | Reply:
        """The message as the interceptors leave it."""
        pipeline = self.shared.pipeline
        if not pipeline:
            return message
        context = Context(Era.LEGACY, direction, self.caller, self.record.upstream, self.record.id, request)
        return await pipeline.run(message, context)

    async def save(self) -> None:
        """A store that fails costs what it would have kept, and no traffic."""
        if self.state is State.ENDED:
            return
        try:
            await self.shared.store.put(self.record)
        except Exception:
            self.shared.counters.store_failures += 1
            log.exception("session %s: not stored", self.record.id[:8])

"""What the parts of a session share: its record and state, its link upstream, its streams, and who asked what."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from shadowcat.core import kept
from shadowcat.core.correlate import Correlator, InFlight
from shadowcat.core.exchange import TO_SERVER, Caller, Context, Direction, Reply
from shadowcat.core.ledger import Refusal
from shadowcat.core.ports import DirectLink, Link, SessionTap, TapSink
from shadowcat.core.session import Event, SessionRecord, State, after
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.book import StreamBook
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.news import What
from shadowcat.proxy.pipeline import Undecided
from shadowcat.proxy.shared import Shared
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import ERROR, Message
from shadowcat.wire.mcp import PRIMING_VERSIONS, Era

log = logging.getLogger("shadowcat.session")

_LEGACY = Era.LEGACY


class SessionCore:
    __slots__ = (
        "_answers",
        "_asking",
        "book",
        "caller",
        "correlator",
        "direct",
        "last_used",
        "ledger",
        "link",
        "record",
        "shared",
        "state",
        "tap",
        "taps_of",
        "touched_at",
        "visitors",
    )

    def __init__(
        self,
        record: SessionRecord,
        link: Link,
        shared: Shared,
        *,
        fence: int,
        last_upstream_id: int,
        on_refused: Callable[[Refusal], object],
    ) -> None:
        """`fence` is what the store gave who took the session over, or 0 for a new session; `last_upstream_id` as
        in `Correlator`."""
        self.record = record
        self.shared = shared
        self._use(record.upstream, link)
        self.state = State.OPEN
        self.caller = Caller(record.principal, record.route)
        self._asking: Context | None = None
        self.tap = shared.pipeline.nobody
        """What is told of calls that no interceptor judges, as long as `taps_of` are the pipeline's taps."""
        self.taps_of: Sequence[TapSink] | None = None
        self.correlator: Correlator[Stream] = Correlator(last_upstream_id)
        self.ledger = SessionLedger(
            shared.writer,
            record.id,
            node=shared.node,
            fence=fence,
            describe=self._kept,
            streams=lambda: self.book.all,
            on_refused=on_refused,
        )
        self.book = StreamBook(
            record.epoch,
            shared.limits.log,
            shared.log_budget,
            self.ledger,
            shared.clock.monotonic,
            primed=record.version in PRIMING_VERSIONS,
            is_current=self.correlator.is_unanswered,
        )
        self.last_used = self.touched_at = shared.clock.monotonic()
        self.visitors = 0
        """Requests of the client's that are being seen to, whatever they wait for."""

    @contextmanager
    def visited(self) -> Generator[None]:
        self.visitors += 1
        try:
            yield
        finally:
            self.visitors -= 1

    def note_request(self, now: float) -> None:
        self.last_used = now
        self.shared.counters.exchanges += 1

    def note_answer(self, entry: InFlight[Stream], answer: Message) -> None:
        """The upstream has answered a request."""
        shared = self.shared
        shared.upstreams.answered(self.record.upstream)
        if entry.sent_at:
            self._answers.came(shared.clock.monotonic() - entry.sent_at, answer.kind is ERROR)

    def touch(self) -> None:
        """Tells the store that the session is in use: its calls alone change nothing there."""
        now = self.shared.clock.monotonic()
        if self.last_used > self.touched_at and now - self.touched_at >= self.shared.limits.idle_s / 4:
            self.touched_at = now
            self.ledger.record_changed()

    def happened(self, event: Event) -> None:
        self.state = after(self.state, event)

    def require_alive(self) -> None:
        if self.state is State.BROKEN or self.state is State.ENDED:
            raise Fault(FaultKind.SESSION_UNKNOWN)

    def require_store(self) -> None:
        """Nothing is begun that could not be brought to its end as promised."""
        if self.ledger.refuses:
            raise Fault(FaultKind.OVER_CAPACITY, reason="store_unavailable")

    def tell(self, what: What, reason: str | None = None) -> None:
        record = self.record
        self.shared.news.tell(what, session_id=record.id, upstream=record.upstream, reason=reason)

    def relink(self, upstream: str, link: Link) -> None:
        """The session goes on over another upstream session."""
        self._use(upstream, link)
        self.record.upstream = upstream
        self._asking = self.taps_of = None
        self.record.upstream_id = link.upstream_id
        self.shared.ids.bind(self.record.id, upstream, link.upstream_id)
        self.ledger.record_changed()

    def _use(self, upstream: str, link: Link) -> None:
        self.link = link
        self._answers = self.shared.upstreams.answers_of(upstream)
        self.direct = link if isinstance(link, DirectLink) else None

    @property
    def is_busy(self) -> bool:
        """A running request or an open stream is life, however long nothing is said."""
        return self.visitors > 0 or not self.correlator.is_idle or self.book.has_readers

    @property
    def is_answering(self) -> bool:
        """Whether a client has yet to hear what becomes of a request."""
        return not self.correlator.is_idle or self.book.has_answers_read

    def passed(self, message: Message, direction: Direction, request: Message | None = None) -> bool:
        """Whether it goes on as it is, because no interceptor wants it. Taps have been told of it then."""
        pipeline = self.shared.pipeline
        if pipeline.judges:
            method = message.method or ("" if request is None else request.method)
            if pipeline.steps(message.kind, method, direction):
                return False
        if pipeline.is_tapped:
            pipeline.tell(message, self.context(direction, request))
        return True

    def judge(
        self, message: Message, direction: Direction, request: Message | None = None
    ) -> Message | Reply | Undecided:
        """The message as the interceptors leave it. Raises `Fault` when it is refused."""
        pipeline = self.shared.pipeline
        if pipeline.judges:
            method = message.method or ("" if request is None else request.method)
            steps = pipeline.steps(message.kind, method, direction)
            if steps:
                return pipeline.begin(message, self.context(direction, request), steps)
        if pipeline.is_tapped:
            pipeline.tell(message, self.context(direction, request))
        return message

    async def judged(
        self, message: Message, direction: Direction, request: Message | None = None
    ) -> Message | Reply:
        """The same, with what has to be waited for."""
        judged = self.judge(message, direction, request)
        return await judged.outcome() if isinstance(judged, Undecided) else judged

    async def notify(self, notification: Message) -> None:
        """One that does not arrive is lost, as the protocol lets it be; the client has no use for the news."""
        try:
            await self.link.send(notification)
        except Fault as fault:
            log.warning(
                "session %s: %s did not reach the upstream: %s",
                self.record.id[:8],
                notification.method,
                fault.reason,
            )

    def fresh_tap(self) -> SessionTap:
        pipeline = self.shared.pipeline
        self.tap, self.taps_of = pipeline.of_session(self.context), pipeline.taps
        return self.tap

    def context(self, direction: Direction, request: Message | None = None) -> Context:
        """Of a message; `request` as in `Context`."""
        is_asking = request is None and direction is TO_SERVER
        if is_asking and self._asking is not None:
            return self._asking
        record = self.record
        context = Context(
            _LEGACY,
            direction,
            self.caller,
            record.upstream,
            record.id,
            request,
            introduction=record.initialize_params,
        )
        if is_asking:
            # It says the same of all that the client asks, and is made once.
            self._asking = context
        return context

    def failed(self, request: Message, fault: Fault) -> None:
        """Tells the taps of a request that the upstream did not answer."""
        if self.shared.pipeline.is_tapped:
            self.shared.pipeline.failed(self.context(Direction.TO_CLIENT, request), fault)

    def _kept(self) -> bytes:
        """The record and the open questions, as the store has them."""
        correlator = self.correlator
        questions = [
            kept.KeptQuestion(
                asked.client_id,
                asked.upstream_id,
                asked.method,
                None if asked.stream is None else asked.stream.id,
            )
            for asked in correlator.unanswered()
        ]
        last = correlator.last_question
        return kept.encode(kept.KeptSession(record=self.record, questions=questions, last_question=last))

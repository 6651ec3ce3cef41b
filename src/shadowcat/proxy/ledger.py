"""What of one session the store does not have yet: noted as it happens, collected when the writer asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shadowcat.core import kept
from shadowcat.core.ledger import Refusal, SessionChange, StreamChange
from shadowcat.proxy.streams import NOT_STORED, STORED_NOWHERE, Stream
from shadowcat.proxy.writer import StoreWriter

COMMIT_S = 5.0
"""How long anybody waits for the store."""


class SessionLedger:
    """Without a writer nothing is kept, and nobody asks."""

    __slots__ = (
        "_changed",
        "_describe",
        "_dropped",
        "_end_due",
        "_fence",
        "_is_over",
        "_is_whole",
        "_node",
        "_on_refused",
        "_pending",
        "_record_changed",
        "_releases",
        "_streams",
        "_waiters",
        "_writer",
        "session_id",
    )

    def __init__(
        self,
        writer: StoreWriter | None,
        session_id: str,
        *,
        node: str,
        fence: int,
        describe: Callable[[], bytes],
        streams: Callable[[], Iterable[Stream]],
        on_refused: Callable[[Refusal], object],
    ) -> None:
        """`fence` is 0 for a session that the store has never seen."""
        self._writer = writer
        self.session_id = session_id
        self._fence = max(fence, 1)
        self._node = node
        self._describe = describe
        self._streams = streams
        self._on_refused = on_refused
        self._is_whole = fence == 0
        self._record_changed = False
        self._changed: dict[int, Stream] = {}
        self._dropped: list[int] = []
        self._pending: _Pending | None = None
        self._waiters: list[asyncio.Future[bool]] = []
        self._releases = False
        self._end_due = False
        self._is_over = False

    # What happens.

    @property
    def never_stored(self) -> int:
        """What a new stream has for the number of its last event in the store."""
        return STORED_NOWHERE if self._writer is None else NOT_STORED

    @property
    def is_strict(self) -> bool:
        return self._writer is not None and self._writer.durability.strict

    @property
    def is_lenient(self) -> bool:
        return self._writer is None or self._writer.is_lenient

    @property
    def refuses(self) -> bool:
        return self._writer is not None and self._writer.refuses

    def record_changed(self) -> None:
        if self._writer is not None and not self._is_over:
            self._record_changed = True
            self._writer.mark(self)

    def stream_changed(self, stream: Stream) -> None:
        if self._writer is not None and not self._is_over:
            stream.is_changed = True
            self._changed[stream.id] = stream
            self._writer.mark(self)

    def stream_dropped(self, stream: Stream) -> None:
        self._changed.pop(stream.id, None)
        if self._writer is not None and not self._is_over and stream.is_in_store:
            self._dropped.append(stream.id)
            self._writer.mark(self)

    def release(self) -> None:
        """The process goes: whoever comes next may have the session."""
        if self._writer is not None and not self._is_over:
            self._releases = True
            self._writer.mark(self)

    def end(self) -> None:
        if self._writer is not None:
            self._be_over()
            self._end_due = True
            self._writer.mark(self)

    def _be_over(self) -> None:
        """What is not written yet is of no interest any more."""
        self._is_over = True
        self._record_changed = self._releases = False
        self._changed = {}
        self._dropped = []

    def hurry(self) -> None:
        if self._writer is not None:
            self._writer.hurry()

    @property
    def is_written(self) -> bool:
        return not self._has_news and self._pending is None

    async def committed(self) -> bool:
        """True once the store has what there is to be had now; False where it cannot take it for the time being."""
        if self._writer is None or self.is_written:
            return True
        if self._writer.is_failing:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._writer.mark(self)
        self._writer.hurry()
        # The writer gives up sooner; this is for a store that keeps it from noticing.
        await asyncio.wait((waiter,), timeout=COMMIT_S)
        return waiter.done() and waiter.result()

    # For the writer.

    @property
    def _has_news(self) -> bool:
        return bool(self._record_changed or self._changed or self._dropped or self._releases or self._end_due)

    def change(self) -> SessionChange | None:
        if not self._has_news:
            self._settle(self._waiters, True)
            return None
        streams = list(self._changed.values())
        self._pending = pending = _Pending(
            self._record_changed, streams, self._dropped, self._releases, self._waiters
        )
        self._record_changed = self._releases = False
        self._changed = {}
        self._dropped = []
        self._waiters = []
        if self._end_due:
            self._end_due, pending.ends = False, True
            return SessionChange(self.session_id, self._fence, ends=True, node=self._node)
        for stream in streams:
            stream.is_changed = False
            stream.is_in_store = True
            pending.stored_to.append(stream.log.last_seq)
        return SessionChange(
            self.session_id,
            self._fence,
            is_whole=self._is_whole,
            record=self._describe() if pending.record_changed or self._is_whole else None,
            streams=[_change_of(stream) for stream in streams],
            dropped=pending.dropped,
            releases=pending.releases,
            node=self._node,
        )

    def written(self) -> None:
        pending = self._take_pending()
        self._is_whole = False
        for stream, last_seq in zip(pending.streams, pending.stored_to, strict=False):
            stream.stored(last_seq)
        if pending.releases:
            # The session may be another's from here on.
            self._be_over()
        self._settle(pending.waiters, True)

    def failed(self) -> None:
        pending = self._take_pending()
        self._waiters = pending.waiters + self._waiters
        if self._is_over:
            self._end_due |= pending.ends
            return
        self._record_changed |= pending.record_changed
        self._releases |= pending.releases
        self._dropped = pending.dropped + self._dropped
        for stream in pending.streams:
            if stream.id not in self._dropped:
                stream.is_changed = True
                self._changed[stream.id] = stream

    def refused(self, refusal: Refusal) -> None:
        pending = self._take_pending()
        if refusal is Refusal.MISSING and not self._is_over:
            self._start_over()
            self._waiters = pending.waiters + self._waiters
            return
        self._settle(pending.waiters, True)
        if not self._is_over:
            self._be_over()
            self._on_refused(refusal)

    def give_up_waiting(self) -> None:
        waiters, self._waiters = self._waiters, []
        if self._pending is not None:
            waiters += self._pending.waiters
            self._pending.waiters = []
        self._settle(waiters, False)
        for stream in self._streams():
            stream.wake_reader()

    def _start_over(self) -> None:
        """The store has lost everything, and gets it once more."""
        self._is_whole = self._record_changed = True
        self._dropped = []
        for stream in self._streams():
            stream.stored_seq = NOT_STORED
            self.stream_changed(stream)
        assert self._writer is not None
        self._writer.mark(self)

    def _take_pending(self) -> _Pending:
        pending, self._pending = self._pending, None
        assert pending is not None
        return pending

    @staticmethod
    def _settle(waiters: list[asyncio.Future[bool]], outcome: bool) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(outcome)
        waiters.clear()


@dataclass(slots=True)
class _Pending:
    """What is on its way to the store."""

    record_changed: bool
    streams: list[Stream]
    dropped: list[int]
    releases: bool
    waiters: list[asyncio.Future[bool]]
    ends: bool = False
    stored_to: list[int] = field(default_factory=list[int])
    """For each of the streams, the last event that the store has afterwards."""


def _change_of(stream: Stream) -> StreamChange:
    log = stream.log
    next_seq = max(stream.stored_seq + 1, log.first_seq)
    events = [kept.encode_event(event) for event in log.after(next_seq - 1)]
    return StreamChange(stream.id, kept.encode(stream.kept()), log.first_seq, next_seq, events)

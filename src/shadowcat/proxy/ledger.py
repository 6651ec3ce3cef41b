"""What the store does not have yet of one session: noted as it happens, collected when the writer asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct

from shadowcat.aio import wait_awake
from shadowcat.core import kept
from shadowcat.core.ledger import Refusal, SessionChange, StreamChange
from shadowcat.core.withheld import NOT_STORED
from shadowcat.proxy.streams import Stream
from shadowcat.proxy.writer import StoreWriter

COMMIT_S = 5.0
"""How long anybody waits for the store."""


class _Stage(Enum):
    OPEN = "open"
    RELEASING = "releasing"
    """The process goes: what is written last leaves the session to whoever comes next."""
    ENDING = "ending"
    CLOSED = "closed"
    """Nothing more is written."""


class _News(Struct):
    """What the store is to be told, or is being told."""

    record: bool = False
    streams: dict[int, Stream] = {}
    dropped: dict[int, None] = {}
    farewell: bool = False
    """That the session is left to others, or over."""
    waiters: list[asyncio.Future[bool]] = []
    stored_to: list[int] = []
    """For each of the streams, the last event that the store has afterwards."""

    def __bool__(self) -> bool:
        return bool(self.record or self.streams or self.dropped or self.farewell)

    def settle(self, outcome: bool) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(outcome)
        self.waiters = []


class SessionLedger:
    """Without a writer nothing is kept, and nobody asks."""

    __slots__ = (
        "_describe",
        "_fence",
        "_is_given_up",
        "_is_set_aside",
        "_is_whole",
        "_news",
        "_node",
        "_on_refused",
        "_stage",
        "_streams",
        "_under_way",
        "_writer",
        "is_anothers",
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
        self._is_given_up = False
        self._is_set_aside = False
        """The store takes others and not this one, for the time being."""
        self._stage = _Stage.OPEN
        self._news = _News()
        self._under_way: _News | None = None
        self.is_anothers = False
        """Somebody has claimed the session since."""

    # What streams and sessions want to know.

    @property
    def has_store(self) -> bool:
        return self._writer is not None

    @property
    def is_strict(self) -> bool:
        return self._writer is not None and self._writer.durability.strict

    @property
    def is_lenient(self) -> bool:
        if self._writer is None or self._writer.is_lenient or self._is_given_up:
            return True
        return self._is_set_aside and not self.is_strict

    @property
    def refuses(self) -> bool:
        writer = self._writer
        if writer is None or not writer.durability.strict:
            return False
        return writer.refuses or self._is_set_aside

    @property
    def is_written(self) -> bool:
        return not self._news and self._under_way is None

    async def committed(self) -> bool:
        """True once the store has what there is to be had now; False where it cannot take it for the time being."""
        if self._writer is None or self.is_written:
            return True
        if self._writer.is_failing or self._is_set_aside:
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._news.waiters.append(waiter)
        self._writer.mark(self)
        self._writer.hurry()
        # The writer gives up sooner; this is for a store that keeps it from noticing.
        return await wait_awake(waiter, COMMIT_S) and waiter.result()

    def hurry(self) -> None:
        if self._writer is not None:
            self._writer.hurry()

    # What happens.

    def record_changed(self) -> None:
        if self._notes():
            self._news.record = True

    def stream_changed(self, stream: Stream) -> None:
        if self._notes():
            stream.is_changed = True
            self._news.streams[stream.id] = stream

    def stream_dropped(self, stream: Stream) -> None:
        self._news.streams.pop(stream.id, None)
        if stream.is_in_store and self._notes():
            self._news.dropped[stream.id] = None

    def release(self) -> None:
        if self._notes():
            self._stage = _Stage.RELEASING
            self._news.farewell = True
            for stream in self._streams():
                if stream.waits_for_a_client:
                    self.stream_changed(stream)

    def end(self) -> None:
        """Whatever else was to be written is of no interest any more, nor are the session and its streams."""
        # Nothing is stored any more: what was held back for that is told now, or never.
        self._is_given_up = True
        for stream in self._streams():
            stream.wake_reader()
        # In a circle with these, it would all stay until the garbage collector comes by.
        self._describe = bytes
        self._streams = tuple
        if self._stage is _Stage.CLOSED or self._writer is None:
            return
        never_seen = self._is_whole and self._under_way is None
        self._news = _News(farewell=not never_seen, waiters=self._news.waiters)
        self._stage = _Stage.ENDING
        if never_seen:
            self._close(True)
        else:
            self._writer.mark(self)

    def _notes(self) -> bool:
        """Whether there is still anything to be noted; the writer is told that there is."""
        if self._writer is None or self._stage in (_Stage.ENDING, _Stage.CLOSED):
            return False
        self._writer.mark(self)
        return True

    # For the writer.

    def change(self) -> SessionChange | None:
        if not self._news:
            self._news.settle(True)
            return None
        self._under_way, self._news = self._news, _News()
        news = self._under_way
        if self._stage is _Stage.ENDING:
            return SessionChange(self.session_id, self._fence, ends=True, node=self._node)
        for stream in news.streams.values():
            stream.is_changed = False
            stream.is_in_store = True
            news.stored_to.append(stream.log.last_seq)
        is_left = self._stage is _Stage.RELEASING
        return SessionChange(
            self.session_id,
            self._fence,
            is_whole=self._is_whole,
            record=self._describe() if news.record or self._is_whole else None,
            streams=[_change_of(stream, is_left=is_left) for stream in news.streams.values()],
            dropped=list(news.dropped),
            releases=is_left,
            node=self._node,
        )

    def written(self) -> None:
        news = self._taken_back()
        self._is_whole = self._is_set_aside = False
        for stream, last_seq in zip(news.streams.values(), news.stored_to, strict=False):
            stream.stored(last_seq)
        news.settle(True)
        if news.farewell:
            # From here on the session may be another's.
            self._close(True)

    def failed(self) -> None:
        news, newer = self._taken_back(), self._news
        newer.waiters = news.waiters + newer.waiters
        newer.farewell |= news.farewell
        if self._stage is _Stage.ENDING:
            newer.farewell = True
            return
        newer.record |= news.record
        newer.dropped = {**news.dropped, **newer.dropped}
        for stream in news.streams.values():
            if stream.id not in newer.dropped:
                stream.is_changed = True
                newer.streams[stream.id] = stream

    def refused(self, refusal: Refusal) -> None:
        news = self._taken_back()
        if refusal is Refusal.MISSING and self._stage is not _Stage.ENDING:
            self._news.waiters = news.waiters + self._news.waiters
            self._news.farewell |= news.farewell
            self._start_over()
            return
        # What was held back for the store is told here then, or never.
        self.is_anothers = refusal is Refusal.FENCED
        self._is_given_up = True
        is_news = self._stage is _Stage.OPEN
        news.settle(True)
        self._close(True)
        for stream in self._streams():
            stream.wake_reader()
        if is_news:
            self._on_refused(refusal)

    def give_up_waiting(self) -> None:
        self._news.settle(False)
        if self._under_way is not None:
            self._under_way.settle(False)
        for stream in self._streams():
            stream.wake_reader()

    def set_aside(self) -> None:
        self._is_set_aside = True
        self.give_up_waiting()

    def give_up(self) -> None:
        self._under_way = None
        self._is_given_up = True
        self._close(False)
        for stream in self._streams():
            stream.wake_reader()

    def _start_over(self) -> None:
        """The store has lost everything, and gets it once more."""
        self._is_whole = self._news.record = True
        self._news.dropped = {}
        for stream in self._streams():
            stream.stored(NOT_STORED)
            self.stream_changed(stream)
        self._notes()

    def _close(self, outcome: bool) -> None:
        self._stage = _Stage.CLOSED
        self._news.settle(outcome)
        self._news = _News()

    def _taken_back(self) -> _News:
        news, self._under_way = self._under_way, None
        assert news is not None
        return news


def _change_of(stream: Stream, *, is_left: bool) -> StreamChange:
    log = stream.log
    next_seq = max(stream.stored_to + 1, log.first_seq)
    events = kept.encode_events(log.data_after(next_seq - 1), next_seq, log.questions)
    return StreamChange(stream.id, kept.encode(stream.kept(is_left=is_left)), log.first_seq, next_seq, events)

"""The streams of one session: numbered, found by event id, and dropped in time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from shadowcat.core import kept
from shadowcat.core.ledger import StoredStream
from shadowcat.core.stream import STREAM_OVERHEAD_BYTES, Budget, EventId, Gap, LogLimits, StreamLog
from shadowcat.proxy.home import Home, Keeper
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import RequestId

STANDALONE = 0

STANDALONE_SHARE = 4
"""What was given on the standalone stream may stay up to this part of the session's budget when others need room."""
NOBODYS_EPOCH = "-"
"""No session has it: a client that names an event of it is told that there is none."""
MAX_GONE = 1_000
"""Streams whose request is remembered after their events are gone, to name it to who asks for them."""


class BookKeeper(Keeper[Stream], Protocol):
    def stream_dropped(self, stream: Stream) -> None: ...


class StreamBook:
    __slots__ = (
        "_age_s",
        "_budget",
        "_finished",
        "_gone",
        "_home",
        "_keeper",
        "_last",
        "_limit",
        "_now",
        "_streams",
    )

    def __init__(
        self,
        epoch: str,
        limits: LogLimits,
        total: Budget,
        keeper: BookKeeper,
        now: Callable[[], float],
        *,
        primed: bool,
        is_current: Callable[[RequestId], bool],
    ) -> None:
        self._now = now
        self._age_s = limits.age_s
        self._limit = limits.bytes
        self._budget = Budget(self._limit, total)
        self._home = Home(epoch, keeper, now, primed, is_current, self.make_room)
        self._keeper = keeper
        self._last = STANDALONE
        self._streams: dict[int, Stream] = {}
        self._finished: deque[tuple[Stream, float]] = deque()
        self._gone: dict[int, RequestId | None] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def new(self, request_id: RequestId | None = None) -> Stream:
        self.make_room()
        self._last += 1
        return self._add(self._last, request_id)

    @property
    def standalone(self) -> Stream:
        """The one that answers to no request; made when it is first needed."""
        return self._streams.get(STANDALONE) or self._add(STANDALONE, None)

    @property
    def held_bytes(self) -> int:
        return self._budget.used

    @property
    def has_readers(self) -> bool:
        return any(stream.is_read for stream in self._streams.values())

    @property
    def has_answers_read(self) -> bool:
        """Whether a client reads what answers it something."""
        return any(stream.is_read for id, stream in self._streams.items() if id != STANDALONE)

    def has_answers_unread(self, since: float) -> bool:
        """Whether a client has yet to read the rest of an answer, and was there no longer ago than that."""
        return any(
            stream.log.handed_out < stream.log.last_seq and (stream.unread_since or 0.0) >= since
            for id, stream in self._streams.items()
            if id != STANDALONE
        )

    @property
    def all(self) -> Collection[Stream]:
        return self._streams.values()

    def find(self, id: int | None) -> Stream | None:
        return None if id is None else self._streams.get(id)

    def restore(self, last: int, streams: Sequence[StoredStream]) -> list[Stream]:
        """As an earlier process left them; returns those that are not finished. Raises `Unreadable`."""
        self._last = last
        unfinished: list[Stream] = []
        for held in streams:
            head = kept.decode_stream(held.head)
            log = StreamLog(self._budget, held.first_seq, map(kept.decode_event, held.events))
            stream = self._add(held.id, head.request_id, log, head)
            if head.is_finished:
                self._finished.append((stream, self._now()))
            elif stream.id != STANDALONE:
                unfinished.append(stream)
        return unfinished

    def _add(
        self,
        id: int,
        request_id: RequestId | None,
        log: StreamLog | None = None,
        held: kept.KeptStream | None = None,
    ) -> Stream:
        stream = Stream(self._home, id, StreamLog(self._budget) if log is None else log, request_id, held)
        self._streams[id] = stream
        self._budget.charge(STREAM_OVERHEAD_BYTES)
        return stream

    def cursor(self, last_event_id: bytes) -> EventId | None:
        """What an event id says; None for one that was never given out in this session's life."""
        cursor = EventId.decode(last_event_id)
        return cursor if cursor and cursor.epoch == self._home.epoch and cursor.stream <= self._last else None

    def resume(self, cursor: EventId) -> Reader | None:
        """The stream from there on; None when the cursor is at its end.

        Raises `Gap` when something after the cursor is no longer held.
        """
        stream = self._streams.get(cursor.stream)
        if stream is None:
            raise Gap
        if stream.log.is_at_end(cursor.seq):
            return None
        if stream.log.closed and stream.log.may_be_another(cursor.seq):
            return self._retold(stream)
        return stream.read(after=cursor.seq)

    def _retold(self, stream: Stream) -> Reader:
        """How a stream ended, on one of its own: under their old numbers a client may have seen other events."""
        again = self.new()
        again.retell(stream.log.last_words())
        # Read before it is finished, as it could not be let go of then.
        reader = again.read(after=0)
        self.finish(again)
        return reader

    def request_of(self, stream_id: int) -> RequestId | None:
        """Which request a stream answered, also when its events are gone."""
        stream = self._streams.get(stream_id)
        return stream.request_id if stream is not None else self._gone.get(stream_id)

    def finish(self, stream: Stream) -> None:
        """The stream has its last event; it is kept for a while, for a client that missed the end of it."""
        stream.close()
        # Before it is one of them: a client that is away must find it, be it as large as it may.
        self.make_room()
        if stream.id in self._streams:
            self._finished.append((stream, self._now()))

    def prune(self) -> None:
        """Lets go of what is old: finished streams, and what clients were given while they listened on."""
        now = self._now()
        self._let_go_while(lambda since: now - since >= self._age_s)
        for stream in self._streams.values():
            stream.let_go_of_old(self._age_s)

    def make_room(self) -> None:
        """Where the budget is spent, lets go of what is least likely to be asked for again.

        The standalone stream never ends and would in time fill the budget with what was heard long ago; it is cut
        down to its share. Then come finished streams, the oldest first, and then what was given on the stream that has
        most of it, whichever stream needs the room; but for those whose client may not have got it yet.
        """
        budget, standalone = self._budget, self._streams.get(STANDALONE)
        if not budget.is_spent:
            return
        held = budget.events
        if standalone is not None:
            while budget.is_spent and standalone.log.given_bytes > self._limit // STANDALONE_SHARE:
                standalone.let_go_of_some()
        self._let_go_while(lambda _: budget.is_spent)
        while budget.is_spent:
            read = (stream for stream in self._streams.values() if not stream.log.is_far_ahead)
            fullest = max(read, key=lambda stream: stream.log.given_bytes, default=None)
            if fullest is None or not fullest.let_go_of_some():
                break
        budget.evict(held - budget.events)

    async def wait_for_room(self, stream: Stream) -> None:
        """Returns once the stream can take more without losing what no client was given."""
        if stream.log.must_wait:
            self.make_room()
            await stream.wait_for_room()

    def _let_go_while(self, due: Callable[[float], bool]) -> None:
        finished = self._finished
        being_read: list[tuple[Stream, float]] = []
        while finished and due(finished[0][1]):
            entry = finished.popleft()
            if entry[0].is_read:
                being_read.append(entry)
            else:
                self._let_go(entry[0])
        finished.extendleft(reversed(being_read))

    def _let_go(self, stream: Stream) -> None:
        stream.log.clear()
        self._budget.charge(-STREAM_OVERHEAD_BYTES)
        del self._streams[stream.id]
        self._keeper.stream_dropped(stream)
        self._gone[stream.id] = stream.request_id
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def part(self) -> None:
        """Sends the readers of every stream away, to come back for the rest."""
        for stream in self._streams.values():
            stream.part()

    def disown(self) -> None:
        """Another process has the session, and numbers streams of its own: nobody comes back for what begins here."""
        for stream in self._streams.values():
            if not stream.is_known_elsewhere:
                stream.disown(NOBODYS_EPOCH)
        self._home = self._home._replace(epoch=NOBODYS_EPOCH)

    def close_all(self) -> None:
        """The session is over: readers end, and nothing is held for them any longer."""
        for stream in list(self._streams.values()):
            stream.close()
            stream.drop_reader()
            self._let_go(stream)
        self._finished.clear()
        # What still comes is gone with the session: nobody would give its room back to the others.
        self._budget.leave()
        self._budget = Budget(self._limit)
        # A circle, in which what the session knew of its requests would stay.
        self._home = self._home._replace(make_room=bool)

    def abandoned(self) -> list[Stream]:
        """Streams whose source waits for room that no client has come to make."""
        now = self._now()
        return [
            stream
            for stream in self._streams.values()
            if stream.log.must_wait
            and stream.unread_since is not None
            and now - stream.unread_since >= self._age_s
        ]

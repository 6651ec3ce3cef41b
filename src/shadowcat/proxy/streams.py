"""Stored streams: a log, at most one reader, and the place where two lifetimes meet.

The writer is whoever follows the upstream; it goes on when the client is gone. The reader is one client connection;
a newer one takes over, because a half-open connection can look alive for minutes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Protocol

from shadowcat.core.exchange import NO_EVENTS, Piece
from shadowcat.core.kept import KeptRequest, KeptStream
from shadowcat.core.stream import EventId, Logged, StreamLog
from shadowcat.proxy.reader import Reader
from shadowcat.wire.jsonrpc import Message, RequestId

# The code of a byte: its search is a memchr.
_CR, _LF = b"\r\n"

MAX_PIECE_BYTES = 256 * 1024
"""What a reader is given at a time: one that resumes far back must not cost its whole log once more."""

_LOOK_FOR_ROOM_S = 1.0
"""How often a writer that waits looks for what other streams and sessions have given back: nobody tells it of that."""

NOT_STORED = -1
STORED_NOWHERE = sys.maxsize
"""For a stream that no store is to have: nothing waits for its being stored."""


class Keeper(Protocol):
    """Who sees to it that a stream gets into a store."""

    @property
    def never_stored(self) -> int: ...

    @property
    def is_strict(self) -> bool: ...

    @property
    def is_lenient(self) -> bool: ...

    def stream_changed(self, stream: Stream) -> None: ...

    def hurry(self) -> None: ...


class Stream:
    """One stored stream of a session."""

    __slots__ = (
        "_barrier",
        "_cursor",
        "_cursor_seq",
        "_held_from",
        "_is_current",
        "_keeper",
        "_make_room",
        "_now",
        "_old_at",
        "_old_seq",
        "_own_after",
        "_prefix",
        "_reader",
        "_repeats",
        "_room",
        "_strict",
        "_wakeup",
        "heard_at",
        "id",
        "is_changed",
        "is_in_store",
        "log",
        "primed",
        "request_id",
        "stored_seq",
        "unanswered",
        "unread_since",
    )

    def __init__(
        self,
        epoch: str,
        id: int,
        log: StreamLog,
        keeper: Keeper,
        now: Callable[[], float],
        *,
        primed: bool,
        is_current: Callable[[RequestId], bool],
        make_room: Callable[[], object],
        request_id: RequestId | None = None,
        held: KeptStream | None = None,
    ) -> None:
        """`make_room` lets go of what others hold, before this stream has to; `held` is what a store had of it."""
        self.id = id
        self.request_id = request_id
        """The client's request that this stream answers, if it is one."""
        self.unanswered: dict[RequestId, KeptRequest | None] = {}
        """The requests whose answer it waits for, and what the upstream knows them by."""
        if request_id is not None:
            self.unanswered[request_id] = None
        self.log = log
        self.heard_at = now()
        """When the upstream last said something on it."""
        self.unread_since: float | None = self.heard_at
        self._now = now
        self._old_at = self.heard_at
        self._old_seq = 0
        """What had been handed out then, to a client that has listened ever since."""
        self.primed = primed
        """Whether its readers start with a priming event: a client resumes from it if nothing else came."""
        self._prefix = EventId(epoch, id, 0).encode()[:-1]
        self._is_current = is_current
        self._make_room = make_room
        self._reader: Reader | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._keeper = keeper
        self._strict = keeper.is_strict
        self.stored_seq = keeper.never_stored
        """The last event that the store has."""
        self.is_changed = self.stored_seq == STORED_NOWHERE
        """Whether the keeper knows that there is something to be stored; where nothing is, it never hears of it."""
        self.is_in_store = False
        """Whether the store may have anything of it."""
        self._barrier = 0
        """The last event that must be in the store before it, or anything after it, is handed out.

        At first that is the stream itself: a client that comes back for one the store has not heard of after a
        crash has lost it. Then each event that the upstream would not give once more under the same number.
        """
        self._held_from = 0
        """The first such event that may not be in the store yet."""
        self._cursor: bytes | None = None
        self._cursor_seq = 0
        self._own_after = 0
        self._repeats = 0
        """How many of the events that come from the upstream are in the log already."""
        if held is not None:
            self._restore(held)
        elif not self.is_changed:
            keeper.stream_changed(self)

    # For the writer.

    def append(self, message: Message, *, own: bool = False) -> None:
        """`own`: the proxy's word, which no upstream will repeat."""
        log = self.log
        if log.closed:
            # Its session ended meanwhile: nobody reads it any more, and nobody would give the room back.
            return
        if self._repeats and not own:
            self._repeats -= 1
            return
        if log.is_short_of_room:
            self._make_room()
        question: RequestId | None = None
        if message.id is not None:
            if message.is_request:
                question = message.id
            else:
                self.unanswered.pop(message.id, None)
        if own and log.lags and log.handed_out > log.last_seq:
            # Who has seen more than there is would take it for something seen.
            log.hand_out_again(log.last_seq)
        seq = log.append(one_line(message), question)
        if own:
            self._own_after += 1
            if log.lags and not log.replaced_from:
                log.replaced_from = seq
        if own or question is not None or self._strict or (self._cursor is None and not self.id):
            # What is said on a standalone stream without ids is never repeated either.
            self._hold_back(seq)
        if not self.is_changed:
            self._keeper.stream_changed(self)
        if self._wakeup is not None:
            self._wake()

    def retell(self, events: list[Logged]) -> None:
        """What another stream has already."""
        self.log.extend(events)
        self._hold_back(self.log.last_seq)
        self._keeper.stream_changed(self)

    def extend(self, notifications: list[Message]) -> None:
        """The same as appending each of them, which came together from the upstream."""
        if self._repeats or self._strict or (self._cursor is None and not self.id):
            for message in notifications:
                self.append(message)
            return
        log = self.log
        if log.closed or not notifications:
            return
        if log.is_short_of_room:
            self._make_room()
        log.extend([(raw, None) for raw in lines(notifications)])
        if not self.is_changed:
            self._keeper.stream_changed(self)
        if self._wakeup is not None:
            self._wake()

    def _hold_back(self, seq: int) -> None:
        if self.stored_seq >= self._barrier:
            self._held_from = seq
        self._barrier = max(self._barrier, seq)

    def expect(self, request_ids: Iterable[RequestId | None]) -> None:
        """The requests that are answered on it."""
        self.unanswered.update((id, None) for id in request_ids if id is not None)

    def answers(self, request_id: RequestId, known: KeptRequest) -> None:
        """The upstream has begun to."""
        self.unanswered[request_id] = known
        if not self.is_changed:
            self._keeper.stream_changed(self)

    def heard(self) -> None:
        """The upstream has said something, be it only that it is still at it."""
        self.heard_at = self._now()

    def mark(self, cursor: bytes | None) -> None:
        """The upstream can be asked for what comes after all that was appended until now."""
        if cursor is None or (cursor == self._cursor and self.log.last_seq == self._cursor_seq):
            return
        if self.request_id is None and self.id:
            # The answers to a batch: what each upstream stream would repeat is not told apart here.
            return
        if self._cursor is None:
            # Without one, a call that a client has heard a part of could not be brought to its end.
            self._hold_back(self.log.handed_out + 1)
        self._cursor = cursor
        self._cursor_seq = self.log.last_seq
        self._own_after = 0
        if not self.is_changed:
            self._keeper.stream_changed(self)

    async def wait_for_room(self) -> None:
        """Returns once the log can take more without losing what no client was given."""
        while self.log.must_wait and not self.log.closed:
            # The calls of a batch share a stream: several may wait.
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._room,), timeout=_LOOK_FOR_ROOM_S)
            # Where others hold the rest of it, what was given here has to go before more can come.
            self._make_room()
            # Nobody let the server speak meanwhile: its time starts anew.
            self.heard()

    def close(self) -> None:
        """The last event is in: readers end after it."""
        self.log.close()
        if not self.is_changed:
            self._keeper.stream_changed(self)
        self._wake()
        self._wake_writer()

    def let_go_of_some(self) -> bool:
        """Of what was handed out, for others to have room; the store lets go of it too. False if there is none."""
        if not self.log.let_go_of_some():
            return False
        if not self.is_changed:
            self._keeper.stream_changed(self)
        return True

    def let_go_of_old(self, age_s: float) -> None:
        """What the client was given so long ago, and longer, while it has listened on."""
        now = self._now()
        if self._reader is None or now - self._old_at < age_s:
            return
        if self.log.let_go_up_to(self._old_seq) and not self.is_changed:
            self._keeper.stream_changed(self)
        self._old_at, self._old_seq = now, self.log.handed_out

    # For the store.

    @property
    def waits_for_a_client(self) -> bool:
        """Whether it has what a client can come for that names no event."""
        return not self.id and self.log.handed_out < self.log.last_seq

    def kept(self, *, is_left: bool = False) -> KeptStream:
        """`is_left`: nobody is given anything of it here any more."""
        return KeptStream(
            request_id=self.request_id,
            unanswered=list(self.unanswered.items()),
            is_finished=self.log.closed,
            cursor=self._cursor,
            cursor_seq=self._cursor_seq,
            own_after=self._own_after,
            replaced_from=self.log.replaced_from,
            given_to=self.log.handed_out if is_left and self.waits_for_a_client else None,
        )

    def stored(self, last_seq: int) -> None:
        """The store has it, with the events up to that one."""
        self.stored_seq = last_seq
        if self._wakeup is not None:
            self._wake()

    def _restore(self, held: KeptStream) -> None:
        self.stored_seq = self.log.last_seq
        self.is_in_store = True
        self.unanswered = dict(held.unanswered)
        self.log.closed = held.is_finished
        self._cursor, self._cursor_seq, self._own_after = held.cursor, held.cursor_seq, held.own_after
        self.log.replaced_from = held.replaced_from
        if held.given_to is not None:
            self._go_on_giving(max(held.given_to, self.log.first_seq - 1))

    def _go_on_giving(self, after: int) -> None:
        """Once the store does not say so any more: after a crash it would be given again."""
        self.log.hand_out_again(after)
        self.stored_seq = after
        self._hold_back(after + 1)
        self._hold_back(self.log.last_seq)
        self._keeper.stream_changed(self)

    def resume(self) -> bytes | None:
        """The cursor to ask the upstream for the rest with; what was stored of that rest is skipped when it comes."""
        if self._cursor is not None:
            self._repeats = max(0, self.log.last_seq - self._cursor_seq - self._own_after)
        self.log.lags = True
        return self._cursor

    def forget_cursor(self) -> None:
        """The upstream knows nothing of it any more; under the same id it may have another event by now."""
        if self._cursor is not None:
            self._cursor = None
            if not self.is_changed:
                self._keeper.stream_changed(self)

    def start_afresh(self) -> None:
        """What comes now continues nothing: no event of it was stored, or seen by a client, before."""
        self.forget_cursor()
        self._repeats = 0
        self.log.replaced_from = 0
        if self.log.lags:
            self.log.lags = False
            self.log.hand_out_again(min(self.log.handed_out, self.log.last_seq))

    @property
    def is_resumable(self) -> bool:
        """Whether the upstream can be asked for the rest of it."""
        return self._cursor is not None

    @property
    def can_go_on_elsewhere(self) -> bool:
        """Whether another process can ask for the rest, and the client has what to ask it for that with."""
        return self._cursor is not None and self.log.handed_out > 0

    # For readers.

    @property
    def is_read(self) -> bool:
        return self._reader is not None

    def read(self, after: int | None = None) -> Reader:
        """Attaches a reader, in place of the one there was. Raises `Gap` when `after` cannot be honoured."""
        if after is not None:
            self.log.hand_out_again(after)
        reader = Reader(self, replayed_to=self.log.last_seq if after is not None else 0)
        self._reader = reader
        self.unread_since = None
        self._old_at, self._old_seq = self._now(), 0
        self._wake()
        return reader

    def take(self, reader: Reader) -> Piece | None:
        """What the reader has not seen, piece by piece; None when it has seen everything there will be for it."""
        if self._reader is not reader:
            return None
        log = self.log
        released = self._released
        primes = reader.unprimed and released >= 0
        if primes:
            reader.unprimed = False
        first = log.handed_out + 1
        while fresh := log.hand_out(released, MAX_PIECE_BYTES):
            self._wake_writer()
            data = [
                # An answered request is not asked again on a replay.
                data
                if request_id is None or number > reader.replayed_to or self._is_current(request_id)
                else None
                for number, (data, request_id) in enumerate(fresh, first)
            ]
            if primes or data.count(None) < len(data):
                return Piece(self._prefix, first, data, primes)
            first = log.handed_out + 1
        if primes:
            return Piece(self._prefix, first, (), primes)
        return None if log.closed and log.handed_out >= log.last_seq else NO_EVENTS

    @property
    def _released(self) -> int:
        """The last event that may be handed out; before the stream itself may be known to a client, not even 0."""
        if self.stored_seq >= self._barrier or self._keeper.is_lenient:
            return self.log.last_seq
        return max(self.stored_seq, self._held_from - 1)

    @property
    def is_held_back(self) -> bool:
        """Whether something is handed out as soon as the store has it."""
        released = self._released
        return released < self.log.last_seq or released < 0

    async def wait(self, at_most_s: float | None = None) -> None:
        """Returns when there may be something to take."""
        if self._wakeup is None or self._wakeup.done():
            self._wakeup = asyncio.get_running_loop().create_future()
        if at_most_s is None:
            # Not shielded, which would cost each event a turn of the loop: nobody else waits for it.
            await self._wakeup
        else:
            self._keeper.hurry()
            await asyncio.wait((self._wakeup,), timeout=at_most_s)

    def wake_reader(self) -> None:
        """What was held back may be let go of now."""
        self._wake()

    def detach(self, reader: Reader) -> None:
        if self._reader is reader:
            self.drop_reader()

    def part(self) -> None:
        """Sends the client away politely: it is told where it is, and comes back for the rest."""
        reader = self._reader
        if reader is not None:
            # Also where nothing was said yet: the TypeScript SDK 1.x forgets where it is when it hears no id at all.
            if self.primed and (not reader.unprimed or self._released >= 0):
                reader.farewell = Piece(self._prefix, self.log.handed_out + 1, (), primes=True)
            self.drop_reader()

    def drop_reader(self) -> None:
        self._reader = None
        self.unread_since = self._now()
        self._wake()

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)

    def _wake_writer(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set_result(None)


def lines(messages: list[Message]) -> list[bytes]:
    raws = [message.raw for message in messages]
    text = b"".join(raws)
    return [one_line(message) for message in messages] if _LF in text or _CR in text else raws


def one_line(message: Message) -> bytes:
    raw = message.raw
    return message.line()[:-1] if _LF in raw or _CR in raw else raw

"""Stored streams: a log, at most one reader, and the place where two lifetimes meet.

The writer is whoever follows the upstream; it goes on when the client is gone. The reader is one client connection;
a newer one takes over, because a half-open connection can look alive for minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from shadowcat.core.exchange import NO_EVENTS, Piece
from shadowcat.core.kept import KeptRequest, KeptStream
from shadowcat.core.place import Place
from shadowcat.core.stream import Logged, StreamLog, ids_of
from shadowcat.core.withheld import NOT_STORED, Withheld
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.home import Home
from shadowcat.proxy.reader import Reader
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId

# The code of a byte: its search is a memchr.
_CR, _LF = b"\r\n"

MAX_PIECE_BYTES = 64 * 1024
"""What a reader is given at a time: one that resumes far back, or reads nothing, must not cost its log once more."""

_LOOK_FOR_ROOM_S = 1.0
"""How often a writer that waits looks for what other streams and sessions have given back: nobody tells it of that."""


class Stream:
    """One stored stream of a session."""

    __slots__ = (
        "_home",
        "_old_at",
        "_old_seq",
        "_place",
        "_prefix",
        "_reader",
        "_room",
        "_unanswered",
        "_wakeup",
        "_withheld",
        "heard_at",
        "id",
        "is_changed",
        "is_in_store",
        "log",
        "request_id",
        "undecided",
        "unread_since",
    )

    def __init__(
        self,
        home: Home[Stream],
        id: int,
        log: StreamLog,
        request_id: RequestId | None = None,
        held: KeptStream | None = None,
    ) -> None:
        """`held` is what a store had of it."""
        keeper = home.keeper
        self._home = home
        self.id = id
        self.request_id = request_id
        """The client's request that this stream answers, if it is one."""
        self.log = log
        self.heard_at = home.now()
        """When the upstream last said something on it."""
        self.undecided = 0
        """How much of that waits for interceptors; the upstream is not listened to meanwhile."""
        self.unread_since: float | None = self.heard_at
        self._old_at = self.heard_at
        self._old_seq = 0
        """What had been handed out then, to a client that has listened ever since."""
        self._prefix = ids_of(home.epoch, id)
        self._reader: Reader | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._place: Place | None = None
        """Where the upstream can be asked to go on; None where it cannot."""
        self._withheld = Withheld(keeper.is_strict) if keeper.has_store else None
        """None where nothing has to be stored before it is handed out."""
        self._unanswered: dict[RequestId, KeptRequest | None] | None = None
        self.is_changed = not keeper.has_store
        """Whether the keeper knows that there is something to be stored; where nothing is, it never hears of it."""
        self.is_in_store = False
        """Whether the store may have anything of it."""
        if held is not None:
            self._restore(held)
        elif keeper.has_store:
            self._unanswered = {} if request_id is None else {request_id: None}
            keeper.stream_changed(self)

    @property
    def primed(self) -> bool:
        return self._home.primed

    @property
    def is_kept(self) -> bool:
        """Whether a store is to have it."""
        return self._home.keeper.has_store

    def _changed(self) -> None:
        if not self.is_changed:
            self._home.keeper.stream_changed(self)

    # For the writer.

    def append(self, message: Message, *, own: bool = False) -> None:
        """`own`: the proxy's word, which no upstream will repeat."""
        log, place = self.log, self._place
        if log.closed:
            # Its session ended meanwhile: nobody reads it any more, and nobody would give the room back.
            return
        if place is not None and not own and place.repeated(1):
            return
        question: RequestId | None = None
        if message.id is not None:
            if message.is_request:
                question = message.id
            else:
                self.is_answered(message.id)
        if own and log.lags and log.handed_out > log.last_seq:
            # Who has seen more than there is would take it for something seen.
            log.hand_out_again(log.last_seq)
        seq = log.append(one_line(message), question, self._home.make_room)
        if own:
            if place is not None:
                place.own_after += 1
            if log.lags and not log.replaced_from:
                log.replaced_from = seq
        withheld = self._withheld
        if withheld is not None and (own or question is not None or self._is_said_once(withheld)):
            withheld.hold_back(seq, seq)
        self._came()

    def extend(self, notifications: list[Message]) -> None:
        """The same as appending each of them, which came together from the upstream."""
        log = self.log
        if self._place is not None:
            notifications = notifications[self._place.repeated(len(notifications)) :]
        if log.closed or not notifications:
            return
        last = log.extend(lines(notifications), self._home.make_room)
        withheld = self._withheld
        if withheld is not None and self._is_said_once(withheld):
            withheld.hold_back(last + 1 - len(notifications), last)
        self._came()

    def _is_said_once(self, withheld: Withheld) -> bool:
        """Whether what the upstream says must be in the store first, whatever it is.

        What is said on a standalone stream without ids is never repeated.
        """
        return withheld.is_strict or (self._place is None and not self.id)

    def _came(self) -> None:
        if not self.is_changed:
            self._home.keeper.stream_changed(self)
        if self._wakeup is not None:
            self._wake()

    def retell(self, events: list[Logged]) -> None:
        """What another stream has already."""
        for data, question in events:
            self.log.append(data, question)
        self._hold_back(self.log.last_seq)
        self._changed()

    def _hold_back(self, seq: int) -> None:
        if self._withheld is not None:
            self._withheld.hold_back(seq, seq)

    def expect(self, request_ids: Iterable[RequestId | None]) -> None:
        """The requests that are answered on it."""
        if self._unanswered is not None:
            self._unanswered.update((id, None) for id in request_ids if id is not None)

    def answers(self, request_id: RequestId, known: KeptRequest) -> None:
        """The upstream has begun to."""
        if self._unanswered is not None:
            self._unanswered[request_id] = known
            self._changed()

    def is_answered(self, request_id: RequestId) -> None:
        """Or will not be: nobody waits for it any more."""
        if self._unanswered is not None:
            self._unanswered.pop(request_id, None)

    def heard(self) -> None:
        """The upstream has said something, be it only that it is still at it."""
        self.heard_at = self._home.now()

    def mark(self, cursor: bytes | None) -> None:
        """The upstream can be asked for what comes after all that was appended until now."""
        place = self._place
        if cursor is None or (place is not None and not place.move(cursor, self.log.last_seq)):
            return
        if place is None:
            if self.request_id is None and self.id:
                # The answers to a batch: what each upstream stream would repeat is not told apart here.
                return
            # Without one, a call that a client has heard a part of could not be brought to its end.
            self._hold_back(self.log.handed_out + 1)
            self._place = Place(cursor, self.log.last_seq)
        if not self.is_changed:
            self._home.keeper.stream_changed(self)

    async def wait_for_room(self) -> None:
        """Returns once the log can take more without losing what no client was given."""
        while self.log.must_wait and not self.log.closed:
            # The calls of a batch share a stream: several may wait.
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._room,), timeout=_LOOK_FOR_ROOM_S)
            # Where others hold the rest of it, what was given here has to go before more can come.
            self._home.make_room()
            # Nobody let the server speak meanwhile: its time starts anew.
            self.heard()

    def close(self) -> None:
        """The last event is in: readers end after it."""
        self.log.close()
        self._changed()
        self._wake()
        self._wake_writer()

    def let_go_of_some(self) -> bool:
        """Of what was handed out, for others to have room; the store lets go of it too. False if there is none."""
        if not self.log.let_go_of_some():
            return False
        self._changed()
        return True

    def let_go_of_old(self, age_s: float) -> None:
        """What the client was given so long ago, and longer, while it has listened on."""
        now = self._home.now()
        if self._reader is None or now - self._old_at < age_s:
            return
        if self.log.let_go_up_to(self._old_seq):
            self._changed()
        self._old_at, self._old_seq = now, self.log.handed_out

    # For the store.

    @property
    def waits_for_a_client(self) -> bool:
        """Whether it has what a client can come for that names no event."""
        return not self.id and self.log.handed_out < self.log.last_seq

    @property
    def unanswered(self) -> Mapping[RequestId, KeptRequest | None]:
        """The requests whose answer it waits for, and what the upstream knows them by: what a store is told."""
        return self._unanswered or {}

    def kept(self, *, is_left: bool = False) -> KeptStream:
        """`is_left`: nobody is given anything of it here any more."""
        kept = KeptStream(
            request_id=self.request_id,
            unanswered=list(self.unanswered.items()),
            is_finished=self.log.closed,
            replaced_from=self.log.replaced_from,
            given_to=self.log.handed_out if is_left and self.waits_for_a_client else None,
        )
        place = self._place
        if place is not None:
            kept.cursor, kept.cursor_seq, kept.own_after = place.cursor, place.seq, place.own_after
        return kept

    @property
    def stored_to(self) -> int:
        """The last event that the store has."""
        return NOT_STORED if self._withheld is None else self._withheld.stored_to

    def stored(self, last_seq: int) -> None:
        """The store has it, with the events up to that one; or, with `NOT_STORED`, has lost all of it."""
        # Who waits for what the upstream says next is left alone.
        was_held_back = self._wakeup is not None and self.is_held_back
        if self._withheld is not None:
            self._withheld.stored_to = last_seq
        if was_held_back:
            self._wake()

    def _restore(self, held: KeptStream) -> None:
        if self._withheld is not None:
            self._withheld.stored_to = self.log.last_seq
        self.is_in_store = True
        self._unanswered = dict(held.unanswered)
        self.log.closed = held.is_finished
        if held.cursor is not None:
            self._place = Place(held.cursor, held.cursor_seq, held.own_after)
        self.log.replaced_from = held.replaced_from
        if held.given_to is not None:
            self._go_on_giving(max(held.given_to, self.log.first_seq - 1))

    def _go_on_giving(self, after: int) -> None:
        """Once the store does not say so any more: after a crash it would be given again."""
        self.log.hand_out_again(after)
        if self._withheld is not None:
            self._withheld.stored_to = after
            self._withheld.hold_back(after + 1, max(after + 1, self.log.last_seq))
        self._home.keeper.stream_changed(self)

    def resume(self) -> bytes | None:
        """The cursor to ask the upstream for the rest with; what was stored of that rest is skipped when it comes."""
        self.log.lags = True
        if self._place is None:
            return None
        self._place.go_on(self.log.last_seq)
        return self._place.cursor

    def forget_cursor(self) -> None:
        """The upstream knows nothing of it any more; under the same id it may have another event by now."""
        if self._place is not None:
            self._place = None
            self._changed()

    def start_afresh(self) -> None:
        """What comes now continues nothing: no event of it was stored, or seen by a client, before."""
        self.forget_cursor()
        self.log.replaced_from = 0
        if self.log.lags:
            self.log.lags = False
            self.log.hand_out_again(min(self.log.handed_out, self.log.last_seq))

    @property
    def is_resumable(self) -> bool:
        """Whether the upstream can be asked for the rest of it."""
        return self._place is not None

    @property
    def can_go_on_elsewhere(self) -> bool:
        """Whether another process can ask for the rest, and the client has what to ask it for that with."""
        return self._place is not None and self.log.handed_out > 0

    @property
    def is_known_elsewhere(self) -> bool:
        """Whether who takes the session over finds it in the store."""
        return self.stored_to > NOT_STORED

    # For readers.

    @property
    def is_read(self) -> bool:
        return self._reader is not None

    def read(self, after: int | None = None) -> Reader:
        """Attaches a reader, in place of the one there was. Raises `Gap` when `after` cannot be honoured."""
        if after is not None:
            self.log.hand_out_again(after)
        reader = Reader(self, after, replayed_to=self.log.last_seq if after is not None else 0)
        self._reader = reader
        self.unread_since = None
        self._old_at, self._old_seq = self._home.now(), 0
        self._wake()
        return reader

    def take(self, reader: Reader) -> Piece | None:
        """What the reader has not seen, piece by piece; None when it has seen everything there will be for it."""
        if self._reader is not reader:
            return None
        log = self.log
        released = log.last_seq if self._withheld is None else self._released
        primes = reader.unprimed and released >= 0
        if primes:
            reader.unprimed = False
        elif released <= log.handed_out:
            return None if log.closed and log.handed_out >= log.last_seq else NO_EVENTS
        first = log.handed_out + 1
        while fresh := log.hand_out(released, MAX_PIECE_BYTES):
            if self._room is not None:
                self._wake_writer()
            if not log.questions:
                return Piece(self._prefix, first, fresh, primes)
            data = self._still_to_be_said(fresh, first, reader.replayed_to)
            if primes or data.count(None) < len(data):
                return Piece(self._prefix, first, data, primes)
            first = log.handed_out + 1
        if primes:
            return Piece(self._prefix, first, (), primes)
        return None if log.closed and log.handed_out >= log.last_seq else NO_EVENTS

    def take_whole(self, reader: Reader) -> Piece | None:
        """See `Reader.whole`."""
        log = self.log
        if not log.closed or log.held_bytes > MAX_PIECE_BYTES or self._released < log.last_seq:
            return None
        piece = self.take(reader)
        self.detach(reader)
        return piece

    def _still_to_be_said(self, events: list[bytes], first: int, replayed_to: int) -> list[bytes | None]:
        """An answered request is not asked again on a replay."""
        questions = self.log.questions
        return [
            data
            if number > replayed_to
            or (request_id := questions.get(number)) is None
            or self._home.is_current(request_id)
            else None
            for number, data in enumerate(events, first)
        ]

    @property
    def _released(self) -> int:
        """The last event that may be handed out; before the stream itself may be known to a client, not even 0."""
        withheld, last_seq = self._withheld, self.log.last_seq
        if withheld is None or self._home.keeper.is_lenient:
            return last_seq
        return withheld.released(last_seq)

    @property
    def is_held_back(self) -> bool:
        """Whether something is handed out as soon as the store has it."""
        if self._withheld is None:
            return False
        released = self._released
        return released < self.log.last_seq or released < 0

    def arrival(self) -> asyncio.Future[None]:
        """Done when there may be something to take. For the reader alone, who may cancel it."""
        if self._wakeup is None or self._wakeup.done():
            self._wakeup = asyncio.get_running_loop().create_future()
        return self._wakeup

    def hurry(self) -> None:
        """What is held back is waited for."""
        self._home.keeper.hurry()

    def unknown_outcome(self) -> Piece | None:
        if self.request_id is None:
            return None
        told = "The session store does not answer; the outcome is unknown"
        fault = Fault(FaultKind.OUTCOME_UNKNOWN, told, reason="store_unavailable", sent=True)
        error = jsonrpc.error(self.request_id, fault.error())
        return Piece(self._prefix, self.log.handed_out + 1, (error.raw,))

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

    def disown(self, epoch: str) -> None:
        """Another process has the session, which may call another stream so: by its ids this one is not found."""
        self._prefix = ids_of(epoch, self.id)

    def drop_reader(self) -> None:
        self._reader = None
        self.unread_since = self._home.now()
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
    if len(messages) == 1:
        return [one_line(messages[0])]
    raws = [message.raw for message in messages]
    text = b"".join(raws)
    return [one_line(message) for message in messages] if _LF in text or _CR in text else raws


def one_line(message: Message) -> bytes:
    raw = message.raw
    return message.line()[:-1] if _LF in raw or _CR in raw else raw

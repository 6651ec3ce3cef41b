"""The log of a stored stream: what a client may have missed, within bounds.

Events are numbered from 1 without gaps. A reader takes what follows a number; when that is no longer held, it is
told so. What was handed to the client stays for a resume and may go when room is needed; for what was not, the source
is held back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from shadowcat.wire.jsonrpc import RequestId

EVENT_OVERHEAD_BYTES = 128
"""What an event is counted for beside its data: what it takes here, and while it is under way."""
MAX_AHEAD_BYTES = 2 * 1024 * 1024
"""How much that no client was given may push out what one was, when room is short.

What a client was given may be on its way still: see `LogLimits`.
"""
_PIECES = 128
"""Room is made by this part of a budget at a time: who makes it for one event has to at each that follows."""
STREAM_OVERHEAD_BYTES = 1_536
"""What a stream costs beside its events."""


class LogLimits(Struct, frozen=True):
    """Bounds of the streams of one session.

    A client that stops reading and then loses its connection has missed everything between the proxy's socket and
    its own program, and TCP lets that grow to 6 MiB on a Linux client. The log must reach back further.
    """

    bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="How much all streams of a session may hold, including the overhead of each event.",
        ),
    ] = 8 * 1024 * 1024
    age_s: Annotated[
        float, Meta(gt=0, description="How long a finished stream, or one nobody reads, is kept.")
    ] = 600.0


class Budget:
    """How much logs may hold together: those of a session, and within `parent` those of all sessions.

    Of the whole, a third is for those who hold little: when the rest is used up, a session that holds less than its
    part of that third goes on, whatever the others hoard. Both together never exceed the whole.
    """

    __slots__ = ("_crowded_at", "_limit", "_parent", "_share", "_sharers", "events", "evicted", "used")

    def __init__(self, limit: int, parent: Budget | None = None) -> None:
        self._limit = limit
        self._parent = parent
        self.used = 0
        self.events = 0
        self.evicted = 0
        """Events that had to go because room was short."""
        self._sharers = 0
        self._crowded_at = limit - limit // 3
        self._share = limit
        if parent is not None:
            parent._shared_by(parent._sharers + 1)

    def leave(self) -> None:
        """Takes no part any more in what its parent gives."""
        if self._parent is not None:
            self._parent._shared_by(self._parent._sharers - 1)
            self._parent.charge(-self.used, -self.events)
            self._parent = None

    def _shared_by(self, sharers: int) -> None:
        self._sharers = sharers
        self._share = self._limit // 3 // max(sharers, 1)

    def charge(self, amount: int, events: int = 0) -> None:
        self.used += amount
        self.events += events
        parent = self._parent
        if parent is not None:
            parent.used += amount
            parent.events += events

    def evict(self, events: int) -> None:
        self.evicted += events
        if self._parent is not None:
            self._parent.evicted += events

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def is_spent(self) -> bool:
        if self.used >= self._limit:
            return True
        parent = self._parent
        return parent is not None and parent.used >= parent._crowded_at and self.used >= parent._share

    def is_spent_without(self, amount: int) -> bool:
        """Whether it would still be if that much were given back."""
        used, parent = self.used - amount, self._parent
        if used >= self._limit:
            return True
        return parent is not None and parent.used - amount >= parent._crowded_at and used >= parent._share

    @property
    def piece(self) -> int:
        """How much to give back when it is spent, so that it is not spent again at once."""
        return self._limit // _PIECES


class EventId(NamedTuple):
    """`epoch.stream.seq`. The epoch is random per session, so an id of another session or life names nothing here."""

    epoch: str
    stream: int
    seq: int

    def encode(self) -> bytes:
        return f"{self.epoch}.{self.stream}.{self.seq}".encode("ascii")

    @classmethod
    def decode(cls, text: bytes) -> EventId | None:
        found = _EVENT_ID.fullmatch(text)
        if found is None:
            return None
        return cls(found[1].decode("ascii"), int(found[2]), int(found[3]))


def ids_of(epoch: str, stream: int) -> bytes:
    """What the ids of a stream's events begin with; their numbers follow."""
    return f"{epoch}.{stream}.".encode("ascii")


_EVENT_ID = re.compile(rb"([A-Za-z0-9_-]{1,32})\.([0-9]{1,15})\.([0-9]{1,15})")


Logged = tuple[bytes, RequestId | None]
"""An event: its data and, if it is a request to the client, its id; once answered it is not to be replayed."""


def _cost(events: Sequence[bytes]) -> int:
    return len(events) * EVENT_OVERHEAD_BYTES + sum(map(len, events))


_MANY = 32
"""Events that are added up in one go."""

_NO_QUESTIONS: Mapping[int, RequestId] = {}


class Gap(Exception):
    """What was asked for is not held: evicted, or never was."""


class StreamLog:
    """A list, not a deque: that takes 760 bytes before it holds anything, and most streams hold little.

    What goes from its front goes by pieces of a 128th of a budget, so that moving the rest up costs an event next to
    nothing.
    """

    __slots__ = (
        "_ahead",
        "_budget",
        "_events",
        "_first",
        "_handed_out",
        "_held",
        "_questions",
        "closed",
        "lags",
        "last_seq",
        "replaced_from",
    )

    def __init__(self, budget: Budget, first_seq: int = 1, held: Iterable[Logged] | None = None) -> None:
        """`held` are events of an earlier process, numbered from `first_seq` on."""
        self._budget = budget
        self._events: list[bytes] = []
        self._questions: dict[int, RequestId] | None = None
        """The ids of requests to the client, by the numbers of their events; few streams have any."""
        self._first = first_seq
        """The number of the oldest event that is held, or of the next one where none is."""
        self._held = 0
        self.last_seq = first_seq - 1
        if held is not None:
            self._restore(held)
        self._handed_out = self.last_seq
        self._ahead = 0
        """What is held of the events after that one."""
        self.closed = False
        self.lags = False
        """Whether events that a client may have seen are yet to come again, under the numbers they had."""
        self.replaced_from = 0
        """From that event on, in a log that is closed, a client may have seen others under these numbers."""

    def _restore(self, held: Iterable[Logged]) -> None:
        for data, request_id in held:
            self._events.append(data)
            self.last_seq += 1
            if request_id is not None:
                self._note_question(self.last_seq, request_id)
        self._charge(_cost(self._events), len(self._events))

    def __len__(self) -> int:
        return len(self._events)

    @property
    def held_bytes(self) -> int:
        return self._held

    @property
    def first_seq(self) -> int:
        return self._first

    @property
    def handed_out(self) -> int:
        """The last event a client's connection was given; it may still have been lost on the way."""
        return self._handed_out

    def hand_out_again(self, after: int) -> None:
        """Another connection goes on after that event: what follows was not given to it. Raises `Gap`."""
        if self.lags and after > self.last_seq and not self.closed:
            self._handed_out, self._ahead = after, 0
            return
        again = self.data_after(after)
        self._handed_out = after
        self._ahead = _cost(again)

    def is_at_end(self, seq: int) -> bool:
        """Whether nothing will follow that event."""
        return self.closed and seq == self.last_seq and not self.may_be_another(seq)

    def may_be_another(self, seq: int) -> bool:
        """Whether a client that has seen an event of that number may have seen another one than is held."""
        return seq >= self.replaced_from if self.replaced_from else self.lags and seq > self.last_seq

    def last_words(self) -> list[Logged]:
        """How it ended, for who has seen others in their place."""
        return self.after(max(self.replaced_from or self.last_seq, self._first) - 1)

    def hand_out(self, up_to: int, max_bytes: int) -> list[bytes]:
        """The next events for the connection: at least one, if there is any, and not many more bytes than these."""
        if up_to <= self._handed_out:
            return []
        if self._first > self._handed_out + 1:
            raise Gap
        events = self._events
        start = end = self._handed_out + 1 - self._first
        size = self._ahead
        if up_to < self.last_seq or size > max_bytes:
            size, beyond = 0, up_to + 1 - self._first
            # Most of them by many at a time.
            while end + _MANY <= beyond and (more := size + _cost(events[end : end + _MANY])) < max_bytes:
                size = more
                end += _MANY
            while end < beyond and size < max_bytes:
                size += len(events[end]) + EVENT_OVERHEAD_BYTES
                end += 1
        else:
            end = len(events)
        self._handed_out += end - start
        self._ahead -= size
        return events[start:end]

    def unread(self) -> list[bytes]:
        """What no client was given."""
        return self._events[max(0, self._handed_out + 1 - self._first) :]

    @property
    def questions(self) -> Mapping[int, RequestId]:
        """Which of the events are requests to the client, and their ids."""
        return self._questions or _NO_QUESTIONS

    def _note_question(self, seq: int, request_id: RequestId) -> None:
        if self._questions is None:
            self._questions = {}
        self._questions[seq] = request_id

    def close(self) -> None:
        """The last event is in."""
        self.closed = True
        if self._handed_out > self.last_seq:
            self.hand_out_again(max(self.replaced_from or self.last_seq, self._first) - 1)

    def append(
        self, data: bytes, request_id: RequestId | None = None, make_room: Callable[[], object] | None = None
    ) -> int:
        """Adds an event, making room by letting go of the oldest that were handed out.

        A writer that has to wait may bring to an end what it began: there is no room then, and nothing goes.
        """
        seq = self.extend((data,), make_room)
        if request_id is not None:
            self._note_question(seq, request_id)
        return seq

    def extend(self, events: Sequence[bytes], make_room: Callable[[], object] | None = None) -> int:
        """The same for events that came together, none of them a question. Returns the number of the last.

        Where there is no room, `make_room` may have others let go of something first.
        """
        budget = self._budget
        if budget.is_spent:
            if make_room is not None:
                make_room()
            if not self.is_far_ahead:
                self._let_go_of_given()
        seen = self._handed_out - self.last_seq
        self._events.extend(events)
        self.last_seq += len(events)
        cost = _cost(events)
        self._ahead += cost if seen <= 0 else _cost(events[seen:])
        self._held += cost
        budget.charge(cost, len(events))
        return self.last_seq

    @property
    def is_far_ahead(self) -> bool:
        """So far that its client seems not to read: what it was given may be on its way still, and has to stay."""
        return self._ahead >= MAX_AHEAD_BYTES

    @property
    def given_bytes(self) -> int:
        """What is held of the events that were handed out."""
        return self._held - self._ahead

    def _let_go_of_given(self) -> None:
        held = self._budget.events
        while self._budget.is_spent and self.let_go_of_some():
            pass
        self._budget.evict(held - self._budget.events)

    def let_go_of_some(self) -> bool:
        """Of the oldest that were handed out, about as much as is made room by at a time. False if there are none."""
        return self._let_go(self._handed_out, self._budget.piece)

    def let_go_up_to(self, seq: int) -> bool:
        """Of the events up to that one, those that were handed out. False if none of them is held."""
        return self._let_go(min(seq, self._handed_out), self._held)

    def _let_go(self, up_to: int, piece: int) -> bool:
        events = self._events
        most = min(len(events), up_to + 1 - self._first)
        gone = freed = 0
        while gone < most and freed <= piece:
            freed += len(events[gone]) + EVENT_OVERHEAD_BYTES
            gone += 1
        del events[:gone]
        self._go_on_from(self._first + gone)
        self._charge(-freed, -gone)
        return freed > 0

    def _go_on_from(self, first: int) -> None:
        self._first = first
        if self._questions is not None:
            self._questions = {seq: id for seq, id in self._questions.items() if seq >= first} or None

    @property
    def must_wait(self) -> bool:
        """Whether an event more would have to push out one that no client was given, or that may be on its way.

        What one read brings may be twice a small budget: while nothing that can go makes room, no more comes on top.
        """
        return (
            bool(self._events)
            and self._budget.is_spent
            and (
                self._first > self._handed_out
                or self.is_far_ahead
                or self._budget.is_spent_without(self.given_bytes)
            )
        )

    def clear(self) -> None:
        """Lets go of everything: the log is not used any more."""
        gone = len(self._events)
        self._events = []
        self._go_on_from(self.last_seq + 1)
        self._ahead = 0
        self._charge(-self._held, -gone)

    def _charge(self, amount: int, events: int) -> None:
        self._held += amount
        self._budget.charge(amount, events)

    def after(self, seq: int) -> list[Logged]:
        """The events that follow `seq`. Raises `Gap` when one of them, or `seq` itself, cannot be vouched for."""
        questions = self.questions
        return [(data, questions.get(number)) for number, data in enumerate(self.data_after(seq), seq + 1)]

    def data_after(self, seq: int) -> list[bytes]:
        """The same without what is a question."""
        if seq == self.last_seq:
            return []
        if seq > self.last_seq or self._first > seq + 1:
            raise Gap
        return self._events[seq + 1 - self._first :]

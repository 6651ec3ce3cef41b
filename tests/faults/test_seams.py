"""Where the replay of a stored stream meets its live end: every order of events for a few steps, then random runs.

The model of a client: it knows what it received, and a connection may lose any tail of what it was given. Whatever
happens, what it received is 1, 2, 3 … without a hole, or it was told of the hole when it came back.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import pytest

from shadowcat.core.exchange import NO_EVENTS, Piece
from shadowcat.core.stream import EVENT_OVERHEAD_BYTES, Budget, EventId, Gap, LogLimits, StreamLog
from shadowcat.proxy.book import StreamBook
from shadowcat.proxy.home import Home
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from tests.faults.caller import seeded
from tests.rig.stand import unkept
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1200))

EVENT_BYTES = len(jsonrpc.notification("n", {"n": 10}).raw) + EVENT_OVERHEAD_BYTES


Event = tuple[bytes, bytes | None]
"""Its id, and its data unless it is a priming event."""


def events_of(piece: Piece) -> list[Event]:
    primer: list[Event] = [(piece.id_before, None)] if piece.primes else []
    return primer + [
        (b"%b%d" % (piece.prefix, number), data) for number, data in enumerate(piece.data, piece.first)
    ]


def _number(data: bytes) -> int:
    return int(jsonrpc.parse(data).params()["n"])


class Room(Budget):
    """A budget for so many events, however many streams there are."""

    def __init__(self, events: int) -> None:
        super().__init__(1 << 40)
        self._room = events

    @property
    def is_spent(self) -> bool:
        return self.used >= self._room * EVENT_BYTES


class Model:
    """A stream, its writer, and one client with its connections."""

    def __init__(self, room: int, *, primed: bool = True) -> None:
        self.now = 0.0
        self.budget = Room(room)
        home = Home("epoch", unkept(), lambda: self.now, primed, lambda _: True, lambda: None)
        self.stream = Stream(home, 1, StreamLog(self.budget))
        self.last = 0
        self.live: Reader | None = None
        self.stale: list[Reader] = []
        self.received: list[int] = []
        self.cursor = 0
        """What the client would resume from."""
        self.gaps = 0

    def append(self) -> None:
        if self.stream.log.must_wait or self.stream.log.closed:
            return
        self.last += 1
        self.stream.append(jsonrpc.notification("n", {"n": self.last}))

    def attach(self) -> None:
        """The client comes back with the last id it saw; its earlier connection may still look alive."""
        if self.live is not None:
            self.stale.append(self.live)
        try:
            self.live = self.stream.read(after=self.cursor)
        except Gap:
            self._gap()

    def detach(self) -> None:
        """The proxy notices that the connection is gone."""
        if self.live is not None:
            self.stream.detach(self.live)
            self.live = None

    def take(self) -> None:
        self._take(lambda events: events)

    def lose(self) -> None:
        """The connection is given something that never arrives, and nobody notices yet."""
        self._take(lambda events: [])

    def lose_half(self) -> None:
        self._take(lambda events: events[: len(events) // 2])
        self.live = None

    def _take(self, arrives: Callable[[list[Event]], list[Event]]) -> None:
        if self.live is None:
            return
        try:
            events = events_of(self.stream.take(self.live) or NO_EVENTS)
        except Gap:
            # The connection is broken off, and the client told when it comes back.
            self.detach()
            return
        arrived = arrives(events)
        if len(arrived) < len(events):
            # What follows on this connection would not arrive either.
            self.stale.append(self.live)
            self.live = None
        for event_id, data in arrived:
            if data is None:
                continue
            number = _number(data)
            assert number == self.cursor + 1, f"{number} after {self.cursor}"
            id = EventId.decode(event_id)
            assert id is not None
            assert id.seq == number
            self.received.append(number)
            self.cursor = number

    def wake_stale(self) -> None:
        """An older connection is given nothing that the newest one is not: it ends."""
        for reader in self.stale:
            if self.live is not None:
                assert self.stream.take(reader) is None

    def evict(self) -> None:
        """Others need the room: the log keeps nothing that it may let go of."""
        room, self.budget._room = self.budget._room, 0
        self.stream.log._let_go_of_given()  # pyright: ignore[reportPrivateUsage]
        self.budget._room = room

    def close(self) -> None:
        self.stream.close()

    def _gap(self) -> None:
        """The client is told; it goes on from what there is."""
        log = self.stream.log
        before_oldest = log.last_seq - len(log)
        assert before_oldest > self.cursor, "a gap was claimed, and everything was there"
        self.gaps += 1
        self.live = None
        self.cursor = before_oldest

    def finish(self) -> None:
        """The client comes back until it has all."""
        for _ in range(3):
            self.detach()
            self.attach()
            if self.live is not None:
                self.take()
                if self.cursor == self.last:
                    break
        assert self.cursor == self.last
        if not self.gaps:
            assert self.received == list(range(1, self.last + 1))
            assert self.stream.log.handed_out == self.last


STEPS: dict[str, Callable[[Model], None]] = {
    "append": Model.append,
    "attach": Model.attach,
    "take": Model.take,
    "lose": Model.lose,
    "lose half": Model.lose_half,
    "detach": Model.detach,
    "evict": Model.evict,
    "close": Model.close,
}


def _run(model: Model, steps: tuple[str, ...]) -> None:
    for step in steps:
        STEPS[step](model)
        model.wake_stale()
    model.finish()


@pytest.mark.parametrize("room", [1, 2, 100])
def test_every_order_of_steps_keeps_the_numbers_together(room: int) -> None:
    for steps in itertools.product(STEPS, repeat=sized(5, 7)):
        _run(Model(room), steps)


def test_random_orders_of_steps_keep_the_numbers_together() -> None:
    draws = seeded("steps")
    names = list(STEPS)
    weights = [6, 3, 4, 1, 1, 1, 0.2, 0.05]
    for _ in range(10_000):
        model = Model(draws.choice([1, 2, 5, 100]))
        _run(model, tuple(draws.choices(names, weights, k=draws.randrange(1, 60))))


def test_without_eviction_no_gap_is_ever_told() -> None:
    draws = seeded("no gaps")
    names = [name for name in STEPS if name != "evict"]
    for _ in range(2_000):
        model = Model(100)
        _run(model, tuple(draws.choices(names, k=draws.randrange(1, 60))))
        assert model.gaps == 0


# With tasks, wake-ups and cancellation as they are.


async def _write(book: StreamBook, stream: Stream, count: int, draws: random.Random) -> None:
    for number in range(1, count + 1):
        stream.append(jsonrpc.notification("n", {"n": number}))
        await stream.wait_for_room()
        if draws.random() < 0.3:
            await asyncio.sleep(0)
    book.finish(stream)


class Listener:
    """A client that reads over connections of random length, loses random tails, and leaves old ones half-open."""

    def __init__(self, book: StreamBook, stream: Stream, draws: random.Random) -> None:
        self.book = book
        self.stream = stream
        self.draws = draws
        self.received: list[int] = []
        self.last_id: bytes | None = None
        self.half_open: list[asyncio.Task[int]] = []

    async def listen(self, count: int) -> None:
        reader: Reader | None = self.stream.read()
        while reader is not None and await self._one_connection(reader, count):
            assert self.last_id is not None
            cursor = self.book.cursor(self.last_id)
            assert cursor is not None
            reader = self.book.resume(cursor)
        for drained in await asyncio.gather(*self.half_open):
            assert drained == 0, "a connection that was replaced was given events"

    async def _one_connection(self, reader: Reader, count: int) -> bool:
        """Whether the client has to come back."""
        draws = self.draws
        async for piece in reader:
            batch = events_of(piece)
            # Who does not even get the first event has nothing to resume with.
            keeps = len(batch) if draws.random() < 0.6 else draws.randint(self.last_id is None, len(batch))
            for event in batch[:keeps]:
                self._take(event)
            if keeps < len(batch) or draws.random() < 0.2:
                await self._leave(reader)
                return True
            if draws.random() < 0.3:
                await asyncio.sleep(0)
        assert self.received[-1:] == [count]
        return False

    def _take(self, event: Event) -> None:
        self.last_id, data = event
        if data is not None:
            assert _number(data) == len(self.received) + 1
            self.received.append(len(self.received) + 1)

    async def _leave(self, reader: Reader) -> None:
        how = self.draws.randrange(3)
        if how == 0:
            await reader.aclose()
        elif how == 1:
            # Closed late, by a proxy that notices after the client is back.
            asyncio.get_running_loop().call_soon(asyncio.ensure_future, reader.aclose())
        else:
            self.half_open.append(asyncio.ensure_future(_drain(reader, self.stream)))


async def _drain(reader: Reader, stream: Stream) -> int:
    """Reads what a replaced connection is given once another has taken over."""
    given = 0
    async for piece in reader:
        given += sum(data is not None for data in piece.data)
    return given


async def test_random_runs_with_tasks_deliver_each_event_once() -> None:
    draws = seeded("tasks")
    for _ in range(10_000):
        count = draws.randrange(1, 12)
        room = draws.choice([2, 3, 100])
        book = StreamBook(
            "epoch",
            LogLimits(bytes=1 << 40),
            Room(1 << 30),
            unkept(),
            lambda: 0.0,
            primed=True,
            is_current=lambda _: True,
        )
        stream = book.new(1)
        # The log keeps at least this many of those that were handed out, so what was lost is still there.
        stream.log._budget = Room(room + 12)  # pyright: ignore[reportPrivateUsage]
        listener = Listener(book, stream, draws)
        async with asyncio.timeout(10):
            await asyncio.gather(_write(book, stream, count, draws), listener.listen(count))
        assert listener.received == list(range(1, count + 1))

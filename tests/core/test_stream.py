from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from shadowcat.core.stream import EVENT_OVERHEAD_BYTES, Budget, EventId, Gap, StreamLog

EVENT = 10 + EVENT_OVERHEAD_BYTES


def log_of(count: int, budget: Budget | None = None) -> StreamLog:
    log = StreamLog(budget or Budget(1_000_000))
    for number in range(1, count + 1):
        assert log.append(b"%010d" % number) == number
    return log


def data(log: StreamLog, seq: int) -> list[int]:
    return [int(data) for data, _ in log.after(seq)]


epochs = st.text("ABCxyz019_-", min_size=1, max_size=32)
small = st.integers(0, 10**15 - 1)


@given(epochs, small, small)
def test_an_event_id_round_trips(epoch: str, stream: int, seq: int) -> None:
    id = EventId(epoch, stream, seq)
    assert EventId.decode(id.encode()) == id


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"a",
        b"a.1",
        b"a.1.",
        b".1.1",
        b"a.1.1.1",
        b"a.-1.1",
        b"a.1.x",
        b"a.1.1\n",
        b" a.1.1",
        b"a." + b"1" * 16 + b".1",
        b"a" * 33 + b".1.1",
        "a.¹.1".encode(),
        b"a.1.+1",
    ],
)
def test_no_event_id(text: bytes) -> None:
    assert EventId.decode(text) is None


@given(st.binary(max_size=40))
def test_any_bytes_are_an_id_or_none(text: bytes) -> None:
    found = EventId.decode(text)
    assert found is None or EventId.decode(found.encode()) == found


def test_what_follows_a_number() -> None:
    log = log_of(5)
    for seq in range(6):
        assert data(log, seq) == list(range(seq + 1, 6))


@pytest.mark.parametrize("seq", [6, 7, 10**9])
def test_the_future_is_a_gap(seq: int) -> None:
    with pytest.raises(Gap):
        log_of(5).after(seq)


def test_a_log_that_goes_on_from_an_earlier_life() -> None:
    log = StreamLog(Budget(1_000_000), first_seq=8)
    assert log.after(7) == []
    with pytest.raises(Gap):
        log.after(6)
    assert log.append(b"8") == 8
    assert data(log, 7) == [8]


def test_what_was_handed_out_makes_room() -> None:
    budget = Budget(3 * EVENT)
    log = log_of(3, budget)
    assert log.must_wait
    assert log.hand_out(log.last_seq, 2 * EVENT) == [b"%010d" % 1, b"%010d" % 2]
    assert not log.must_wait
    log.append(b"%010d" % 4)
    assert data(log, 1) == [2, 3, 4]
    with pytest.raises(Gap):
        log.after(0)
    log.append(b"%010d" % 5)
    assert log.must_wait
    assert data(log, 2) == [3, 4, 5]


def test_what_was_handed_out_lets_nothing_on_top_of_what_is_too_much_without_it() -> None:
    budget = Budget(3 * EVENT)
    log = StreamLog(budget)
    log.extend([b"%010d" % number for number in range(6)])
    assert log.hand_out(log.last_seq, EVENT)
    assert log.must_wait
    assert log.hand_out(log.last_seq, 3 * EVENT)
    assert not log.must_wait
    log.extend([b"%010d" % number for number in range(6)])
    assert budget.used == 8 * EVENT
    assert log.must_wait


def test_a_cleared_log_holds_nothing_and_vouches_for_nothing() -> None:
    budget = Budget(1_000_000)
    log = log_of(3, budget)
    log.clear()
    assert (budget.used, len(log)) == (0, 0)
    assert log.after(3) == []
    with pytest.raises(Gap):
        log.after(2)


def test_who_holds_little_goes_on_when_others_hoard() -> None:
    total = Budget(90)
    hoarder, modest = Budget(80, total), Budget(80, total)
    hoarder.charge(59)
    assert not hoarder.is_spent
    hoarder.charge(1)
    assert hoarder.is_spent
    assert not modest.is_spent
    modest.charge(14)
    assert not modest.is_spent
    modest.charge(1)
    assert modest.is_spent
    hoarder.leave()
    assert total.used == 15
    assert not modest.is_spent


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40)), max_size=300))
def test_together_they_hold_no_more_than_the_whole(charges: list[tuple[int, int]]) -> None:
    """But for what each was given last: who is not spent may take one event, as large as it is."""
    total = Budget(900)
    sharers = [Budget(500, total) for _ in range(10)]
    for index, amount in charges:
        if not sharers[index].is_spent:
            sharers[index].charge(amount)
    assert total.used == sum(sharer.used for sharer in sharers)
    assert total.used <= 900 + 10 * 40


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 80, 99])
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("held_back", [0, 1, 40])
def test_what_is_handed_out_of_much_is_as_much_as_asked_for_and_not_an_event_more(
    count: int, over: int, held_back: int
) -> None:
    log = log_of(100)
    for max_bytes in (EVENT * count + over, EVENT):
        waiting = [data for data, _ in log.after(log.handed_out)][: 100 - held_back - log.handed_out]
        given = log.hand_out(100 - held_back, max_bytes)
        assert given == waiting[: len(given)]
        assert cost(given[:-1]) < max_bytes
        assert given == waiting or cost(given) >= max_bytes


class Logging(RuleBasedStateMachine):
    """Against a list that never forgets, and the number of the oldest that may still be asked for."""

    @initialize(limit=st.integers(0, 6), last_seq=st.integers(0, 3))
    def begin(self, limit: int, last_seq: int) -> None:
        self.budget = Budget(limit * EVENT)
        self.log = StreamLog(self.budget, last_seq + 1)
        self.start = last_seq
        self.events: list[tuple[bytes, Any]] = []
        self.first = last_seq + 1

    @property
    def last(self) -> int:
        return self.start + len(self.events)

    @rule(
        events=st.lists(st.tuples(st.integers(0, 20), st.none() | st.integers(1, 3)), min_size=1, max_size=4)
    )
    def append(self, events: list[tuple[int, int | None]]) -> None:
        oldest_kept = self.log.handed_out + 1
        held = len(self.log)
        logged = [(b"x" * size, request) for size, request in events]
        if any(request is not None for _, request in logged):
            last = [self.log.append(data, request) for data, request in logged][-1]
        else:
            last = self.log.extend([data for data, _ in logged])
        assert last == self.last + len(logged)
        self.events += logged
        gone = held + len(logged) - len(self.log)
        self.first += gone
        # Only what a client was given may have gone.
        assert gone == 0 or self.first <= oldest_kept

    @rule(max_bytes=st.integers(1, 5 * EVENT), held_back=st.integers(0, 3))
    def hand_out(self, max_bytes: int, held_back: int) -> None:
        at = self.log.handed_out
        up_to = self.last - held_back
        if at < up_to and self.first > at + 1:
            with pytest.raises(Gap):
                self.log.hand_out(up_to, max_bytes)
            return
        waiting = [data for data, _ in self.events[at - self.start : max(0, up_to - self.start)]]
        given = self.log.hand_out(up_to, max_bytes)
        assert given == waiting[: len(given)]
        assert bool(given) is bool(waiting)
        assert self.log.handed_out == at + len(given)
        # As much as asked for, and not an event more.
        assert cost(given[:-1]) < max_bytes
        assert given == waiting or cost(given) >= max_bytes

    @rule(seq=st.integers(0, 30))
    def hand_out_again(self, seq: int) -> None:
        if seq > self.last or (seq < self.last and seq + 1 < self.first):
            with pytest.raises(Gap):
                self.log.hand_out_again(seq)
        else:
            self.log.hand_out_again(seq)
            assert self.log.handed_out == seq

    @rule()
    def clear(self) -> None:
        self.log.clear()
        self.first = self.last + 1

    @rule(seq=st.integers(0, 30))
    def ask(self, seq: int) -> None:
        if seq == self.last:
            assert self.log.after(seq) == []
        elif seq > self.last or seq + 1 < self.first:
            with pytest.raises(Gap):
                self.log.after(seq)
        else:
            assert self.log.after(seq) == self.events[seq - self.start :]

    @invariant()
    def is_charged_for_what_it_holds(self) -> None:
        held = self.events[self.first - self.start - 1 :]
        assert len(self.log) == len(held)
        assert self.budget.used == sum(len(data) + EVENT_OVERHEAD_BYTES for data, _ in held)
        assert self.log.last_seq == self.last
        ahead = [data for seq, (data, _) in enumerate(held, self.first) if seq > self.log.handed_out]
        assert self.log.must_wait is (
            len(held) > 0
            and self.budget.is_spent
            and (self.first > self.log.handed_out or cost(ahead) >= self.budget.limit)
        )


def cost(events: list[bytes]) -> int:
    return sum(len(data) + EVENT_OVERHEAD_BYTES for data in events)


TestLogging = Logging.TestCase

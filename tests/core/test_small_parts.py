"""Waiting, choosing, mapping, tracking: each a few lines, each with a way to get it wrong."""

from __future__ import annotations

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.backoff import Backoff
from shadowcat.core.balance import Doubts, RoundRobin
from shadowcat.core.idmap import IdMap
from shadowcat.core.track import MAX_REMEMBERED, EventTracker
from shadowcat.wire.sse import SseEvent, SseEvents

# Backoff.


def test_the_wait_doubles_up_to_its_cap() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.next_s(1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff.tries == 9
    backoff.succeeded()
    assert (backoff.tries, backoff.next_s(1.0)) == (0, 0.5)


@given(st.floats(0, 1), st.integers(0, 5_000))
def test_the_wait_stays_within_its_bounds(random: float, tries: int) -> None:
    backoff = Backoff(0.5, 30.0)
    for _ in range(tries):
        backoff.next_s(0.0)
    assert 0 <= backoff.next_s(random) <= 30.0


def test_the_jitter_is_over_the_whole_wait() -> None:
    assert Backoff(0.5).next_s(0.0) == 0.0
    assert Backoff(0.5).next_s(0.5) == 0.25


# Balance.


def test_each_has_its_turn() -> None:
    turns = RoundRobin("abc")
    assert [turns.order() for _ in range(4)] == [tuple("abc"), tuple("bca"), tuple("cab"), tuple("abc")]


@given(st.lists(st.integers(), min_size=1, max_size=5, unique=True), st.integers(1, 20))
def test_every_choice_is_offered_once(choices: list[int], rounds: int) -> None:
    turns = RoundRobin(choices)
    firsts = [turns.order() for _ in range(rounds * len(choices))]
    assert all(sorted(order) == sorted(choices) for order in firsts)
    assert all([order[0] for order in firsts].count(choice) == rounds for choice in choices)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="nothing"):
        RoundRobin([])


def test_a_choice_that_failed_is_tried_by_one_at_a_time() -> None:
    doubts = Doubts(retry_s=30.0)
    doubts.taken("a", 0.0)
    assert not doubts.about("a", 0.0)
    doubts.failed("a", 10.0)
    assert doubts.about("a", 39.9)
    assert not doubts.about("b", 39.9)
    assert not doubts.about("a", 40.0)
    doubts.taken("a", 40.0)
    assert doubts.about("a", 40.0)
    # Whoever took it went away, and never said what came of it.
    assert not doubts.about("a", 70.0)
    doubts.succeeded("a")
    doubts.taken("a", 71.0)
    assert not doubts.about("a", 71.0)


# The map of ids.


def test_both_sides_of_a_session() -> None:
    ids = IdMap()
    ids.bind("s", "a", "u")
    assert ids.upstream_side("s") == ("a", "u")
    assert ids.own_side("a", "u") == {"s"}
    assert ids.own_side("b", "u") == frozenset()
    ids.bind("s", "b", "v")
    assert ids.own_side("a", "u") == frozenset()
    assert ids.own_side("b", "v") == {"s"}
    ids.bind("s", "b", None)
    assert (ids.upstream_side("s"), len(ids)) == (None, 0)


names = st.sampled_from("ab")
operations = st.lists(
    st.tuples(st.sampled_from("wxyz"), st.none() | st.tuples(names, st.none() | st.sampled_from("uv"))),
    max_size=30,
)


@given(operations)
def test_the_map_against_a_dict(operations: list[tuple[str, tuple[str, str | None] | None]]) -> None:
    ids, model = IdMap(), dict[str, tuple[str, str]]()
    for session, target in operations:
        model.pop(session, None)
        if target is None:
            ids.unbind(session)
        else:
            upstream, upstream_id = target
            ids.bind(session, upstream, upstream_id)
            if upstream_id is not None:
                model[session] = (upstream, upstream_id)
        assert len(ids) == len(model)
        for name in "wxyz":
            assert ids.upstream_side(name) == model.get(name)
        for upstream in "ab":
            for upstream_id in "uv":
                expected = {s for s, key in model.items() if key == (upstream, upstream_id)}
                assert ids.own_side(upstream, upstream_id) == expected
    for session in list(model):
        ids.unbind(session)
    # Nothing stays behind: a map that only grows is a leak.
    assert not ids._own_side  # pyright: ignore[reportPrivateUsage]


# Which of an upstream's events were seen.


def new_of(tracker: EventTracker, *ids: bytes | None) -> list[bytes | None]:
    """Notes events that came together, in both forms that they come in; returns the ids of the new ones."""
    usual = [id for id in takewhile(lambda id: id is not None, ids) if id is not None]
    others = [SseEvent(b"{}", id=id) for id in ids[len(usual) :]]
    return [event.id for event in tracker.new_of(SseEvents(usual, [b"{}"] * len(usual), others)).each()]


def test_nothing_is_a_repeat_on_a_connection_that_never_broke() -> None:
    tracker = EventTracker()
    assert new_of(tracker, b"same", b"same", None) == [b"same", b"same", None]
    assert new_of(tracker, b"same") == [b"same"]
    assert new_of(tracker, None) == [None]
    assert tracker.last_id == b"same"


def test_the_last_id_is_the_one_that_came_last_in_whatever_form() -> None:
    tracker = EventTracker()
    new_of(tracker, b"1", b"2", None, b"3", None)
    assert tracker.last_id == b"3"
    new_of(tracker, b"4", None)
    assert tracker.last_id == b"4"


def test_a_replay_repeats() -> None:
    tracker = EventTracker()
    new_of(tracker, b"1", b"2", b"3")
    tracker.reconnected()
    assert new_of(tracker, b"2", b"3") == []
    assert tracker.last_id == b"3"
    assert new_of(tracker, b"3", None, b"4", b"5") == [None, b"4", b"5"]
    assert tracker.last_id == b"5"
    tracker.reconnected()
    assert new_of(tracker, b"4", b"5", b"6") == [b"6"]


def test_an_empty_id_forgets_where_to_resume() -> None:
    tracker = EventTracker()
    assert new_of(tracker, b"1", b"") == [b"1", b""]
    assert tracker.last_id is None


def test_what_is_remembered_is_bounded() -> None:
    tracker = EventTracker()
    new_of(tracker, *(b"%d" % number for number in range(MAX_REMEMBERED + 10)))
    tracker.reconnected()
    assert new_of(tracker, b"0", b"9", b"10", b"%d" % (MAX_REMEMBERED + 9)) == [b"0", b"9"]


@given(st.integers(0, 30), st.lists(st.integers(1, 8), max_size=8))
def test_each_event_once_whatever_is_replayed(total: int, overlaps: list[int]) -> None:
    """A server that replays the last few at each reconnect."""
    tracker = EventTracker()
    taken: list[int] = []
    at = 0
    for overlap in (*overlaps, 0):
        until = min(total, at + 5) if overlap else total
        start = max(0, at - overlap) if at else 0
        taken += [int(id or b"") for id in new_of(tracker, *(b"%d" % n for n in range(start, until)))]
        at = max(at, until)
        tracker.reconnected()
    assert taken == list(range(total))

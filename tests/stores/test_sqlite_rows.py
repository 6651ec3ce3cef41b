from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowcat.stores import sqlite_file
from shadowcat.stores.sqlite_rows import ROW_BYTES, ROW_EVENTS, packed, unpacked

SIZES = st.sampled_from([0, 1, 150, ROW_BYTES // 3, ROW_BYTES, 2 * ROW_BYTES])
EVENTS = st.binary(max_size=4) | st.builds(bytes.__mul__, st.sampled_from([b"x", b"\n"]), SIZES)


@given(st.lists(EVENTS, max_size=12) | st.lists(st.binary(max_size=2), max_size=3 * ROW_EVENTS))
def test_what_is_packed_comes_out_again(events: list[bytes]) -> None:
    rows = list(packed(events))
    assert [event for count, data in rows for event in unpacked(count, data)] == events
    for count, data in rows:
        assert 1 <= count <= ROW_EVENTS
        # As the store measures them in SQL, without looking into them.
        assert len(data) - count + 1 == sum(map(len, unpacked(count, data)))
        assert count == 1 or len(data) < ROW_BYTES + count


def test_what_came_together_is_one_row() -> None:
    assert list(packed([b"one", b"two", b"three"])) == [(3, b"one\ntwo\nthree")]
    assert list(packed([b"alone"])) == [(1, b"alone")]
    assert len(list(packed([b"event"] * ROW_EVENTS * 3))) == 3


def test_what_is_too_long_for_a_row_is_parted_evenly() -> None:
    """A row costs about the same whatever it has: one of a few events is not left beside one of many."""
    counts = [count for count, _ in packed([b"x" * 1_000] * ROW_EVENTS)]
    assert max(counts) < 2 * min(counts)
    assert len(counts) <= ROW_EVENTS * 1_000 // ROW_BYTES + 2


def test_what_is_held_already_is_left_out() -> None:
    assert list(packed([b"1", b"2", b"3"], 1)) == [(2, b"2\n3")]
    assert list(packed([b"1", b"2"], 2)) == []


def test_an_event_with_a_line_end_has_its_own_row() -> None:
    assert list(packed([b"1", b"2", b"3\n", b"4"])) == [(2, b"1\n2"), (1, b"3\n"), (1, b"4")]


@pytest.mark.parametrize(
    ("count", "data"), [(0, b""), (2, b"one"), (3, b"one\ntwo"), (2, b"1\n2\n3"), (-1, b"1")]
)
def test_a_row_that_is_not_what_it_says_is_broken(count: int, data: bytes) -> None:
    with pytest.raises(sqlite3.DatabaseError) as caught:
        unpacked(count, data)
    assert sqlite_file.is_corrupt(caught.value)

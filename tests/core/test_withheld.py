from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.withheld import NOT_STORED, Withheld


def test_of_a_stream_that_is_not_stored_not_even_the_stream_is_told() -> None:
    withheld = Withheld(is_strict=False)
    assert withheld.released(0) == NOT_STORED
    assert withheld.released(5) == NOT_STORED
    withheld.stored_to = 0
    assert withheld.released(5) == 5


def test_what_comes_before_one_that_is_held_back_is_not() -> None:
    withheld = Withheld(is_strict=False, stored_to=0)
    withheld.hold_back(4, 4)
    assert [withheld.released(last) for last in (3, 4, 9)] == [3, 3, 3]
    withheld.stored_to = 4
    assert withheld.released(9) == 9


def test_a_second_one_is_waited_for_as_well() -> None:
    withheld = Withheld(is_strict=False, stored_to=0)
    withheld.hold_back(2, 3)
    withheld.hold_back(6, 6)
    assert withheld.released(6) == 1
    withheld.stored_to = 3
    assert withheld.released(6) == 3
    withheld.stored_to = 6
    assert withheld.released(6) == 6


def test_a_store_that_lost_everything_gets_it_again_first() -> None:
    withheld = Withheld(is_strict=False, stored_to=7)
    withheld.stored_to = NOT_STORED
    assert withheld.released(7) == NOT_STORED


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=30))
def test_nothing_is_told_before_what_is_held_back_is_stored(steps: list[tuple[bool, int]]) -> None:
    """Against a list of which events may not go out."""
    withheld = Withheld(is_strict=False, stored_to=0)
    held_back: list[int] = []
    for last, (is_held_back, newly_stored) in enumerate(steps, 1):
        if is_held_back:
            held_back.append(last)
            withheld.hold_back(last, last)
        withheld.stored_to = min(last, withheld.stored_to + newly_stored)
        missing = [seq for seq in held_back if seq > withheld.stored_to]
        released = withheld.released(last)
        if missing:
            # It may be more careful than it must, but goes no further, and what is stored is told.
            assert withheld.stored_to <= released < missing[0]
        else:
            assert released == last

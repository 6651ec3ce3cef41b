from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shadowcat.core.place import Place


def test_what_follows_the_place_comes_again() -> None:
    place = Place(b"c3", 3)
    place.go_on(last_seq=7)
    assert [place.repeated(3), place.repeated(3), place.repeated(3)] == [3, 1, 0]


def test_the_proxys_own_words_do_not_come_again() -> None:
    place = Place(b"c3", 3)
    place.own_after += 1
    place.go_on(last_seq=5)
    assert place.repeated(9) == 1


def test_of_what_came_by_itself_nothing_is_a_repeat() -> None:
    assert Place(b"c3", 3).repeated(1) == 0


def test_what_was_said_by_the_proxy_before_the_place_does_not_count() -> None:
    place = Place(b"c3", 3)
    place.own_after += 1
    assert place.move(b"c5", 5)
    assert not place.move(b"c5", 5)
    place.go_on(last_seq=6)
    assert place.repeated(2) == 1


@given(st.lists(st.sampled_from(["said", "own", "marked"]), max_size=30), st.data())
def test_each_event_is_in_the_log_once(steps: list[str], draw: st.DataObject) -> None:
    """A crash at any time, and an upstream that says again what follows the cursor, in any pieces."""
    place = Place(b"0", 0)
    log: list[str] = []
    said = 0
    for step in steps:
        if step == "said":
            said += 1
            log.append(str(said))
        elif step == "own":
            log.append("own")
            place.own_after += 1
        else:
            place.move(b"%d" % said, len(log))
    place.go_on(len(log))
    again = [str(number) for number in range(int(place.cursor) + 1, said + 3)]
    while again:
        count = draw.draw(st.integers(1, len(again)))
        log += again[place.repeated(count) : count]
        del again[:count]
    assert [entry for entry in log if entry != "own"] == [str(number) for number in range(1, said + 3)]

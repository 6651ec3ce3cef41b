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


def test_a_place_among_the_repeats_is_before_what_is_yet_to_be_repeated() -> None:
    place = Place(b"c5", 5)
    place.go_on(last_seq=10)
    assert place.repeated(1) == 1
    assert place.move(b"c6", 10)
    assert not place.move(b"c6", 10)
    assert (place.cursor, place.seq) == (b"c6", 6)
    after_another_crash = Place(place.cursor, place.seq, place.own_after)
    after_another_crash.go_on(last_seq=10)
    assert after_another_crash.repeated(9) == 4


def test_a_place_named_again_before_anything_was_repeated_is_where_it_was() -> None:
    place = Place(b"c5", 5)
    place.go_on(last_seq=10)
    assert not place.move(b"c5", 10)
    assert place.seq == 5


def test_the_proxys_own_words_among_the_repeats_do_not_come_again() -> None:
    place = Place(b"c5", 5, own_after=1)
    place.go_on(last_seq=8)
    assert place.repeated(1) == 1
    place.own_after += 1
    assert place.move(b"c6", 9)
    place.own_after += 1
    place.go_on(last_seq=10)
    assert place.repeated(9) == 1


STEPS = st.sampled_from(["come", "come", "come", "own", "marked", "stored", "broken", "crash"])


@given(st.lists(st.tuples(STEPS, st.integers(1, 4)), max_size=60))
def test_each_event_is_in_the_log_once(steps: list[tuple[str, int]]) -> None:
    """Crashes and broken connections at any time, and an upstream that says again what follows the cursor."""
    place, log, said = Place(b"0", 0), list[int](), 0
    own = -1
    stored = (b"0", 0, 0), list[int]()
    for step, count in steps:
        if step == "come":
            log += range(said + 1 + place.repeated(count), said + 1 + count)
            said += count
        elif step == "own":
            log.append(own)
            place.own_after += 1
        elif step == "marked":
            place.move(b"%d" % said, len(log))
        elif step == "stored":
            stored = (place.cursor, place.seq, place.own_after), log.copy()
        else:
            if step == "crash":
                place, log = Place(*stored[0]), stored[1].copy()
            place.go_on(len(log))
            said = int(place.cursor)
        from_upstream = [entry for entry in log if entry != own]
        assert from_upstream == list(range(1, len(from_upstream) + 1))
        assert len(from_upstream) >= said

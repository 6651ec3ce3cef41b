from __future__ import annotations

import time

import pytest

from shadowcat.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_is_the_system() -> None:
    clock: Clock = SystemClock()
    before = time.monotonic(), time.time()
    monotonic, wall = clock.monotonic(), clock.wall()
    assert before[0] <= monotonic <= time.monotonic()
    assert before[1] - 60 <= wall <= time.time() + 60, "the wall may be set while we look"


def test_a_manual_clock_stands_still_until_moved() -> None:
    clock: Clock = ManualClock(monotonic=5.0, wall=50.0)
    assert (clock.monotonic(), clock.wall()) == (5.0, 50.0)
    assert (clock.monotonic(), clock.wall()) == (5.0, 50.0)


def test_advancing_moves_both_sides() -> None:
    clock = ManualClock(monotonic=5.0, wall=50.0)
    clock.advance(1.5)
    assert (clock.monotonic(), clock.wall()) == (6.5, 51.5)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_jump_of_the_wall_is_not_seen_by_the_monotonic_side(seconds: float) -> None:
    clock = ManualClock(monotonic=5.0, wall=50.0)
    clock.jump_wall(seconds)
    assert (clock.monotonic(), clock.wall()) == (5.0, 50.0 + seconds)


def test_monotonic_time_does_not_go_back() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-0.1)

"""What is told is taken once, in order and within bounds, whoever comes first."""

from __future__ import annotations

from shadowcat.plugins.recording.gathered import Gathered


class Wakes:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def tell(gathered: Gathered, data: bytes) -> bool:
    """As the recorder does."""
    if len(gathered.buffer) > gathered.limit and not gathered.has_room():
        return False
    gathered.buffer += data
    return True


def taken(gathered: Gathered) -> bytes:
    return b"".join([bytes(piece) for piece in gathered.take()])


def test_what_is_told_is_taken_once_and_in_order() -> None:
    gathered = Gathered(1_000_000, Wakes())
    for data in (b"a", b"b"):
        tell(gathered, data)
    assert gathered.held_bytes == 2
    assert taken(gathered) == b"ab"
    tell(gathered, b"c")
    assert taken(gathered) == b"c"
    assert taken(gathered) == b""
    assert (gathered.held_bytes, gathered.told_bytes) == (0, 3)


def test_who_takes_is_woken_once_for_what_gathers() -> None:
    wakes = Wakes()
    gathered = Gathered(1_000_000, wakes)
    for _ in range(10):
        tell(gathered, b"x")
    assert wakes.count == 1
    taken(gathered)
    tell(gathered, b"x")
    assert wakes.count == 2


def test_what_is_told_while_a_piece_is_in_hand_waits_for_the_next_time() -> None:
    wakes = Wakes()
    gathered = Gathered(400_000, wakes)
    big = bytes(150_000)
    tell(gathered, big)
    pieces = gathered.take()
    assert next(pieces) == big
    tell(gathered, b"a")
    tell(gathered, big)
    tell(gathered, b"b")
    assert gathered.held_bytes == 2 * len(big) + 2
    assert list(pieces) == []
    assert taken(gathered) == b"a" + big + b"b"
    assert (wakes.count, gathered.held_bytes) == (2, 0)


def test_what_is_put_aside_while_another_is_in_hand_keeps_its_place() -> None:
    gathered = Gathered(400_000, Wakes())
    first, second = b"a" * 110_000, b"b" * 110_000
    tell(gathered, first)
    tell(gathered, second[:1])
    pieces = gathered.take()
    assert next(pieces) == first
    tell(gathered, second[1:])
    tell(gathered, b"c")
    assert b"".join([bytes(piece) for piece in pieces]) == second + b"c"
    assert (gathered.held_bytes, taken(gathered)) == (0, b"")


def test_what_there_is_no_room_for_is_counted() -> None:
    gathered = Gathered(10_000, Wakes())
    told = [tell(gathered, bytes(3_000)) for _ in range(20)]
    assert told == [True] * 4 + [False] * 16
    assert gathered.left_out == 16
    assert len(taken(gathered)) == 12_000
    assert tell(gathered, b"x")


def test_nothing_that_follows_a_gap_is_in_a_piece_with_what_went_before() -> None:
    gathered = Gathered(10_000, Wakes())
    tell(gathered, b"a" * 10_000)
    assert not tell(gathered, b"b")
    pieces = gathered.take()
    assert next(pieces) == b"a" * 10_000
    assert not tell(gathered, b"b")
    assert list(pieces) == []
    assert tell(gathered, b"c")
    assert taken(gathered) == b"c"


def test_what_cannot_be_encoded_is_counted_and_is_a_gap() -> None:
    gathered = Gathered(10_000, Wakes())
    tell(gathered, b"a")
    gathered.leave_out()
    tell(gathered, b"b")
    assert [bytes(piece) for piece in gathered.take()] == [b"a", b"b"]
    assert gathered.left_out == 1

"""Compares two tapes: what only one of them has, and what differs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from shadowcat.core.likeness import Likeness
from shadowcat.replay.told import compared, line, named
from shadowcat.replay.transcript import Item
from shadowcat.wire import tape

_WORDS = "first", "second"
_WINDOW = 500
"""How far apart the same may stand in the two: calls that ran at once end in another order each time."""


def differences(ours: Iterator[Item], theirs: Iterator[Item], likeness: Likeness) -> Iterator[str]:
    """A line for each."""
    for a, b in _paired(ours, theirs):
        if a is None and b is not None:
            yield f"{_where(b)}: only in the second"
        elif b is None and a is not None:
            yield f"{_where(a)}: only in the first"
        elif a is not None and b is not None:
            for told in _between(a, b, likeness):
                yield f"{_where(a)}{told}"


def _between(a: Item, b: Item, likeness: Likeness) -> Iterator[str]:
    for found in likeness.differences(a.message, b.message):
        yield line(found, _WORDS)
    yield from compared(
        likeness,
        [frame.parsed() for frame in a.answers],
        [frame.parsed() for frame in b.answers],
        words=_WORDS,
    )


def _paired(ours: Iterator[Item], theirs: Iterator[Item]) -> Iterator[tuple[Item | None, Item | None]]:
    left, right = deque(islice(ours, _WINDOW)), deque(islice(theirs, _WINDOW))
    while left or right:
        if left:
            a = left.popleft()
            left.extend(islice(ours, 1))
            b = _taken(right, a, left)
            yield a, b
            if b is None and len(right) < _WINDOW:
                continue
        else:
            yield None, right.popleft()
        right.extend(islice(theirs, _WINDOW - len(right)))
        while len(right) >= _WINDOW and right[0].key not in {item.key for item in left}:
            yield None, right.popleft()
            right.extend(islice(theirs, 1))


def _taken(among: deque[Item], wanted: Item, others: deque[Item]) -> Item | None:
    """The same one; or else one of the same method in that session that nobody else is the same as."""
    for index, item in enumerate(among):
        if item.key == wanted.key:
            del among[index]
            return item
    keys = {item.key for item in others}
    for index, item in enumerate(among):
        if (item.session, item.message.method, item.frame.direction, item.message.kind) == (
            wanted.session,
            wanted.message.method,
            wanted.frame.direction,
            wanted.message.kind,
        ) and item.key not in keys:
            del among[index]
            return item
    return None


def _where(item: Item) -> str:
    session = f"session {item.session} " if item.session else ""
    who = "" if item.frame.direction == tape.TO_SERVER else "server's "
    return f"{session}{who}{named(item.message)}"

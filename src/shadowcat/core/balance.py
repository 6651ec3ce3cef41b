"""Which upstream a new session, or one whose upstream is gone, goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class RoundRobin(Generic[T]):
    """Hands out each choice in turn."""

    def __init__(self, choices: Sequence[T]) -> None:
        if not choices:
            raise ValueError("nothing to choose from")
        self._choices = tuple(choices)
        self._next = 0

    def order(self) -> tuple[T, ...]:
        """Every choice once, the one whose turn it is first: the rest is for when that one does not answer."""
        start = self._next
        self._next = (start + 1) % len(self._choices)
        return self._choices[start:] + self._choices[:start]

"""Which upstream a new session, or one whose upstream is gone, goes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

RETRY_S = 30.0
"""Not less than the one that tries may have to wait: two at a time would not learn more."""


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


class Doubts:
    """Choices, by name, that are passed over for a while because of what they cost who took them."""

    def __init__(self, retry_s: float = RETRY_S) -> None:
        self._retry_s = retry_s
        self._until: dict[str, float] = {}

    def about(self, name: str, now: float) -> bool:
        return self._until.get(name, now) > now

    def taken(self, name: str, now: float) -> None:
        """Whoever takes one that failed tries it for all others: they pass it over for as long again."""
        if name in self._until:
            self._until[name] = now + self._retry_s

    def failed(self, name: str, now: float) -> None:
        self._until[name] = now + self._retry_s

    def succeeded(self, name: str) -> None:
        self._until.pop(name, None)

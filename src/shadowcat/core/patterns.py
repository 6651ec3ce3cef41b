"""Names with `*` for any text, and which of two such patterns is more specific."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Rank = tuple[int, int]
"""Orders patterns by how much they say: nothing, then those with `*` by the characters beside it, then whole names."""

NOTHING: Rank = (0, 0)


class Pattern(NamedTuple):
    text: str

    @property
    def is_exact(self) -> bool:
        return "*" not in self.text

    @property
    def rank(self) -> Rank:
        return (2, 0) if self.is_exact else (1, len(self.text) - self.text.count("*"))

    def matches(self, name: str) -> bool:
        """Reads the name once for each piece between the stars, whatever both hold."""
        first, *pieces = self.text.split("*")
        if not pieces:
            return name == first
        last = pieces.pop()
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        at, end = len(first), len(name) - len(last)
        for piece in pieces:
            found = name.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def covers(self, other: Pattern) -> bool:
        """Whether it matches all that the other one does, as far as that is plain to see."""
        return self == other or self.text == "*" or (other.is_exact and self.matches(other.text))


class Patterns(tuple[Pattern, ...]):
    """Alternatives; without any, whatever there is will do."""

    __slots__ = ()

    @classmethod
    def of(cls, texts: str | Sequence[str] | None) -> Patterns:
        if texts is None:
            return cls()
        return cls(map(Pattern, [texts] if isinstance(texts, str) else texts))

    @property
    def rank(self) -> Rank:
        """That of the one that says least."""
        return min((pattern.rank for pattern in self), default=NOTHING)

    def match(self, name: str) -> bool:
        return not self or any(pattern.matches(name) for pattern in self)

    def cover(self, others: Patterns) -> bool:
        if not self:
            return True
        return bool(others) and all(any(one.covers(other) for one in self) for other in others)


ANY = Patterns()

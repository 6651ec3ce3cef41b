"""How long to wait before trying again: exponential, with full jitter, within bounds."""

from __future__ import annotations


class Backoff:
    """Full jitter: many who lost the same server come back spread over the whole wait, not at its end."""

    __slots__ = ("_cap_s", "_first_s", "_tries")

    def __init__(self, first_s: float = 0.5, cap_s: float = 30.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._tries = 0

    @property
    def tries(self) -> int:
        return self._tries

    def next_s(self, random: float) -> float:
        """`random` is in 0 … 1."""
        # Beyond 2^20 the cap holds anyway, and a float power must not overflow.
        ceiling = min(self._cap_s, self._first_s * 2.0 ** min(self._tries, 20))
        self._tries += 1
        return ceiling * random

    def succeeded(self) -> None:
        self._tries = 0

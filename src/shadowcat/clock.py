"""Time as an argument: parts that need a clock are handed one, so that tests move it by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never jump: for deadlines, idle times and lifetimes."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch: only for what a person or another machine reads."""
        ...


class SystemClock:
    # Not wrapped: each call asks once or twice.
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class ManualClock:
    """A clock that moves when told to; the wall may jump without the monotonic side noticing, as real ones do."""

    def __init__(self, *, monotonic: float = 1_000.0, wall: float = 1_750_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        return self._monotonic

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError("monotonic time does not go back")
        self._monotonic += seconds
        self._wall += seconds

    def jump_wall(self, seconds: float) -> None:
        self._wall += seconds

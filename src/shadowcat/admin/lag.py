"""How late the event loop is. Whatever holds it up holds up everybody."""

from __future__ import annotations

import asyncio
from collections import deque

INTERVAL_S = 0.5
WINDOW_S = 15.0


class LoopLag:
    """Looks twice a second, from `start` to `close`."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=int(WINDOW_S / INTERVAL_S))
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst_s(self) -> float:
        """In the last seconds."""
        return max(self._lags, default=0.0)

    def start(self) -> None:
        self._look_again(asyncio.get_running_loop())

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + INTERVAL_S
        self._timer = loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lags.append(max(0.0, loop.time() - self._due))
        self._look_again(loop)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

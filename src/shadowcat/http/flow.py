"""Flow control and deadlines that both sides of the engine share."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any


class WriteGate:
    """Closed while the transport holds more unsent bytes than it likes; producers wait before it."""

    __slots__ = ("_loop", "_waiter", "is_closed", "stalled_bytes", "stalled_since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.is_closed = False
        self._waiter: asyncio.Future[None] | None = None
        self.stalled_bytes = 0
        self.stalled_since = 0.0

    def close(self, unsent: int) -> None:
        self.is_closed = True
        self.stalled_bytes = unsent
        self.stalled_since = self._loop.time()

    def open(self) -> None:
        self.is_closed = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def has_stalled(self, unsent: int, now: float, limit_s: float) -> bool:
        """Whether the peer has accepted nothing for `limit_s`; call it now and then while the gate is closed."""
        if not self.is_closed:
            return False
        if unsent != self.stalled_bytes:
            self.stalled_bytes = unsent
            self.stalled_since = now
        return now - self.stalled_since >= limit_s

    async def wait_open(self) -> None:
        while self.is_closed:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None


class Sweeper:
    """Calls `sweep` with the loop's time every `interval_s`.

    One timer for all connections instead of one or more each: since when something is waited for is then all that the
    request path has to note. Deadlines are late by one interval at most.
    """

    def __init__(self, sweep: Callable[[float], None], interval_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._sweep = sweep
        self._interval_s = interval_s
        self._timer = self._loop.call_later(interval_s, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval_s, self._tick)
        self._sweep(self._loop.time())

    def close(self) -> None:
        self._timer.cancel()


def interval_for(*deadlines_s: float | None) -> float:
    """A sweep interval fine enough for these deadlines: a tenth of the shortest, within 10 ms and 1 s."""
    shortest = min((s for s in deadlines_s if s is not None), default=10.0)
    return min(1.0, max(0.01, shortest / 10))


def has_arrived(transport: asyncio.BaseTransport) -> bool:
    """Whether something lies in the socket, bytes or the end, of which asyncio has not told us yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


def notice_vanished(sock: Any, within_s: float, *, ask: bool = False) -> None:
    """Breaks a connection whose other machine confirms nothing: left alone a system tries for a quarter of an hour.

    `ask` also where nothing was sent that it could confirm.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT") or sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(within_s * 1000))
    if ask:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(within_s / 2)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(within_s / 6)))

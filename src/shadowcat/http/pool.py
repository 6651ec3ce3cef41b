"""Who gets which connection: decisions only, no I/O.

One `Pool` per origin. A slot is a connection that is open, opening or in use; `limit` bounds them. Whoever finds
no slot waits in line and is handed what becomes free: a connection, or the right to open one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

C = TypeVar("C")
W = TypeVar("W")


class Claim(Enum):
    OPEN = "open a new connection"
    WAIT = "wait in line"
    FULL = "the line is full"


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    idle: int
    taken: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Grant(Generic[C, W]):
    """What a waiter gets: this connection, or the right to open one."""

    waiter: W
    connection: C | None


class Pool(Generic[C, W]):
    def __init__(self, limit: int, max_waiting: int, max_idle: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._max_idle = max_idle
        self._idle: deque[tuple[C, float]] = deque()
        self._taken = 0
        self._waiting: deque[W] = deque()

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(len(self._idle), self._taken, len(self._waiting))

    @property
    def is_empty(self) -> bool:
        return not (self._idle or self._taken or self._waiting)

    def claim(self) -> C | Claim:
        idle = self.take_idle()
        if idle is not None:
            return idle
        if self._taken < self._limit:
            self._taken += 1
            return Claim.OPEN
        return Claim.WAIT if len(self._waiting) < self._max_waiting else Claim.FULL

    def take_idle(self) -> C | None:
        """The connection used last: it is the least likely to have been closed by the other end."""
        if not self._idle:
            return None
        self._taken += 1
        return self._idle.pop()[0]

    def wait(self, waiter: W) -> None:
        self._waiting.append(waiter)

    def leave(self, waiter: W) -> None:
        """A waiter gave up before it was granted anything."""
        self._waiting.remove(waiter)

    def give_back(self, connection: C, expires: float) -> Grant[C, W] | C | None:
        """A taken connection can be used again. Returns a grant to carry out, or a connection to close."""
        if self._waiting:
            return Grant(self._waiting.popleft(), connection)
        self._taken -= 1
        self._idle.append((connection, expires))
        return self._idle.popleft()[0] if len(self._idle) > self._max_idle else None

    def drop(self) -> Grant[C, W] | None:
        """A taken slot is free: its connection is gone, or never came to be."""
        if self._waiting:
            return Grant(self._waiting.popleft(), None)
        self._taken -= 1
        return None

    def forget_idle(self, connection: C) -> bool:
        """An idle connection closed. False when it was not idle."""
        for entry in self._idle:
            if entry[0] is connection:
                self._idle.remove(entry)
                return True
        return False

    def expired(self, now: float) -> list[C]:
        """Takes out the idle connections whose time has come; they are to be closed."""
        expired = [connection for connection, expires in self._idle if expires <= now]
        if expired:
            self._idle = deque(entry for entry in self._idle if entry[1] > now)
        return expired

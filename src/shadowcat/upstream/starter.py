"""Starts children of one command: not too many at once, and not again and again if it fails."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from shadowcat.core.breaker import Circuit, RestartPolicy
from shadowcat.errors import Fault, FaultKind

log = logging.getLogger("shadowcat.upstream")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StartLimits:
    at_once: int = 8
    queue_s: float = 30.0
    """How long a start waits for its turn."""
    backoff_s: float = 5.0
    """The longest wait after a failure that a caller sits out; a longer one is told to it at once."""
    steady_s: float = 10.0
    """A child that ends by itself before this age has failed to start."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)


class Starter:
    def __init__(self, name: str, limits: StartLimits) -> None:
        self._name = name
        self._limits = limits
        self._circuit = Circuit(limits.restart)
        self._slots = asyncio.Semaphore(limits.at_once)
        self._unproven = asyncio.Lock()

    @property
    def is_waiting(self) -> bool:
        """What keeps failing is left alone for a while."""
        return self._circuit.is_open

    async def run(self, start: Callable[[], Awaitable[T]]) -> T:
        """The outcome of `start`. Raises its `Fault`, or one that says that it was not tried."""
        try:
            async with asyncio.timeout(self._limits.queue_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_starting") from error
        try:
            if self._circuit.is_proven:
                return await self._attempt(start)
            return await self._attempt_alone(start)
        finally:
            self._slots.release()

    async def _attempt_alone(self, start: Callable[[], Awaitable[T]]) -> T:
        """While it is not known to work, one tries and the others wait for how that goes."""
        try:
            async with asyncio.timeout(self._limits.queue_s):
                await self._unproven.acquire()
        except TimeoutError as error:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_starting") from error
        try:
            if not self._circuit.is_proven:
                await self._sit_out()
                return await self._attempt(start)
        finally:
            self._unproven.release()
        return await self._attempt(start)

    async def _sit_out(self) -> None:
        wait_s = self._circuit.wait_s(_now())
        if wait_s > self._limits.backoff_s:
            told = "The upstream's command keeps failing; it is tried again later"
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="command_keeps_failing")
        await asyncio.sleep(wait_s)

    async def _attempt(self, start: Callable[[], Awaitable[T]]) -> T:
        try:
            started = await start()
        except Fault:
            self._failed()
            raise
        self._circuit.succeeded()
        return started

    def ended(self, age_s: float) -> None:
        """A child ended by itself."""
        if age_s < self._limits.steady_s and self._circuit.is_proven:
            self._failed()

    def _failed(self) -> None:
        was_open = self._circuit.is_open
        self._circuit.failed(_now(), random.random())
        if self._circuit.is_open and not was_open:
            log.error("upstream %s: its command keeps failing and is left alone for a while", self._name)


def _now() -> float:
    return asyncio.get_running_loop().time()

"""A node's proof of life, renewed while it runs. Without it, others may take over its sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.ports import SessionStore

log = logging.getLogger("shadowcat.cluster")

_RENEWALS = 3
"""So many fit into a lease: one that fails costs nothing."""
_SPARE_S = 2.0


class Lease:
    def __init__(self, store: SessionStore, node: str, lease_s: float, clock: Clock, tasks: Tasks) -> None:
        self._tasks = tasks
        self._store = store
        self._node = node
        self._lease_s = lease_s
        self._clock = clock
        self._held_until = clock.monotonic()
        self._is_settled = asyncio.Event()
        self._is_settled.set()
        self._settles_at = self._held_until

    @property
    def has_lapsed(self) -> bool:
        """Whether somebody else may have taken over what this node owns."""
        return self._clock.monotonic() >= self._held_until

    @property
    def is_settled(self) -> bool:
        """Whether the lapsed lease of another node means that it is gone.

        After an outage of the store it does not: nobody could renew, and each is given the time to.
        """
        return self._is_settled.is_set()

    async def settled(self) -> bool:
        """Waits for it, not much longer than a lease; whether it came true."""
        try:
            async with asyncio.timeout(self._lease_s + _SPARE_S):
                await self._is_settled.wait()
        except TimeoutError:
            return False
        return True

    async def keep(self, on_lapse: Callable[[], object]) -> None:
        """Renews it for as long as it is let. `on_lapse` hears that it had run out, before it holds again."""
        while True:
            if self.has_lapsed:
                on_lapse()
            await self._renew()
            await asyncio.sleep(self._lease_s / _RENEWALS)

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        # In a task of its own: a store that cancels what it waits for would end this one.
        renewing = self._tasks.spawn(self._asked(), "renew", awaited=True)
        await asyncio.wait((renewing,))
        because = "cancelled" if renewing.cancelled() else renewing.exception()
        if because is not None:
            log.warning("the lease of this node is not renewed: %s", because)
            self._is_settled.clear()
            self._settles_at = float("inf")
        else:
            self._settles_at = min(self._settles_at, self._clock.monotonic() + self._lease_s)
            if self._clock.monotonic() >= self._settles_at:
                self._is_settled.set()
            # From when it was asked for: the answer may have taken its time.
            self._held_until = asked_at + self._lease_s

    async def _asked(self) -> None:
        await self._store.renew(self._node, self._lease_s)

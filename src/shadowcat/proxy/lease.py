"""A node's word that it lives, renewed while it does: without it, others may take over what it owns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shadowcat.clock import Clock
from shadowcat.core.ports import SessionStore

log = logging.getLogger("shadowcat.cluster")

_RENEWALS = 3
"""So many fit into a lease: one that fails costs nothing."""


class Lease:
    def __init__(self, store: SessionStore, node: str, lease_s: float, clock: Clock) -> None:
        self._store = store
        self._node = node
        self._lease_s = lease_s
        self._clock = clock
        self._held_until = clock.monotonic()

    @property
    def has_lapsed(self) -> bool:
        """Whether somebody else may have taken over what this node owns."""
        return self._clock.monotonic() >= self._held_until

    async def keep(self, on_lapse: Callable[[], object]) -> None:
        """Renews it for as long as it is let. `on_lapse` hears when that came too late."""
        while True:
            had_lapsed = self.has_lapsed
            await self._renew()
            if had_lapsed and not self.has_lapsed:
                on_lapse()
            await asyncio.sleep(self._lease_s / _RENEWALS)

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        try:
            await self._store.renew(self._node, self._lease_s)
        except Exception as error:
            log.warning("the lease of this node is not renewed: %s", error)
        else:
            # From when it was asked for: the answer may have taken its time.
            self._held_until = asked_at + self._lease_s

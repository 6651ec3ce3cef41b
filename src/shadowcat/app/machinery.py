"""All of a proxy but its front: upstreams, sessions, and what messages pass, whichever way clients come."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from shadowcat.aio import Tasks
from shadowcat.app.cluster import Cluster
from shadowcat.clock import SystemClock
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.ports import SessionStore, TapSink
from shadowcat.http.client import Client
from shadowcat.proxy.news import What
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import Phase, SessionLimits, Shared
from shadowcat.proxy.upstreams import Roster
from shadowcat.proxy.writer import Durability

_STORE_S = 3.0
"""For a store to close."""


class Machinery:
    """Its upstreams, the client that reaches them and its store are closed with it."""

    def __init__(
        self,
        upstreams: Roster,
        client: Client,
        *,
        store: SessionStore | None = None,
        durability: Durability | None = None,
        cluster: Cluster | None = None,
        interceptors: Sequence[Interceptor] = (),
        taps: Sequence[TapSink] = (),
        limits: SessionLimits | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self.shared = Shared(
            upstreams=upstreams,
            store=store,
            pipeline=Pipeline(interceptors, taps),
            clock=SystemClock(),
            limits=limits or SessionLimits(),
            durability=durability or Durability(),
            node=cluster.node if cluster is not None else secrets.token_hex(8),
            lease_s=cluster.lease_s if cluster is not None else None,
        )
        self.relay = Relay(self.shared)

    async def check(self) -> None:
        """Raises `StoreUnusable` where it cannot begin."""
        if self._store is not None:
            await self._store.check()

    def start(self) -> None:
        self.relay.start()
        self.shared.phase = Phase.SERVING
        self.shared.news.tell(What.PROXY_SERVES)

    async def aclose(self) -> None:
        self.shared.phase = Phase.DRAINING
        await self.relay.aclose()
        await self.shared.upstreams.aclose()
        await self._client.aclose()
        if self._store is not None:
            await _closed(self._store)


async def _closed(store: SessionStore) -> None:
    """One that hangs keeps no process from its end: what it does not have by now it will not get."""
    tasks = Tasks("store")
    tasks.spawn(store.aclose(), "close")
    await tasks.finish(_STORE_S)

"""All of a proxy but its front: upstreams, sessions, interceptors and taps, for every client transport."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from shadowcat.aio import Deadline, Tasks
from shadowcat.app.cluster import Cluster
from shadowcat.clock import SystemClock
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.ports import SessionStore, TapSink
from shadowcat.http.client import Client
from shadowcat.proxy.news import What
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.registry import UPSTREAMS_S
from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import Phase, SessionLimits, Shared
from shadowcat.proxy.upstreams import Roster
from shadowcat.proxy.writer import Durability

CLOSE_S = 9.0
"""For all of it, where nobody has to be gone by a certain time."""
STORE_S = 3.0
"""For a store and the servers to close."""
_CANCEL_S = 0.5


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
        if isinstance(store, str):
            raise TypeError("store: a URL is no store; shadowcat.stores.sqlite.SqliteStore(path) is one")
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

    async def aclose(self, deadline: Deadline | None = None) -> None:
        """Where a store is slow and a server hangs, all of it together takes no longer than the deadline says."""
        deadline = deadline or Deadline(CLOSE_S)
        self.shared.phase = Phase.DRAINING
        await self.relay.aclose(deadline)
        closing = Tasks("closing")
        closing.spawn(self.shared.upstreams.aclose(), "upstreams")
        if self._store is not None:
            # One that hangs keeps no process from its end: what it does not have by now it will not get.
            closing.spawn(self._store.aclose(), "store")
        # Not less than a child takes that ignores SIGTERM, however late it is: none is to be left behind.
        await closing.finish(max(deadline.left(STORE_S), UPSTREAMS_S), grace_s=_CANCEL_S)
        await self._client.aclose()

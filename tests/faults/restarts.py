"""One proxy after another on the same port, each where the store says that the last one was."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from shadowcat.app.demo_crash import quiet_port
from shadowcat.clock import SystemClock
from shadowcat.core.ledger import StoredSession
from shadowcat.stores.urls import store_of
from tests.faults.child import ProxyChild, child


class Restarting:
    """The proxy before a server; what it is told stays the same from life to life."""

    def __init__(
        self, upstream: str, store: str, options: dict[str, Any], environment: dict[str, str]
    ) -> None:
        self.port = quiet_port()
        self.child: ProxyChild
        self.starts_s: list[float] = []
        """How long each life took to begin."""
        self._environment = environment
        self._store = store
        self._options = {"upstream": upstream, "store": store, "port": self.port, **options}
        self._life = AsyncExitStack()

    async def start(self) -> None:
        began = time.monotonic()
        options = json.dumps(self._options)
        self.child = await self._life.enter_async_context(
            child(ProxyChild, "-m", "tests.faults.runner", options, **self._environment)
        )
        self.child.port = self.port
        line = await self.child.line()
        assert line == f"serving http://127.0.0.1:{self.port}/mcp", line
        self.starts_s.append(time.monotonic() - began)

    async def kill(self) -> None:
        """SIGKILL: nothing is said and nothing is written any more."""
        await self.child.kill()
        await self._buried()

    async def end(self) -> float:
        """SIGTERM. Returns how long the end took."""
        began = time.monotonic()
        code = await self.child.end()
        took = time.monotonic() - began
        assert code == 0, self.child.errors()
        await self._buried()
        return took

    async def _buried(self) -> None:
        said = self.child.errors()
        assert "Traceback" not in said, said
        await self._life.aclose()

    async def restart(self) -> None:
        await self.kill()
        await self.start()

    async def written(self) -> None:
        """Waits until the store has everything."""
        await self.child.says(lambda told: not told["store_waiting"] and not told["store_failing"])

    async def kept(self, session_id: str) -> StoredSession | None:
        """The session as the store has it."""
        store = store_of(self._store, SystemClock())
        assert store is not None
        try:
            return await store.read(session_id)
        finally:
            await store.aclose()

    async def close(self) -> None:
        await self._life.aclose()


@asynccontextmanager
async def kept_proxy_before(
    upstream: str, store: str, *, environment: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Restarting]:
    """Begins its first life; the last one ends well, if it was not ended before."""
    found = Restarting(upstream, store, options, environment or {})
    try:
        await found.start()
        yield found
        if found.child.process.returncode is None:
            await found.end()
    finally:
        await found.close()

"""A proxy between the scripted server and the raw client."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shadowcat import ReverseProxy
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.session import Session
from shadowcat.proxy.writer import StoreWriter
from tests.rig.client import Client, client_of
from tests.rig.server import McpServer, mcp_server
from tests.rig.wait import soon


@dataclass(eq=False)
class Stand:
    servers: list[McpServer]
    proxy: ReverseProxy
    client: Client
    _stack: AsyncExitStack

    @property
    def server(self) -> McpServer:
        return self.servers[0]

    @property
    def counters(self) -> Any:
        return self.proxy.shared.counters

    @property
    def writer(self) -> StoreWriter:
        assert self.proxy.shared.writer is not None
        return self.proxy.shared.writer

    def session(self, client: Client | None = None) -> Session:
        """The proxy's side of a client's session."""
        id = (client or self.client).session_id
        return next(session for session in self.proxy.relay.sessions if session.id == id)

    async def another_client(self) -> Client:
        return await self._stack.enter_async_context(client_of(self.proxy.port))


@asynccontextmanager
async def stand(
    servers: int = 1, *, script: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Stand]:
    """`script` goes to every server; the rest to the proxy."""
    async with AsyncExitStack() as stack:
        names = [chr(ord("a") + index) for index in range(servers)]
        ups = [
            await stack.enter_async_context(mcp_server(**{"name": name, **(script or {})})) for name in names
        ]
        async with ReverseProxy({server.name: server.url for server in ups}, port=0, **options) as proxy:
            client = await stack.enter_async_context(client_of(proxy.port))
            yield Stand(ups, proxy, client, stack)


def unkept() -> SessionLedger:
    """For streams that no store is to have."""
    return SessionLedger(
        None, "s", node="", fence=0, describe=lambda: b"", streams=lambda: (), on_refused=lambda _: None
    )


@dataclass(eq=False)
class Child:
    """`shadowcat reverse` in a process of its own."""

    process: asyncio.subprocess.Process
    port: int


@asynccontextmanager
async def server_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The scripted server in a process of its own, and its URL; killed at the end, stopped or not."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.rig.serve", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with soon():
            url = (await process.stdout.readline()).decode().strip()
        assert url
        yield process, url
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def reverse_process(*arguments: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "reverse", "--listen", "127.0.0.1:0", *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with soon():
            line = (await process.stdout.readline()).decode()
        found = re.match(r"serving http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line
        yield Child(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with soon():
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

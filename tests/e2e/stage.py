"""Servers, proxies and breakable connections between them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tests.conformance.suite import serving
from tests.rig.wait import Changed

# What a proxy writes at level "info" while all goes well has none of these.
ALARMING = ("Traceback", " ERROR ", " CRITICAL ", "never retrieved", "was destroyed")


@dataclass(frozen=True, slots=True)
class Stage:
    """One server, and the two ways to it."""

    direct: str
    proxied: str


@asynccontextmanager
async def staged(out: Path) -> AsyncIterator[Stage]:
    async with server(out / "server.log") as direct, proxy(direct, out / "proxy.log") as proxied:
        yield Stage(direct, proxied)


def server(log: Path, *flags: str) -> AbstractAsyncContextManager[str]:
    return serving(("tests.e2e.server", *flags), log)


@asynccontextmanager
async def proxy(upstream: str, log: Path) -> AsyncIterator[str]:
    command = ("shadowcat", "reverse", "--listen", "127.0.0.1:0", "--upstream", upstream)
    async with serving(command, log) as url:
        yield url
    assert_quiet(log)


def assert_quiet(log: Path) -> None:
    said = log.read_text()
    assert not any(word in said for word in ALARMING), said


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/")[0])


class Wire:
    """A TCP connection's path that can be cut, mended, and led elsewhere."""

    def __init__(self, url: str) -> None:
        self._target = port_of(url)
        self._whole = True
        self._pairs: set[_Near] = set()
        self._changed = Changed()
        self.turned_away = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/mcp"

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Near(self), "127.0.0.1", 0)
        self._port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Resets every connection, and each new one until it is mended."""
        self._whole = False
        for near in list(self._pairs):
            near.reset()

    def mend(self) -> None:
        self._whole = True

    def lead_to(self, url: str) -> None:
        self._target = port_of(url)

    async def turns_away(self, count: int) -> None:
        await self._changed.until(lambda: self.turned_away >= count)

    # What the connections tell.

    @property
    def target(self) -> int:
        return self._target

    def opened(self, near: _Near) -> bool:
        self._pairs.add(near)
        if not self._whole:
            self.turned_away += 1
            self._changed.tell()
        return self._whole

    def closed(self, near: _Near) -> None:
        self._pairs.discard(near)


class _Near(asyncio.Protocol):
    """The end that was connected to."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._far: asyncio.Transport | None = None
        self._early = bytearray()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        if self._wire.opened(self):
            self._connecting = asyncio.ensure_future(self._connect())
        else:
            self.reset()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            far, _ = await loop.create_connection(lambda: _Far(self), "127.0.0.1", self._wire.target)
        except OSError:
            self.reset()
            return
        if self._over:
            far.abort()
            return
        self._far = far
        far.write(bytes(self._early))

    def data_received(self, data: bytes) -> None:
        if self._far is None:
            self._early += data
        else:
            self._far.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self._wire.closed(self)
        if self._far is not None:
            self._far.close()

    def reset(self) -> None:
        self._over = True
        _reset(self.transport)
        if self._far is not None:
            _reset(self._far)


class _Far(asyncio.Protocol):
    def __init__(self, near: _Near) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.transport.close()


def _reset(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        # Without lingering the other side gets RST rather than a polite end.
        transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        transport.abort()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    wire = Wire(url)
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()

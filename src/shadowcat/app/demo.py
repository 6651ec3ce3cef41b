"""`shadowcat demo`: the bundled server, alone or with the reverse proxy in front of it."""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from textwrap import indent
from typing import Annotated

from msgspec import Meta, Struct, field

from shadowcat.app.logs import LogOptions
from shadowcat.app.process import until_stopped
from shadowcat.app.proxy import ReverseProxy
from shadowcat.clock import SystemClock
from shadowcat.demo import paste
from shadowcat.demo.server import DemoServer
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.wire.hosts import Address

PORT = 8080
DRAIN_S = 2.0
_RETRY_MS = 500
"""Soon, because what this server is for is to be taken away and to come back."""

Announce = Callable[[str], None]


class DemoSettings(Struct, frozen=True):
    listen: Annotated[
        Address | None,
        Meta(description="Address to serve on; by default 127.0.0.1:8080, or a free port if that is taken."),
    ] = None
    log: LogOptions = field(default_factory=lambda: LogOptions(level="warning"))


def url_of(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/mcp"


async def serve_server(listen: Address, state: Path | None, announce: Announce) -> None:
    """The server alone. With a directory for its state its sessions outlive it, however it ends."""
    async with _server(listen, state) as server:
        told = f"serving {url_of(listen.host, server.port)} (Ctrl-C stops it)"
        await until_stopped(lambda: server.drain(DRAIN_S), lambda: announce(told))


def _server(listen: Address, state: Path | None) -> ReverseProxy:
    return ReverseProxy(
        {DemoServer.name: DemoServer()},
        host=listen.host,
        port=listen.port,
        endpoint=EndpointOptions(retry_ms=_RETRY_MS),
        store=SqliteStore(state / "server.db", SystemClock()) if state is not None else None,
    )


async def serve_demo(listen: Address | None, state: Path | None, announce: Announce) -> None:
    """The server, and the proxy in front of it; on a free port where the usual one is taken."""
    # Here, because it brings a web framework along, which the server alone has no use for.
    from shadowcat.admin.listener import Admin

    with _directory(state) as directory:
        async with (
            _server(Address("127.0.0.1:0"), None) as server,
            _proxy(listen, url_of("127.0.0.1", server.port), directory, announce) as (url, proxy),
            Admin(proxy) as admin,
        ):

            async def stop() -> None:
                announce("stopping")
                await proxy.drain(DRAIN_S)
                await server.drain(DRAIN_S)

            told = _told(url, url_of("127.0.0.1", server.port), directory / "proxy.db", admin.url)
            await until_stopped(stop, lambda: announce(told))


@contextmanager
def _directory(state: Path | None) -> Generator[Path]:
    if state is not None:
        yield state  # made by the store, which says what is wrong with it
        return
    with tempfile.TemporaryDirectory(prefix="shadowcat-demo-") as made:
        yield Path(made)


@asynccontextmanager
async def _proxy(
    listen: Address | None, upstream: str, directory: Path, announce: Announce
) -> AsyncGenerator[tuple[str, ReverseProxy]]:
    host, port = (listen.host, listen.port) if listen is not None else ("127.0.0.1", PORT)

    def proxy_on(port: int) -> ReverseProxy:
        store = SqliteStore(directory / "proxy.db", SystemClock())
        return ReverseProxy({"demo": upstream}, host=host, port=port, store=store)

    try:
        proxy = await proxy_on(port).__aenter__()
    except OSError as error:
        if listen is not None or error.errno != errno.EADDRINUSE:
            raise
        announce(f"port {port} is taken: using a free one (choose one with --listen)")
        proxy = await proxy_on(0).__aenter__()
    try:
        yield url_of(host, proxy.port), proxy
    finally:
        await proxy.aclose()


def _told(proxy: str, server: str, store: Path, admin: str) -> str:
    return f"""\
serving {proxy} (Ctrl-C stops it)
  in front of the demo server, {server}; sessions are kept in {store}
  admin page on {admin}/

Ask it something:

{indent(paste.curl(proxy), "  ")}

Look at it with the MCP Inspector (needs Node.js):

{indent(paste.inspector(proxy), "  ")}

Give it to an editor:

{indent(paste.editor(proxy), "  ")}

See a stream survive the death of both: {_program()} demo --crash"""


def _program() -> str:
    """As it was called, where that can be pasted."""
    return sys.argv[0] if Path(sys.argv[0]).name == "shadowcat" else "shadowcat"

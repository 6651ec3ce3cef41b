"""Where the parts are put together: the one module that knows them all."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from shadowcat.clock import SystemClock
from shadowcat.core.ports import Interceptor, SessionStore, Upstream
from shadowcat.downstream.guard import Guard, is_loopback
from shadowcat.downstream.peers import Peers
from shadowcat.downstream.streamable import EndpointOptions, StreamableEndpoint
from shadowcat.http.client import Client
from shadowcat.http.limits import MIB, ClientLimits, ServerLimits, Timeouts
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import SessionLimits, Shared
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.proxy.writer import Durability
from shadowcat.stores.urls import store_of
from shadowcat.upstream.channel import ChannelLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from shadowcat.upstream.streamable import CALL, StreamableUpstream

log = logging.getLogger("shadowcat")

T = TypeVar("T")

DRAIN_S = 10.0


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs on uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def echo(host: str, port: int, announce: Callable[[str], None]) -> None:
    """Answers every request with its own body, until told to stop."""

    async def handle(request: Request) -> Response:
        kind = request.headers.get(b"content-type") or b"application/octet-stream"
        return Response(200, [(b"content-type", kind)], request.body)

    server = Server(handle)
    await server.listen(host, port)
    announce(f"echoing on http://{host}:{server.port}/ (Ctrl-C stops it)")
    await until_stopped(lambda: server.drain(DRAIN_S))


async def until_stopped(drain: Callable[[], Awaitable[None]]) -> None:
    """Waits for SIGINT or SIGTERM, then drains; a second signal ends the process as it would without us."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(number)
    await drain()


@dataclass(frozen=True, slots=True)
class Cluster:
    """Several proxies with one store: a request may reach any of them, and is passed on to who has the session.

    A node that stops renewing its lease loses its sessions to whichever node is asked for them.
    """

    advertise: str
    """The URL by which the other nodes reach this one."""
    key: bytes = field(repr=False)
    """The secret that all nodes share."""
    lease_s: float = 5.0


class ReverseProxy:
    """Servers behind one endpoint, as a library: `async with ReverseProxy({"main": url}) as proxy: …`.

    A server is a URL, a `Command` whose sessions have a process each, or an `Upstream` of your own, which is closed
    with the proxy. Everything the command line can do, this can; `store` and `interceptors` may be your own too.
    Without a store, sessions end with the proxy; with one, it is closed with it.
    """

    def __init__(
        self,
        upstreams: Mapping[str, str | Command | Upstream],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        endpoint: EndpointOptions | None = None,
        store: SessionStore | None = None,
        durability: Durability | None = None,
        cluster: Cluster | None = None,
        interceptors: Sequence[Interceptor] = (),
        session_limits: SessionLimits | None = None,
        server_limits: ServerLimits | None = None,
        call_timeouts: Timeouts = CALL,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._server_tls = server_tls
        self._closed = False
        limits = session_limits or SessionLimits()
        # Each session may have a stream of its own open at the server, and a call beside it.
        self._client = Client(ClientLimits(connections_per_origin=2 * limits.sessions), client_tls)
        self._store = store
        self.shared = Shared(
            upstreams=Upstreams(
                [self._upstream(name, server, call_timeouts) for name, server in upstreams.items()]
            ),
            store=self._store,
            pipeline=Pipeline(interceptors),
            clock=SystemClock(),
            limits=limits,
            durability=durability or Durability(),
            node=cluster.advertise if cluster is not None else secrets.token_hex(8),
            lease_s=cluster.lease_s if cluster is not None else None,
        )
        self.relay = Relay(self.shared)
        self._peers = Peers(self._client, cluster.key, SystemClock()) if cluster is not None else None
        self._endpoint = StreamableEndpoint(
            self.relay, endpoint or EndpointOptions(guard=Guard(loopback=is_loopback(host))), self._peers
        )
        self.server = Server(self._endpoint.handle, server_limits)

    def _upstream(self, name: str, server: str | Command | Upstream, call: Timeouts) -> Upstream:
        if isinstance(server, str):
            return StreamableUpstream(name, server, self._client, call)
        if isinstance(server, Command):
            return StdioUpstream(name, server, limits=StdioLimits(channel=ChannelLimits(call_s=call.gap_s)))
        if server.name != name:
            raise ValueError(f"an upstream called {server.name} is named {name} here")
        return server

    @property
    def port(self) -> int:
        """The one it listens on: what port 0 became."""
        return self.server.port

    async def __aenter__(self) -> ReverseProxy:
        """Raises `StoreUnusable` or `OSError` where it cannot begin."""
        try:
            if self._store is not None:
                await self._store.check()
            await self.server.listen(self._host, self._port, tls=self._server_tls)
        except BaseException:
            await self.aclose()
            raise
        self.relay.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def drain(self, grace_s: float = DRAIN_S) -> None:
        """Stops accepting, ends the streams that are open without end, lets what runs finish, then closes."""
        self.server.stop_accepting()
        await self.relay.end_open_streams()
        await self.server.drain(grace_s)
        await self.aclose()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self.server.aclose()
        if self._peers is not None:
            await self._peers.aclose()
        await self.relay.aclose()
        await self.shared.upstreams.aclose()
        await self._client.aclose()
        if self._store is not None:
            await self._store.aclose()


@dataclass(frozen=True, slots=True)
class ReverseSettings:
    """What `shadowcat reverse` can be told."""

    upstreams: Mapping[str, str | Command]
    host: str = "127.0.0.1"
    port: int = 8080
    path: str = "/mcp"
    allowed_origins: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    max_sessions: int = 10_000
    session_idle_s: float = 1_800.0
    call_deadline_s: float = 300.0
    max_body_bytes: int = 4 * MIB
    upgrade_after_s: float | None = None
    store: str = "memory:"
    """The URL of one."""
    strict: bool = False
    """Nothing leaves that the store does not have."""
    shared: bool = False
    """The sessions of a command share one process."""

    def server(self, name: str) -> str | Upstream:
        server = self.upstreams[name]
        if isinstance(server, str):
            return server
        limits = StdioLimits(processes=self.max_sessions, channel=ChannelLimits(call_s=self.call_deadline_s))
        return StdioUpstream(name, server, shared=self.shared, limits=limits)


def default_store(host: str, port: int) -> str:
    """A file in the user's state directory, of whoever serves that address; none for a port of chance."""
    if port == 0:
        return "memory:"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "shadowcat" / f"reverse-{host.replace(':', '_')}-{port}.db"
    return f"sqlite:///{quote(str(path.absolute()))}"


def allow_open_files() -> None:
    """As many as the system lets us have: the usual 1,024 are used up by 200 children with their pipes."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (OSError, ValueError):
        pass  # some systems name a limit that they do not grant


async def serve_reverse(settings: ReverseSettings, announce: Callable[[str], None]) -> None:
    """Runs a reverse proxy until told to stop."""
    allow_open_files()
    guard = Guard(
        loopback=is_loopback(settings.host), hosts=settings.allowed_hosts, origins=settings.allowed_origins
    )
    proxy = ReverseProxy(
        {name: settings.server(name) for name in settings.upstreams},
        host=settings.host,
        port=settings.port,
        endpoint=EndpointOptions(path=settings.path, guard=guard),
        session_limits=SessionLimits(
            sessions=settings.max_sessions,
            idle_s=settings.session_idle_s,
            upgrade_after_s=settings.upgrade_after_s,
        ),
        server_limits=ServerLimits(body_bytes=settings.max_body_bytes),
        call_timeouts=replace(CALL, head_s=settings.call_deadline_s, gap_s=settings.call_deadline_s),
        store=store_of(settings.store, SystemClock()),
        durability=Durability(strict=settings.strict),
    )
    async with proxy:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        announce(f"serving http://{host}:{proxy.port}{settings.path} (Ctrl-C stops it)")
        if not is_loopback(settings.host) and not settings.allowed_hosts:
            log.warning("whoever reaches this port is served, under any name: see --allow-host")

        async def stop() -> None:
            announce(f"stopping: running calls have {DRAIN_S:.0f} s to finish (Ctrl-C again ends at once)")
            await proxy.drain()

        await until_stopped(stop)


def set_up_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

"""The proxy as a command runs it: settings in, served until told to stop."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from shadowcat.app.process import DRAIN_S, allow_open_files, until_stopped
from shadowcat.app.proxy import Cluster, ReverseProxy
from shadowcat.clock import SystemClock
from shadowcat.core.ports import Upstream
from shadowcat.downstream.guard import Guard
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.http.limits import MIB, ServerLimits
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.writer import Durability
from shadowcat.stores.urls import store_of
from shadowcat.upstream.channel import ChannelLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.hosts import is_loopback

log = logging.getLogger("shadowcat")


@dataclass(frozen=True, slots=True)
class ReverseSettings:
    """What `shadowcat reverse` can be told."""

    upstreams: Mapping[str, str | Command]
    host: str = "127.0.0.1"
    port: int = 8080
    path: str = "/mcp"
    sse_path: str = "/sse"
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
    cluster: Cluster | None = None
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


def without_secrets(store: str) -> str:
    """A store's URL as it may stand in a log."""
    scheme, colon, rest = store.partition(":")
    return scheme + colon + re.sub(r"//[^/@]*@", "//", rest).partition("?")[0]


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
        endpoint=EndpointOptions(path=settings.path, sse_path=settings.sse_path, guard=guard),
        session_limits=SessionLimits(
            sessions=settings.max_sessions,
            idle_s=settings.session_idle_s,
            call_s=settings.call_deadline_s,
            upgrade_after_s=settings.upgrade_after_s,
        ),
        server_limits=ServerLimits(body_bytes=settings.max_body_bytes),
        call_timeouts=replace(CALL, head_s=settings.call_deadline_s, gap_s=settings.call_deadline_s),
        store=store_of(settings.store, SystemClock()),
        durability=Durability(strict=settings.strict),
        cluster=settings.cluster,
    )
    async with proxy:

        def serving() -> None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            announce(f"serving http://{host}:{proxy.port}{settings.path} (Ctrl-C stops it)")
            log.info("sessions are kept in %s", without_secrets(settings.store))
            if not is_loopback(settings.host) and not settings.allowed_hosts:
                log.warning("whoever reaches this port is served, under any name: see --allow-host")

        async def stop() -> None:
            announce(f"stopping: running calls have {DRAIN_S:.0f} s to finish (Ctrl-C again ends at once)")
            await proxy.drain()

        await until_stopped(stop, serving)

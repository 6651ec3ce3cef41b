"""The proxy as a library."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Self

from shadowcat.aio import Deadline, cancel_and_join
from shadowcat.app.cluster import Cluster
from shadowcat.app.machinery import CLOSE_S, Machinery
from shadowcat.app.process import DRAIN_S
from shadowcat.app.upstreams import ServerUrl
from shadowcat.clock import SystemClock
from shadowcat.core.interceptor import Interceptor
from shadowcat.core.ports import SessionStore, TapSink, Upstream
from shadowcat.downstream.answers import refusal_response
from shadowcat.downstream.guard import Guard
from shadowcat.downstream.peers import Peers
from shadowcat.downstream.router import routed
from shadowcat.downstream.sse import SseEndpoint
from shadowcat.downstream.streamable import EndpointOptions, StreamableEndpoint
from shadowcat.http.client import Client, Origin
from shadowcat.http.limits import ClientLimits, ServerLimits, Timeouts
from shadowcat.http.server import Server
from shadowcat.plugins.faults import FaultOptions, FaultyUpstream
from shadowcat.proxy.news import What
from shadowcat.proxy.registry import LEAST_S
from shadowcat.proxy.shared import Phase, SessionLimits
from shadowcat.proxy.upstreams import Roster, Upstreams
from shadowcat.proxy.writer import Durability
from shadowcat.upstream.channel import ChannelLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.fallback import UrlUpstream
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.hosts import is_loopback

__all__ = ["Cluster", "Command", "ReverseProxy"]

_PARTING_S = 0.5
"""For the last words on the streams that did not end in time."""
_FRONT_S = 3.0
"""For the sessions to end whose clients are gone with their streams: a server may hang."""
_LOOK_BACK_S = 0.25
"""For what a client asks by itself once it has the answer of its call."""
_ASKING_LOOK_S = 0.1
"""How often it is looked whether a client is asked something."""
_REST_S = 4.5
"""For all that comes after the grace: whoever sent the SIGTERM kills what is still there after 15 s."""


class ReverseProxy:
    """Servers behind one endpoint, as a library: `async with ReverseProxy({"main": url}) as proxy: …`.

    A server is a URL, a `Command` whose sessions have a process each, or an `Upstream` of your own, which is closed
    with the proxy. Everything the command line can do, this can; `store`, `interceptors` and `taps` may be your own
    too. Without a store, sessions end with the proxy; with one, it is closed with it.

    `sock`, in place of an address, listens already, and whoever else holds it gives it to the proxy after this one.
    """

    def __init__(
        self,
        upstreams: Mapping[str, str | Command | Upstream],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        sock: socket.socket | None = None,
        endpoint: EndpointOptions | None = None,
        store: SessionStore | None = None,
        durability: Durability | None = None,
        cluster: Cluster | None = None,
        interceptors: Sequence[Interceptor] = (),
        taps: Sequence[TapSink] = (),
        faults: FaultOptions | None = None,
        session_limits: SessionLimits | None = None,
        server_limits: ServerLimits | None = None,
        call_timeouts: Timeouts = CALL,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
    ) -> None:
        if sock is not None:
            host, port, *_ = sock.getsockname()
        self._host = host
        self._port = port
        self._socket = sock
        self.server_tls = server_tls
        self._faults = faults
        self._closed = False
        limits = session_limits or SessionLimits()
        # Each session may have a stream of its own open at the server, and a call beside it.
        self._client = Client(
            ClientLimits(connections_per_origin=2 * limits.max_sessions), client_tls, self._admits()
        )
        self._machinery = Machinery(
            self._roster(upstreams, call_timeouts),
            self._client,
            store=store,
            durability=durability,
            cluster=cluster,
            interceptors=interceptors,
            taps=taps,
            limits=limits,
        )
        self.shared = self._machinery.shared
        self.relay = self._machinery.relay
        self._peers = (
            Peers(self._client, cluster.node, cluster.key.reveal().encode(), SystemClock())
            if cluster is not None
            else None
        )
        options = endpoint or EndpointOptions()
        self.guard = Guard(
            loopback=is_loopback(host), hosts=options.allow_hosts, origins=options.allow_origins
        )
        self.server = self._front(options, limits, server_limits)

    # What a forward proxy does otherwise.

    def _admits(self) -> Callable[[Origin, str], bool] | None:
        return None

    def _roster(self, upstreams: Mapping[str, str | Command | Upstream], call: Timeouts) -> Roster:
        if isinstance(upstreams, str) or not upstreams:
            raise ValueError('there is no upstream: give names and servers, {"main": "http://host:3000/mcp"}')
        made = [self._upstream(name, server, call) for name, server in upstreams.items()]
        return Upstreams([self._spoiled(upstream) for upstream in made])

    def _spoiled(self, upstream: Upstream) -> Upstream:
        return upstream if self._faults is None else FaultyUpstream(upstream, self._faults)

    def spoil(self, options: FaultOptions) -> None:
        """Other faults, for a proxy that was made with some."""
        self._faults = options
        for upstream in self.shared.upstreams:
            if isinstance(upstream, FaultyUpstream):
                upstream.options = options

    def _front(
        self, options: EndpointOptions, limits: SessionLimits, server_limits: ServerLimits | None
    ) -> Server:
        self._streamable = StreamableEndpoint(self.relay, options, self.guard, self._peers)
        self.old_clients = SseEndpoint(self.relay, options, self.guard, limits.max_sessions)
        handler = routed(options, self._streamable, self.old_clients)
        return Server(handler, server_limits, tell=refusal_response)

    def _begin_to_leave(self) -> None:
        self.old_clients.drain()
        self._streamable.begin_to_leave()

    async def _close_front(self, within_s: float) -> None:
        await self.old_clients.aclose(within_s)

    # All of them.

    def _upstream(self, name: str, server: str | Command | Upstream, call: Timeouts) -> Upstream:
        if isinstance(server, str):
            return UrlUpstream(name, _url_of(name, server), self._client, call)
        if isinstance(server, Command):
            return StdioUpstream(name, server, limits=StdioLimits(channel=ChannelLimits(call_s=call.gap_s)))
        if not hasattr(server, "name"):
            raise TypeError(f"upstream {name}: {server!r} is no URL, Command or Upstream")
        if server.name != name:
            raise ValueError(f"an upstream called {server.name} is named {name} here")
        return server

    @property
    def port(self) -> int:
        """The one it listens on: what port 0 became."""
        return self.server.port

    async def __aenter__(self) -> Self:
        """Raises `StoreUnusable` or `OSError` where it cannot begin."""
        try:
            await self._machinery.check()
            await self._listen()
        except BaseException:
            await self.aclose()
            raise
        self._machinery.start()
        return self

    async def _listen(self) -> None:
        """Once, or again and again on a socket that was given."""
        if self._socket is None:
            await self.server.listen(self._host, self._port, tls=self.server_tls)
        else:
            await self.server.listen(sock=self._socket.dup(), tls=self.server_tls)

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def drain(self, grace_s: float = DRAIN_S) -> None:
        """Begins nothing new, ends the streams that are open without end, lets what runs finish, then closes.

        For as long as something runs in a session, clients are let in: what a call asks is answered on a connection of
        its own, and so is it cancelled, or its stream resumed. Other nodes get the sessions in which nothing runs at
        once, the others as that is over. Where another process has our socket after us, and there is a store, clients
        wait for it instead.
        """
        deadline = Deadline(grace_s + _REST_S)
        self.shared.phase = Phase.DRAINING
        self.shared.news.tell(What.PROXY_DRAINS)
        if self._lets_in:
            self.server.begin_to_drain()
        else:
            # Whoever stands in front finds another node when the connection is refused; nginx sends nothing elsewhere
            # that was answered by 503.
            self.server.stop_accepting()
        self._begin_to_leave()
        await self.relay.begin_to_leave()
        running = Deadline(grace_s)
        parting = asyncio.get_running_loop().call_later(
            grace_s, lambda: self.shared.tasks.spawn(self.relay.part(), "part")
        )
        try:
            await self._come_to_rest(running.left(grace_s))
            await self.server.drain(running.left(grace_s) + _PARTING_S)
        finally:
            parting.cancel()
        await self.aclose(deadline)

    @property
    def _has_successor(self) -> bool:
        """Whether who connects from now on is served by the process after us, in the same sessions."""
        return self._socket is not None and self.shared.store is not None

    @property
    def _lets_in(self) -> bool:
        """Whether clients have nobody else, while something runs here."""
        return self._peers is None and not self._has_successor

    async def _come_to_rest(self, within_s: float) -> None:
        look_back_s = _LOOK_BACK_S if self._lets_in else 0.0
        resting = self.relay.sessions.come_to_rest(within_s, look_back_s)
        if not self._has_successor:
            await resting
            return
        hearing = self.shared.tasks.spawn(self._hear_answers(), "hear answers")
        try:
            await resting
        finally:
            await cancel_and_join([hearing], grace_s=1.0)

    async def _hear_answers(self) -> None:
        """Lets clients in while a call here waits for the answer of one of them, for as long as it is let.

        All others wait for who comes after us: what they begin would be refused here.
        """
        while True:
            is_asking, is_open = self.relay.sessions.is_asking, bool(self.server.sockets)
            if is_asking and not is_open:
                await self._listen()
            elif is_open and not is_asking:
                self.server.stop_accepting()
            await asyncio.sleep(_ASKING_LOOK_S)

    async def aclose(self, deadline: Deadline | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        deadline = deadline or Deadline(CLOSE_S)
        self.shared.phase = Phase.DRAINING
        await self.server.aclose()
        await self._close_front(deadline.left(_FRONT_S, but_for_s=LEAST_S))
        if self._peers is not None:
            await self._peers.aclose()
        await self._machinery.aclose(deadline)
        if self._socket is not None:
            self._socket.close()


def _url_of(name: str, server: str) -> str:
    try:
        return ServerUrl(server)
    except ValueError as error:
        raise ValueError(f"upstream {name}: {error}") from error

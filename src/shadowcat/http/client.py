"""The client side: requests to origins over pooled connections.

Addresses of a name are tried in turn within one connect deadline (no racing of address families: upstreams are
configured, not discovered). A request is tried again only on a kept-alive connection that turned out dead before
a byte of it was written; once a byte may have left, the caller hears so in the fault and decides.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.flow import Sweeper
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import ClientLimits, Timeouts
from shadowcat.http.message import HeaderList, encode_fields
from shadowcat.http.outgoing import ConnectionPool, OutgoingConnection
from shadowcat.http.pool import Claim, Grant, Pool, PoolStatistics
from shadowcat.http.turn import Turn

_SWEEP_S = 0.25
_NO_TIMEOUTS = Timeouts()


class Origin(NamedTuple):
    """Where a request goes: a host and port, or a Unix socket with the host to name in `Host`.

    A tuple, because it is looked up for every request and a tuple hashes without a Python step.
    """

    scheme: str
    host: str
    port: int
    unix_path: str | None = None

    @classmethod
    def of(cls, url: str) -> Origin:
        """`http://host[:port]`, `https://host[:port]`; path and query are not part of an origin."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http(s) URL with a host")
        if parts.username is not None or parts.password is not None:
            raise ValueError("credentials do not belong in a URL")
        return cls(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return host if self.port == usual else f"{host}:{self.port}"


class OutgoingHead:
    """The head of requests that are sent again and again: encoded once, but for the length."""

    __slots__ = ("_encoded", "_needs_length", "headers", "method", "origin")

    def __init__(self, origin: Origin, method: str, target: str, headers: HeaderList) -> None:
        if method == "HEAD":
            raise ValueError("llhttp cannot be told that an answer to HEAD has no body")
        first = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
        if len(first.split()) != 3:
            raise ValueError("a method or target with white space in it")
        self.origin = origin
        self.method = method
        self.headers = headers
        self._encoded = first + _host_line(origin) + encode_fields(headers)
        self._needs_length = method != "GET"

    def before(self, body: bytes) -> bytes:
        """The bytes that go before this body."""
        if body or self._needs_length:
            return b"%bcontent-length: %d\r\n\r\n" % (self._encoded, len(body))
        return self._encoded + b"\r\n"


_Granted = OutgoingConnection | None


class Client:
    """One pool of connections per origin. Use it on one event loop; `aclose` it."""

    def __init__(
        self,
        limits: ClientLimits | None = None,
        tls: ssl.SSLContext | None = None,
        admits: Callable[[Origin, str], bool] | None = None,
    ) -> None:
        """`admits` judges the address that an origin's name led to, before a byte is sent there."""
        self._admits = admits
        self._limits = limits or ClientLimits()
        self._tls = tls
        self._pools: dict[Origin, ConnectionPool] = {}
        self._connections: set[OutgoingConnection] = set()
        self._turn = Turn()
        self._sweeper: Sweeper | None = None
        self._closed = False

    async def send(
        self,
        origin: Origin,
        method: str,
        target: str,
        headers: HeaderList,
        body: bytes = b"",
        timeouts: Timeouts = _NO_TIMEOUTS,
    ) -> ClientResponse:
        """Sends a request; returns its response once the head is here.

        `Host`, `Content-Length` and `Connection` are the engine's. Raises `Fault`, whose `sent` says whether the
        server may have seen any of it.
        """
        return await self.send_again(OutgoingHead(origin, method, target, headers), body, timeouts)

    async def send_again(
        self, head: OutgoingHead, body: bytes = b"", timeouts: Timeouts = _NO_TIMEOUTS
    ) -> ClientResponse:
        """The same, with a head that was encoded before."""
        origin = head.origin
        while True:
            self._check_open()
            pool = self._pools.get(origin) or self._new_pool(origin)
            claim = pool.claim()
            if isinstance(claim, OutgoingConnection):
                connection, is_new = claim, False
            else:
                connection, is_new = await self._wait_or_open(origin, pool, claim, timeouts)
            if is_new or connection.is_usable():
                return await connection.send(head.before(body), body, timeouts)
            self._discard(origin, connection)

    def ask(
        self,
        head: OutgoingHead,
        body: bytes,
        timeouts: Timeouts,
        on_head: Callable[[ClientResponse], object],
    ) -> ClientResponse | None:
        """The same without waiting, where a connection is free; None where there is none, and nothing was sent.

        `on_head` is called once, not from in here: the head of the response is there, or its `fault`.
        """
        pool = self._pools.get(head.origin)
        connection = pool.take_idle() if pool is not None and not self._closed else None
        if connection is None:
            return None
        if not connection.is_usable():
            self._discard(head.origin, connection)
            return None
        return connection.ask(head.before(body), body, timeouts, on_head)

    def statistics(self) -> dict[Origin, PoolStatistics]:
        return {origin: pool.statistics() for origin, pool in self._pools.items()}

    async def aclose(self) -> None:
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.close()
            self._sweeper = None
        for connection in tuple(self._connections):
            connection.abort()
        # The transports tell their protocols that they are closed in the next turn of the loop.
        await asyncio.sleep(0)

    # Connections.

    def _new_pool(self, origin: Origin) -> ConnectionPool:
        limits = self._limits
        pool: ConnectionPool = Pool(
            limits.connections_per_origin, limits.waiting_per_origin, limits.idle_per_origin
        )
        self._pools[origin] = pool
        return pool

    async def _wait_or_open(
        self, origin: Origin, pool: ConnectionPool, claim: Claim, timeouts: Timeouts
    ) -> tuple[OutgoingConnection, bool]:
        if claim is Claim.FULL:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_waiting")
        if claim is Claim.WAIT:
            granted = await self._wait_in_line(pool, timeouts.pool_s)
            if granted is not None:
                return granted, False
        return await self._open(origin, pool, timeouts.connect_s), True

    def _check_open(self) -> None:
        if self._closed:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason="client_closed")

    async def _wait_in_line(self, pool: ConnectionPool, pool_s: float) -> _Granted:
        waiter: asyncio.Future[_Granted] = asyncio.get_running_loop().create_future()
        pool.wait(waiter)
        self._hear_nobody_out(pool)
        try:
            async with asyncio.timeout(pool_s):
                return await asyncio.shield(waiter)
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter.done():
                # Granted in the same turn as the deadline: what was granted must go to the next in line.
                self._pass_on(pool, waiter.result())
            else:
                pool.leave(waiter)
            if isinstance(error, TimeoutError):
                raise Fault(FaultKind.OVER_CAPACITY, reason="no_connection_free") from error
            raise

    def _hear_nobody_out(self, pool: ConnectionPool) -> None:
        """Who waits in line needs a connection more than we need the end of a response."""
        for connection in self._connections:
            if connection.is_only_heard_out(pool):
                connection.abort()
                return

    def _pass_on(self, pool: ConnectionPool, granted: _Granted) -> None:
        if granted is None:
            self._carry_out(pool.drop())
        else:
            self.freed(pool, granted, True)

    async def _open(self, origin: Origin, pool: ConnectionPool, connect_s: float) -> OutgoingConnection:
        try:
            self._check_open()
            async with asyncio.timeout(connect_s):
                connection = await self._connect(origin, pool)
            if connection.is_closed:
                raise ConnectionResetError("closed as soon as it was open")
            if self._closed:
                connection.abort()
                self._check_open()
        except (OSError, TimeoutError) as error:
            # ssl errors are OSErrors too; TimeoutError is one since 3.10, named for the reader.
            self._carry_out(pool.drop())
            reason = "connect_timeout" if isinstance(error, TimeoutError) else _connect_reason(error)
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, reason=reason) from error
        except BaseException:
            self._carry_out(pool.drop())
            raise
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweeper = Sweeper(self._sweep, _SWEEP_S)
        return connection

    async def _connect(self, origin: Origin, pool: ConnectionPool) -> OutgoingConnection:
        connection: OutgoingConnection | None = None

        def protocol() -> OutgoingConnection:
            nonlocal connection
            connection = OutgoingConnection(self._limits, self._turn, self, pool)
            return connection

        try:
            return await self._connected(origin, protocol)
        except BaseException:
            # uvloop closes the socket of who gave up and not the TLS on it, which would go on and fail.
            if connection is not None:
                connection.let_go()
            raise

    async def _connected(
        self, origin: Origin, protocol: Callable[[], OutgoingConnection]
    ) -> OutgoingConnection:
        loop = asyncio.get_running_loop()
        tls = self._context() if origin.scheme == "https" else None
        server_hostname = origin.host if tls is not None else None
        if origin.unix_path is not None:
            _, connection = await loop.create_unix_connection(
                protocol, origin.unix_path, ssl=tls, server_hostname=server_hostname
            )
        else:
            transport, connection = await loop.create_connection(
                protocol, origin.host, origin.port, ssl=tls, server_hostname=server_hostname
            )
            # What is connected is judged: a name that is looked up twice may lead to two places.
            peer = transport.get_extra_info("peername")
            if peer is None:
                raise ConnectionResetError("closed as soon as it was open")
            if self._admits is not None and not self._admits(origin, peer[0]):
                told = "The target's name leads to an address that is not allowed"
                raise Fault(FaultKind.FORBIDDEN, told, reason="foreign_target")
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            from shadowcat.http.tls import ClientTls

            self._tls = ClientTls().context()
        return self._tls

    def freed(self, pool: ConnectionPool, connection: OutgoingConnection, reusable: bool) -> None:
        if not reusable or self._closed:
            self._connections.discard(connection)
            self._carry_out(pool.drop())
            return
        outcome = pool.give_back(connection, connection.idle_since + connection.keep_s)
        if isinstance(outcome, Grant):
            self._carry_out(outcome)
        elif outcome is not None:
            self._retire(outcome)

    def _carry_out(self, grant: Grant[OutgoingConnection, asyncio.Future[_Granted]] | None) -> None:
        if grant is not None:
            grant.waiter.set_result(grant.connection)

    def _discard(self, origin: Origin, connection: OutgoingConnection) -> None:
        """A taken connection that turned out dead."""
        self._retire(connection)
        self._carry_out(self._pools[origin].drop())

    def idle_lost(self, pool: ConnectionPool, connection: OutgoingConnection) -> None:
        self._connections.discard(connection)
        pool.forget_idle(connection)

    def _retire(self, connection: OutgoingConnection) -> None:
        self._connections.discard(connection)
        connection.abort()

    def _sweep(self, now: float) -> None:
        for connection in tuple(self._connections):
            connection.sweep(now)
        for origin, pool in tuple(self._pools.items()):
            for connection in pool.expired(now):
                self._retire(connection)
            if pool.is_empty:
                del self._pools[origin]


@lru_cache(maxsize=256)
def _host_line(origin: Origin) -> bytes:
    line = f"host: {origin.authority}\r\n".encode("ascii")
    if len(line.split()) != 2:
        raise ValueError("a host with white space in it")
    return line


def _connect_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "tls_failed"
    if isinstance(error, ConnectionRefusedError):
        return "connection_refused"
    return "connect_failed"

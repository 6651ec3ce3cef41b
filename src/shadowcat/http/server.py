"""The server side: listens, and keeps the connections it accepted until each has ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any, NamedTuple

from shadowcat.aio import Tasks, cancel_and_join
from shadowcat.http.check import Refusal
from shadowcat.http.connection import Connection
from shadowcat.http.flow import Sweeper, interval_for, notice_vanished
from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Response
from shadowcat.http.serving import Forwarding, Handler, Serving, in_plain_text

log = logging.getLogger("shadowcat.http")

BACKLOG = 1024
"""Connections that the system keeps for us, by address, until they are accepted."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    connections: int
    """Open, or lost while their handler still runs."""
    requests: int
    refused: int
    """Requests the engine answered itself because they were malformed, too large or too slow."""
    slow_closed: int
    """Connections cut because the client accepted no bytes."""
    errors: Mapping[int, int]
    """Answers by status, of those from 400 on."""
    body_bytes: int
    """Held of the bodies of requests."""


class _Listener(NamedTuple):
    accepting: asyncio.Server
    tls: ssl.SSLContext | None
    is_shared: bool
    """Somebody else has the socket too."""


class Server:
    """Serves `handler` on any number of addresses.

    `handler` gets each request whole and returns a coroutine for its `Response`, which runs in a task of its own, or
    a `Later`. When the client goes away neither is cancelled unless it asked for that
    (`Request.cancel_on_disconnect`).
    """

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits | None = None,
        forwarding: Forwarding | None = None,
        tell: Callable[[Refusal], Response] = in_plain_text,
    ) -> None:
        """`tell` makes the answer to what the engine refuses by itself."""
        self._serving = Serving(handler, limits or ServerLimits(), forwarding, tell)
        self._listeners: list[_Listener] = []
        self._port = 0
        self._tasks = Tasks("server")
        self._sweeper: Sweeper | None = None

    async def listen(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        unix_path: str | None = None,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Starts accepting on one more address: a host and port, a Unix socket, or a socket that is shared with us.

        Who waits in the queue of that one when we stop is left there, for whoever else has it.
        """
        loop = asyncio.get_running_loop()
        self._start_sweeping()
        options: dict[str, Any] = {"backlog": BACKLOG}
        if tls is not None:
            options |= self._with_tls(tls)
        if unix_path is not None:
            listener = await loop.create_unix_server(self._accept, unix_path, **options)
        elif sock is not None:
            listener = await loop.create_server(self._accept, sock=sock, **options)
        else:
            listener = await loop.create_server(self._accept, host, port, **options)
        self._listeners.append(_Listener(listener, tls, is_shared=sock is not None))
        self._port = self._port or _port_of(listener)
        for listening in listener.sockets:
            # The connections it accepts inherit this.
            notice_vanished(listening, self._serving.limits.vanished_s)

    def _with_tls(self, tls: ssl.SSLContext) -> dict[str, Any]:
        return {"ssl": tls, "ssl_handshake_timeout": self._serving.limits.head_wait_s}

    def _accept(self) -> Connection:
        return Connection(self._serving, is_late=self._serving.draining)

    def _start_sweeping(self) -> None:
        if self._sweeper is None:
            limits = self._serving.limits
            interval_s = interval_for(
                limits.head_wait_s, limits.body_wait_s, limits.idle_s, limits.stall_s, limits.linger_s
            )
            self._sweeper = Sweeper(self._sweep, interval_s)
            self._sweep(asyncio.get_running_loop().time())

    def _sweep(self, now: float) -> None:
        self._serving.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        for connection in tuple(self._serving.connections):
            connection.sweep(now)

    @property
    def sockets(self) -> list[Any]:
        return [sock for listener in self._listeners for sock in listener.accepting.sockets]

    @property
    def port(self) -> int:
        """Of the first address that has one: what port 0 became. Known after the listener was closed, too."""
        return self._port

    def statistics(self) -> ServerStatistics:
        serving = self._serving
        return ServerStatistics(
            len(serving.connections),
            serving.requests,
            serving.refused,
            serving.slow_closed,
            dict(serving.errors),
            serving.bodies.held,
        )

    def begin_to_drain(self) -> None:
        """Goes on accepting; each connection ends with what it asks for next or runs now.

        Whoever comes from now on is late (see `Peer`), but not who is in the system's queue already.
        """
        if self._serving.draining:
            return
        self._accept_waiting(self._listeners, is_late=False)
        self._serving.draining = True
        self._drain_connections()

    def _drain_connections(self) -> None:
        """Idle ones soon end."""
        for connection in tuple(self._serving.connections):
            connection.drain()

    async def drain(self, grace_s: float) -> None:
        """Stops accepting, gives what runs or is arriving `grace_s` seconds to be answered, ends what is left.

        Idle connections last for a moment: a request may be on its way on them.
        """
        self.stop_accepting()
        await self._tasks.finish(1.0, grace_s=0.5)
        self._drain_connections()
        await self._wait_empty(grace_s)
        await self.aclose()

    async def aclose(self) -> None:
        """Ends everything now."""
        self._serving.closed = True
        self.stop_accepting()
        connections = tuple(self._serving.connections)
        running = [connection.task for connection in connections if connection.task is not None]
        for connection in connections:
            connection.end()
        await self._tasks.aclose(1.0)
        # A task that never began would never await what it was given.
        await asyncio.sleep(0)
        await cancel_and_join(running, grace_s=1.0)
        # The transports tell their connections in one of the next turns of the loop.
        await self._wait_empty(1.0)
        if self._sweeper is not None:
            self._sweeper.close()
            self._sweeper = None

    def stop_accepting(self) -> None:
        """Serves those who are in the system's queue already: they are connected, and have perhaps sent something."""
        is_late = self._serving.draining
        self._serving.draining = True
        # Closing the last handle of a listening socket resets whoever waits in its queue.
        self._accept_waiting([each for each in self._listeners if not each.is_shared], is_late=is_late)
        for listener in self._listeners:
            listener.accepting.close()
        self._listeners.clear()
        self._drain_connections()

    def _accept_waiting(self, listeners: Iterable[_Listener], *, is_late: bool) -> None:
        for listener in listeners:
            for sock in listener.accepting.sockets:
                # The same handle: there may be no file left for another one.
                listening = socket.socket(fileno=sock.fileno())
                try:
                    self._accept_from(listening, listener.tls, is_late=is_late)
                finally:
                    listening.detach()

    def _accept_from(self, listening: socket.socket, tls: ssl.SSLContext | None, *, is_late: bool) -> None:
        listening.setblocking(False)
        # Linux keeps one more. Whoever comes meanwhile stands behind them, and may come for ever.
        for _ in range(BACKLOG + 1):
            try:
                sock, _ = listening.accept()
            except OSError:
                # Nobody waits any more, or no file is left for who does.
                return
            sock.setblocking(False)
            self._tasks.spawn(self._begin(sock, tls, is_late=is_late), "accept")

    async def _begin(self, sock: socket.socket, tls: ssl.SSLContext | None, *, is_late: bool) -> None:
        """As the listener would."""
        accept = partial(Connection, self._serving, is_late=is_late)
        options = {} if tls is None else self._with_tls(tls)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(accept, sock, **options)
        except OSError as error:
            # It is gone, or does not speak TLS.
            log.debug("a connection that waited did not begin: %s", error)

    async def _wait_empty(self, within_s: float) -> None:
        serving = self._serving
        try:
            async with asyncio.timeout(within_s):
                while serving.connections:
                    serving.emptied.clear()
                    await serving.emptied.wait()
        except TimeoutError:
            pass  # whoever waits ends what is left


def _port_of(listener: asyncio.Server) -> int:
    """0 for a Unix socket."""
    address: tuple[str, int] | str = listener.sockets[0].getsockname()
    return 0 if isinstance(address, str) else int(address[1])

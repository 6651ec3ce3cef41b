"""The admin listener: a server of its own in the same event loop, separate from client traffic."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from shadowcat.admin.answers import answer
from shadowcat.admin.api import Api, bad_body, bad_parameter, failed, not_routed
from shadowcat.admin.body import BadBody, require_json
from shadowcat.admin.feed import Feed
from shadowcat.admin.gate import Gate
from shadowcat.admin.held import HeldApi, Holding, Nobody
from shadowcat.admin.lag import LoopLag
from shadowcat.admin.openapi import document
from shadowcat.admin.operations import Endpoint, Operation
from shadowcat.admin.options import AdminOptions
from shadowcat.admin.page import show_page
from shadowcat.admin.paging import BadParameter
from shadowcat.admin.watched import Recording, Watched
from shadowcat.aio import cancel_and_join
from shadowcat.errors import CannotAdminister
from shadowcat.wire.hosts import Address

MAX_CONNECTIONS = 100
SILENCE_S = 10.0
"""How long a connection may be open without a request that is whole."""
_STOP_S = 2


class Admin:
    """Shows a proxy, and answers those who look after it.

    `async with Admin(proxy, AdminOptions(…)), proxy:` has it there before the proxy serves, to say that it
    does not yet, and until it has drained.
    """

    def __init__(
        self,
        proxy: Watched,
        options: AdminOptions | None = None,
        *,
        holding: Holding | None = None,
        recording: Recording | None = None,
        sock: socket.socket | None = None,
    ) -> None:
        """`holding` is who holds messages for a person, `recording` who records them, if anybody does.

        `sock` listens already at the address of the options, in place of one that is made.
        """
        options = options or AdminOptions()
        shared = proxy.shared
        self._listen = options.listen
        self._lag = LoopLag()
        self._feed = Feed(
            shared.news, shared.clock, shared.node, viewers=options.viewers, events=options.viewer_events
        )
        operations = (
            *Api(proxy, self._feed, self._lag, options, recording).operations(),
            *HeldApi(holding or Nobody()).operations(),
        )
        self._server = _Server(_config(application(operations, options), options.stall_s))
        self._socket = sock
        self._closed = False

    @property
    def port(self) -> int:
        """What port 0 became."""
        assert self._socket is not None, "not open"
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        host = self._listen.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def __aenter__(self) -> Admin:
        """Raises `CannotAdminister`, an `OSError`, where its address cannot be had."""
        self._socket = self._socket or _bound(self._listen)
        try:
            await self._server.start(self._socket)
        except BaseException:
            self._socket.close()
            raise
        self._lag.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._closed or self._socket is None:
            return
        self._closed = True
        self._feed.close()
        self._lag.close()
        await self._server.stop()
        self._socket.close()


def application(operations: Sequence[Operation], options: AdminOptions) -> Gate:
    described = document(operations)

    async def openapi(request: Request) -> Response:
        return answer(described)

    return Gate(
        Starlette(
            routes=[
                Route("/", show_page, methods=["GET"]),
                Route("/api/openapi.json", openapi, methods=["GET"]),
                *_routes(operations),
            ],
            exception_handlers={
                BadParameter: bad_parameter,
                BadBody: bad_body,
                HTTPException: not_routed,
                Exception: failed,
            },
        ),
        options,
    )


def _routes(operations: Sequence[Operation]) -> list[Route]:
    """One for each path, so that who asks in a way that is not there is told of all that are."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint_of(ways), methods=list(ways)) for path, ways in by_path.items()]


def _endpoint_of(ways: Mapping[str, Operation]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        if request.method == "POST":
            # Here rather than in each of them, so that none is forgotten.
            require_json(request)
        return await ways["GET" if request.method == "HEAD" else request.method].endpoint(request)

    return endpoint


def _bound(listen: Address) -> socket.socket:
    """Here rather than in uvicorn, which ends the process where the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen()
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock
    except OSError as error:
        raise CannotAdminister(error.errno, error.strerror or str(error), str(listen)) from error


def _config(app: Gate, stall_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(_Connection, stall_s=stall_s)),
        ws="none",
        loop="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # It would have to be kept up to date.
        date_header=False,
    )


class _Server(uvicorn.Server):
    """Started and stopped from here: by itself it takes the signals of the process, and looks about every 100 ms."""

    async def start(self, sock: socket.socket) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup([sock])

    async def stop(self) -> None:
        state = self.server_state
        for listening in self.servers:
            listening.close()
        for connection in tuple(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(tuple(state.tasks), timeout=_STOP_S)
        await cancel_and_join(tuple(state.tasks), grace_s=1.0)
        for connection in tuple(state.connections):
            cast(H11Protocol, connection).transport.abort()
        # The transports tell their connections in the next turn of the loop.
        await asyncio.sleep(0)


class _Connection(H11Protocol):
    """uvicorn gives a connection all the time in the world to ask and to read, and takes any number of them."""

    def __init__(self, *args: Any, stall_s: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._stall_s = stall_s
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._look_later()

    def _look_later(self) -> None:
        self._look = self.loop.call_later(SILENCE_S, self._look_after)

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self.connections:
            self._look.cancel()
            self._take_up()
            super().connection_lost(exc)

    def _look_after(self) -> None:
        """Neither answering, nor in the pause between two requests: a request is long in coming."""
        # None before the first request, whatever its type says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_answering = cycle is not None and not cycle.response_complete
        if not is_answering and self.timeout_keep_alive_task is None:
            self.transport.abort()
        else:
            self._look_later()

    # A client that reads too little: the server waits for it, within bounds.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._take_up()
        super().resume_writing()

    def _wait_for_reader(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(self._stall_s, self._look_at_reader, left)

    def _look_at_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._wait_for_reader()
        else:
            self.transport.abort()

    def _take_up(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

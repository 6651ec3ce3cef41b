"""Where the parts are put together: the one module that knows them all."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server

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

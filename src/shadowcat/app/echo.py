"""The engine alone, to try it or to measure it."""

from __future__ import annotations

from collections.abc import Callable

from shadowcat.app.process import DRAIN_S, until_stopped
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server


async def echo(host: str, port: int, announce: Callable[[str], None]) -> None:
    """Answers every request with its own body, until told to stop."""

    async def handle(request: Request) -> Response:
        kind = request.headers.get(b"content-type") or b"application/octet-stream"
        return Response(200, [(b"content-type", kind)], request.body)

    server = Server(handle)
    await server.listen(host, port)

    def echoing() -> None:
        announce(f"echoing on http://{host}:{server.port}/ (Ctrl-C stops it)")

    await until_stopped(lambda: server.drain(DRAIN_S), echoing)

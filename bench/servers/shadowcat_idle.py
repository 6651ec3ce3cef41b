"""Our server with an echo behind it."""

from __future__ import annotations

from shadowcat.app.process import run, until_stopped
from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server


async def main() -> None:
    async def echo(request: Request) -> Response:
        return Response(200, [(b"content-type", b"application/json")], request.body)

    server = Server(echo, ServerLimits(idle_s=600.0))
    await server.listen("127.0.0.1")
    await until_stopped(lambda: server.drain(1.0), lambda: print(server.port, flush=True))


if __name__ == "__main__":
    run(main())

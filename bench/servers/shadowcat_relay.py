"""A plain relay through our server and our client: `python -m bench.servers.shadowcat_relay UPSTREAM_PORT`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from shadowcat.app.process import run, until_stopped
from shadowcat.http.client import Client, Origin
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server
from shadowcat.wire.headers import HOP_BY_HOP

_OURS = HOP_BY_HOP | {b"host", b"content-length", b"date"}
_MAX_BODY_BYTES = 4 * 1024 * 1024


def relay_to(client: Client, origin: Origin) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def relay(request: Request) -> Response:
        answer = await client.send(
            origin,
            request.method,
            request.target.decode("ascii"),
            [field for field in request.headers if field[0] not in _OURS],
            request.body,
        )
        body = await answer.read(_MAX_BODY_BYTES)
        return Response(answer.status, [field for field in answer.headers if field[0] not in _OURS], body)

    return relay


async def main(upstream_port: int) -> None:
    client = Client()
    server = Server(relay_to(client, Origin("http", "127.0.0.1", upstream_port)))
    await server.listen("127.0.0.1")
    await until_stopped(lambda: server.drain(1.0), lambda: print(server.port, flush=True))
    await client.aclose()


if __name__ == "__main__":
    run(main(int(sys.argv[1])))

"""The event relay one writes first: `python -m bench.servers.naive_stream_relay UPSTREAM_PORT`.

Every event is decoded in full and encoded again; nothing is numbered, kept or resumed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator

from bench.sse import LineByLine
from shadowcat.app.process import run, until_stopped
from shadowcat.http.client import Client, Origin
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server


async def main(upstream_port: int) -> None:
    client = Client()
    origin = Origin("http", "127.0.0.1", upstream_port)

    async def relay(request: Request) -> Response:
        answer = await client.send(
            origin, "POST", "/mcp", [(b"content-type", b"application/json")], request.body
        )
        return Response(200, [(b"content-type", b"text/event-stream")], _again(answer))

    server = Server(relay)
    await server.listen("127.0.0.1")
    await until_stopped(lambda: server.drain(1.0), lambda: print(server.port, flush=True))
    await client.aclose()


async def _again(answer: ClientResponse) -> AsyncIterator[bytes]:
    decoder = LineByLine()
    async for data in answer:
        for event in decoder.feed(data):
            message = json.loads(event.data or b"null")
            yield b"event: message\nid: %b\ndata: %b\n\n" % (event.id or b"", json.dumps(message).encode())


if __name__ == "__main__":
    run(main(int(sys.argv[1])))

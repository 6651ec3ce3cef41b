"""An MCP server that costs next to nothing: what stands behind every proxy that is measured.

It reads no HTTP properly. A request is a head with `Content-Length: ` spelled by one of the proxies measured here,
and a body that begins with a JSON-RPC envelope; the answer carries the id back, because a proxy may look.
Prints its port when it listens.
"""

from __future__ import annotations

import asyncio
import re
from typing import cast

import uvloop

_length = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE).search

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}'
)
_CALLED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"Three documents match: '
    b'q1-revenue.pdf, q2-revenue.pdf and regions.xlsx."}],"isError":false}}'
)


class Answering(asyncio.Protocol):
    def __init__(self) -> None:
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        while data:
            head_end = data.find(b"\r\n\r\n") + 4
            length = _length(data, 0, head_end) if head_end > 3 else None
            end = head_end + (int(length[1]) if length is not None else 0)
            if head_end <= 3 or len(data) < end:
                break
            self._answer(data[head_end:end])
            data = data[end:]
        self._held = data

    def _answer(self, body: bytes) -> None:
        id = body[body.find(b'"id":') + 5 :].partition(b",")[0]
        answer = (_INITIALIZED if b'"initialize"' in body else _CALLED) % id
        self._transport.write(_HEAD % len(answer) + answer)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

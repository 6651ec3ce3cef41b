"""An MCP server that costs next to nothing: what stands behind every proxy that is measured.

It reads no HTTP properly. A request is a head with `Content-Length: ` spelled by one of the proxies measured here,
and a body that begins with a JSON-RPC envelope; the answer carries the id back, because a proxy may look. What is
neither a call nor `initialize` gets as much of an answer as FastMCP's proxy needs before it calls.
Prints its port when it listens. With `events` it answers calls as the official SDKs' servers do: by an event stream, in
three writes.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

_id = re.compile(rb'"id":([0-9]+)').search
_length = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE).search

_AS_EVENTS = "events" in sys.argv[1:]
_EVENTS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"event: message\r\ndata: %b\r\n\r\n"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}'
)
_LISTED = b'{"jsonrpc":"2.0","id":%b,"result":{"tools":[{"name":"search_documents","inputSchema":{"type":"object"}}]}}'
_ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
_NO_STREAM = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
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
        answer = _CALLED if b'"tools/call"' in body else _rare(body)
        if answer is None:
            self._transport.write(_ACCEPTED if body else _NO_STREAM)
            return
        found = _id(body)
        answer %= found[1] if found is not None else b"null"
        if _AS_EVENTS and b'"initialize"' not in body:
            event = _EVENT % answer
            self._transport.write(_EVENTS_HEAD)
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            self._transport.write(b"0\r\n\r\n")
        else:
            self._transport.write(_HEAD % len(answer) + answer)


def _rare(body: bytes) -> bytes | None:
    if b'"initialize"' in body:
        return _INITIALIZED
    return _LISTED if b'"tools/list"' in body else None


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

"""A server that cuts a call's stream in the middle of an event, again and again: `… cut_upstream CUTS WAIT_MS`.

It asks to be called again after WAIT_MS, and the first event after a cut says when the cut was. Prints its port.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import sys
import time

import uvloop

_length = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE).search
_last_id = re.compile(rb"\r\nlast-event-id: *([0-9]+)\r\n", re.IGNORECASE).search
_id = re.compile(rb'"id":([0-9]+)').search

_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}'
)
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_EVENT = (
    b"event: message\nid: %d\nretry: %d\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info",'
    b'"data":{"cut":"%019d"}}}\n\n'
)
_DONE = b'event: message\nid: %d\ndata: {"jsonrpc":"2.0","id":%b,"result":{"content":[]}}\n\n'
_READ_S = 0.05
"""How long the other side has to read an event before the cut, which would take it away."""


class Server:
    def __init__(self, cuts: int, wait_ms: int) -> None:
        self._cuts = cuts
        self._wait_ms = wait_ms
        self._cut_ns = 0
        self._call = b"0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = _length(head)
                body = await reader.readexactly(int(length[1]) if length is not None else 0)
                found = _id(body)
                if found is not None and b'"initialize"' in body:
                    answer = _INITIALIZED % found[1]
                    writer.write(_JSON_HEAD % len(answer) + answer)
                    continue
                if found is not None:
                    self._call = found[1]
                seen = _last_id(head)
                await self._stream(writer, int(seen[1]) if seen is not None else 0)
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever measures has seen enough
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter, seen: int) -> None:
        event = _EVENT % (seen + 1, self._wait_ms, self._cut_ns)
        writer.write(_STREAM_HEAD + event)
        if seen == self._cuts:
            writer.write(_DONE % (seen + 2, self._call))
            return
        writer.write(event[:40])
        await asyncio.sleep(_READ_S)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self._cut_ns = time.monotonic_ns()
        writer.transport.abort()


async def main(cuts: int, wait_ms: int) -> None:
    server = await asyncio.start_server(Server(cuts, wait_ms).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))

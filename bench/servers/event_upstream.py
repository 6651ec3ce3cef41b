"""A server whose every call is answered with a stream of events: `python -m bench.servers.event_upstream EVENTS`.

All of them are made before, with ids of their own, and written as fast as the other side reads. Prints its port.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}'
)
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"X-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
)
_EVENT = (
    b"event: message\nid: %d\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"indexer",'
    b'"data":"document %d of the collection was read and its words were counted"}}\n\n'
)
_DONE = b'event: message\nid: %d\ndata: {"jsonrpc":"2.0","id":%b,"result":{"content":[]}}\n\n'
_PIECE = 256 * 1024


async def main(count: int) -> None:
    events = b"".join([_EVENT % (number, number) for number in range(1, count + 1)])
    pieces = [events[at : at + _PIECE] for at in range(0, len(events), _PIECE)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(_length(head))
                id = body[body.find(b'"id":') + 5 :].partition(b",")[0]
                if b'"initialize"' in body:
                    answer = _INITIALIZED % id
                    writer.write(_JSON_HEAD % len(answer) + answer)
                    continue
                writer.write(_STREAM_HEAD)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                writer.write(_DONE % (count + 1, id))
                break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever measures has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))

"""A server whose calls stay open, and whose events tick when it is told to; each says when it was sent.

The stream of a call belongs to the group that its tool's name says. `POST /tick` with `{"group", "rate", "seconds"}`
sends that many events a second on each stream of the group, spread evenly, and is answered with how many there were;
`POST /end` with `{"group"}` answers the calls of the group. Prints its port.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from typing import Any, NamedTuple

import uvloop

_length = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE).search

_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"X-Accel-Buffering: no\r\nConnection: close\r\n\r\n"
)
_INITIALIZED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "bench", "version": "1"},
}
_EVENT = (
    b"event: message\nid: %d\n"
    b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","logger":"indexer",'
    b'"data":{"at":"%019d","told":"a document of the collection was read and its words counted"}}}\n\n'
)
_DONE = b'event: message\ndata: {"jsonrpc":"2.0","id":%d,"result":{"content":[]}}\n\n'
_TURN_S = 0.001


class Call(NamedTuple):
    id: int
    writer: asyncio.StreamWriter


class Server:
    def __init__(self) -> None:
        self._calls: defaultdict[str, list[Call]] = defaultdict(list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = _length(head)
                body = await reader.readexactly(int(length[1]) if length is not None else 0)
                answer = await self._answer(head, json.loads(body or b"{}"), writer)
                if answer is not None:
                    text = json.dumps(answer).encode()
                    writer.write(_JSON_HEAD % len(text) + text)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, head: bytes, told: dict[str, Any], writer: asyncio.StreamWriter) -> Any:
        if head.startswith(b"POST /tick"):
            return await self._tick(self._calls[told["group"]], told["rate"], told["seconds"])
        if head.startswith(b"POST /end"):
            return self._end(self._calls.pop(told["group"], []))
        if told.get("method") != "tools/call":
            return {"jsonrpc": "2.0", "id": told.get("id", 0), "result": _INITIALIZED}
        writer.write(_STREAM_HEAD)
        self._calls[told["params"]["name"]].append(Call(told["id"], writer))
        return None

    async def _tick(self, calls: list[Call], rate: float, seconds: float) -> int:
        a_second = rate * len(calls)
        total = int(a_second * seconds)
        sent = 0
        started = time.monotonic()
        while sent < total:
            due = min(total, int((time.monotonic() - started) * a_second))
            for number in range(sent, due):
                event = _EVENT % (number, time.monotonic_ns())
                calls[number % len(calls)].writer.write(event)
            sent = due
            await asyncio.sleep(_TURN_S)
        return sent

    def _end(self, calls: list[Call]) -> int:
        for call in calls:
            call.writer.write(_DONE % call.id)
            call.writer.close()
        return len(calls)


async def main() -> None:
    server = await asyncio.start_server(Server().serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

"""A raw HTTP/1.1 server: keeps every request as it came and lets a test write the answer to the byte.

Independent of the engine under test, so that a mistake cannot cancel itself out.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

_LOST = (ConnectionError, asyncio.IncompleteReadError)


@dataclass(eq=False)
class Seen:
    """One request, as it was sent."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: Connection
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client closed its connection before it had its answer."""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def rpc(self) -> str:
        """The JSON-RPC method; empty for a response, or where there is no body."""
        message = self.json if self.body else {}
        return message.get("method", "") if isinstance(message, dict) else "batch"

    # The answer.

    async def respond(
        self,
        status: int,
        body: bytes = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        fields = dict(headers or {})
        if content_type is not None:
            fields["Content-Type"] = content_type
        fields["Content-Length"] = str(len(body))
        await self.raw(_head(status, fields) + body)

    async def begin(self, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        fields = {**(headers or {}), "Content-Type": content_type, "Transfer-Encoding": "chunked"}
        await self.raw(_head(200, fields))

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def finish(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        await self.connection.write(data)

    def cut(self) -> None:
        """A reset, so that nothing looks like a polite end."""
        self.connection.reset()


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class Connection(asyncio.StreamReaderProtocol):
    def __init__(self, listener: Listener) -> None:
        self._reader = asyncio.StreamReader()
        super().__init__(self._reader)
        self._listener = listener
        self.current: Seen | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Under a name of its own: the base class lets go of its `_transport` when the connection is lost.
        self._outlet = cast(asyncio.Transport, transport)
        self._writer = asyncio.StreamWriter(self._outlet, self, self._reader, asyncio.get_running_loop())
        self._listener.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def eof_received(self) -> bool:
        super().eof_received()
        self._gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone()
        self._listener.connections.discard(self)

    def _gone(self) -> None:
        self.lost.set()
        if self.current is not None:
            self.current.dropped.set()

    async def _serve(self) -> None:
        try:
            while True:
                seen = await self._read()
                self.current = seen
                if self.lost.is_set():
                    seen.dropped.set()
                await self._listener.handle(seen)
                self.current = None
        except _LOST:
            pass
        except Exception as error:
            self._listener.failures.append(error)
        finally:
            self._outlet.close()

    async def _read(self) -> Seen:
        raw = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        body = await self._reader.readexactly(int(length))
        return Seen(method, target, headers, body, self)

    async def write(self, data: bytes) -> None:
        if self.lost.is_set():
            raise ConnectionResetError("the client is gone")
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        sock: socket.socket = self._outlet.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._outlet.abort()
        self.lost.set()


class Listener:
    """Serves on a free port; `handle` answers each request, one at a time per connection."""

    def __init__(self, handle: Callable[[Seen], Awaitable[None]]) -> None:
        self.handle = handle
        self.connections: set[Connection] = set()
        self.failures: list[BaseException] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Starts listening; after `close`, on the same port again."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Closes the port and every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = tuple(self.connections)
        for connection in connections:
            connection.task.cancel()
            connection.reset()
        await asyncio.gather(*(connection.task for connection in connections), return_exceptions=True)

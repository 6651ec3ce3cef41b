"""A raw MCP client: says what it is told, also what no decent client would, and shows all it hears."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.rig.server import CC, MODERN, PV
from tests.rig.wait import soon

ACCEPT = ("Accept", "application/json, text/event-stream")
JSON = ("Content-Type", "application/json")
Fields = Sequence[tuple[str, str]]


@dataclass
class Event:
    data: str
    id: str | None = None
    event: str = "message"
    retry: int | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(eq=False)
class Reply:
    """A response whose body may still be on its way."""

    status: int
    headers: dict[str, str]
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _text: str = ""
    _ended: bool = False
    seen: list[Event] = field(default_factory=list[Event])

    @property
    def kind(self) -> str:
        return self.headers.get("content-type", "")

    @property
    def is_stream(self) -> bool:
        return self.kind == "text/event-stream"

    async def _piece(self) -> bytes:
        """A chunk, or all of a body whose length is known; empty at the end. Raises where the connection breaks."""
        if self.headers.get("transfer-encoding") != "chunked":
            return await self._reader.readexactly(int(self.headers.pop("content-length", "0")))
        size = int(await self._reader.readuntil(b"\r\n"), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def body(self) -> bytes:
        async with soon():
            parts: list[bytes] = []
            while piece := await self._piece():
                parts.append(piece)
            body = b"".join(parts)
        self.close()
        return body

    async def json(self) -> Any:
        """The response, whichever way it came."""
        if self.is_stream:
            return (await self.rest())[-1].json
        return json.loads(await self.body())

    async def event(self, within_s: float = 20.0) -> Event | None:
        """The next event, priming ones included; None at the end of the stream."""
        async with soon(within_s):
            while "\n\n" not in self._text:
                if self._ended:
                    return None
                piece = await self._piece()
                if not piece:
                    self._ended = True
                    self.close()
                    return None
                self._text += piece.decode()
        block, _, self._text = self._text.partition("\n\n")
        found = _parsed(block)
        if found is None:
            return await self.event(within_s)
        self.seen.append(found)
        return found

    async def message(self, within_s: float = 20.0) -> Any:
        """The next message: priming events are passed over."""
        while True:
            found = await self.event(within_s)
            assert found is not None, "the stream ended"
            if found.data:
                return found.json

    async def rest(self) -> list[Event]:
        """All events up to the end, priming ones left out."""
        events: list[Event] = []
        while (found := await self.event()) is not None:
            if found.data:
                events.append(found)
        return events

    async def messages(self) -> list[Any]:
        return [event.json for event in await self.rest()]

    @property
    def last_id(self) -> str:
        return next(event.id for event in reversed(self.seen) if event.id)

    def close(self) -> None:
        self._writer.transport.abort()

    def cut(self) -> None:
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def _parsed(block: str) -> Event | None:
    data: list[str] = []
    found = Event("")
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                data.append(value)
            case "id":
                found.id = value
            case "event":
                found.event = value
            case "retry":
                found.retry = int(value)
            case _:
                pass
    if not data and found.retry is None:
        return None
    found.data = "\n".join(data)
    return found


def rpc(method: str, params: Any = None, id: Any = None) -> dict[str, Any]:
    """A request, or without an id a notification."""
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if id is not None:
        message["id"] = id
    message["method"] = method
    if params is not None:
        message["params"] = params
    return message


def envelope(version: str = MODERN, capabilities: Any = None) -> dict[str, Any]:
    return {PV: version, CC: {} if capabilities is None else capabilities}


def modern(method: str, params: Any = None, id: Any = 1, meta: Any = None) -> dict[str, Any]:
    params = dict(params or {})
    params["_meta"] = {**envelope(), **(meta or {})}
    return rpc(method, params, id)


def routing(method: str, name: str | None = None, version: str = MODERN) -> list[tuple[str, str]]:
    fields = [("MCP-Protocol-Version", version), ("Mcp-Method", method)]
    return fields if name is None else [*fields, ("Mcp-Name", name)]


class Client:
    """Speaks to one endpoint; each request has a connection of its own."""

    def __init__(self, port: int, path: str = "/mcp") -> None:
        self.port = port
        self.path = path
        self.session_id: str | None = None
        self.version: str | None = None
        self.local_address: str | None = None
        """Of this machine's loopback addresses, the one to come from."""
        self._writers: list[asyncio.StreamWriter] = []

    # HTTP.

    async def request(
        self, method: str, fields: Iterable[tuple[str, str]] = (), body: bytes | None = None, path: str = ""
    ) -> Reply:
        async with soon():
            reader, writer = await self._connect()
            writer.write(self._encoded(method, fields, body, path))
            return await self._reply(reader, writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=self.local_address and (self.local_address, 0)
        )
        self._writers.append(writer)
        return reader, writer

    def _encoded(
        self, method: str, fields: Iterable[tuple[str, str]], body: bytes | None, path: str = ""
    ) -> bytes:
        fields = list(fields)
        if not any(name.lower() == "host" for name, _ in fields):
            fields.insert(0, ("Host", f"127.0.0.1:{self.port}"))
        if body is not None:
            fields.append(("Content-Length", str(len(body))))
        lines = [f"{method} {path or self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + (body or b"")

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Reply:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head[:-4].split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        return Reply(int(first.split(" ")[1]), headers, reader, writer)

    async def post_together(self, *messages: Any, path: str = "") -> list[Reply]:
        """Each on a connection of its own, and all at once: what reads them reads all of them, in this order."""
        fields = [ACCEPT, JSON, *self.in_session()]
        async with soon():
            wires = [await self._connect() for _ in messages]
            for (_, writer), message in zip(wires, messages, strict=True):
                writer.write(self._encoded("POST", fields, json.dumps(message).encode(), path))
            return [await self._reply(*wire) for wire in wires]

    async def post(
        self, message: Any, *more: tuple[str, str], plain: Fields | None = None, path: str = ""
    ) -> Reply:
        """`plain` replaces Accept and Content-Type; bytes are sent as they are."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await self.request("POST", [*((ACCEPT, JSON) if plain is None else plain), *more], body, path)

    # A legacy session.

    def in_session(self) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        if self.session_id is not None:
            fields.append(("Mcp-Session-Id", self.session_id))
        if self.version is not None:
            fields.append(("MCP-Protocol-Version", self.version))
        return fields

    async def initialize(
        self, version: str = "2025-11-25", capabilities: Any = None, *, initialized: bool = True
    ) -> Any:
        """Opens a session and returns the InitializeResult."""
        params = {
            "protocolVersion": version,
            "capabilities": {} if capabilities is None else capabilities,
            "clientInfo": {"name": "rig", "version": "1"},
        }
        reply = await self.post(rpc("initialize", params, 0))
        answer = await reply.json()
        assert reply.status == 200, answer
        assert "result" in answer, answer
        self.session_id = reply.headers["mcp-session-id"]
        self.version = answer["result"]["protocolVersion"]
        if initialized:
            assert (await self.notify("notifications/initialized")).status == 202
        return answer["result"]

    async def send(self, message: Any, *more: tuple[str, str]) -> Reply:
        return await self.post(message, *self.in_session(), *more)

    async def begin(self, method: str, params: Any = None, id: Any = 1) -> Reply:
        return await self.send(rpc(method, params, id))

    async def call(self, method: str = "tools/call", params: Any = None, id: Any = 1) -> Any:
        """A request; its response, whichever way it came."""
        if params is None and method == "tools/call":
            params = {"name": "t", "arguments": {}}
        return await (await self.begin(method, params, id)).json()

    async def notify(self, method: str, params: Any = None) -> Reply:
        reply = await self.send(rpc(method, params))
        await reply.body()
        return reply

    async def listen(self, last_event_id: str | None = None) -> Reply:
        fields = [("Accept", "text/event-stream"), *self.in_session()]
        if last_event_id is not None:
            fields.append(("Last-Event-ID", last_event_id))
        return await self.request("GET", fields)

    async def delete(self) -> Reply:
        reply = await self.request("DELETE", self.in_session())
        await reply.body()
        return reply

    # Modern.

    async def ask(
        self, method: str, params: Any = None, *more: tuple[str, str], id: Any = 1, meta: Any = None
    ) -> Reply:
        """A modern request with the headers it needs."""
        name = (params or {}).get("name") or (params or {}).get("uri")
        return await self.post(modern(method, params, id, meta), *routing(method, name), *more)

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def client_of(port: int, path: str = "/mcp") -> AsyncIterator[Client]:
    client = Client(port, path)
    try:
        yield client
    finally:
        client.close()
        with suppress(Exception):
            await asyncio.gather(*(writer.wait_closed() for writer in client._writers))

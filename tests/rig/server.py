"""A scriptable MCP server of both eras: records everything, answers as a test says."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.rig.wait import Changed, happens
from tests.rig.wire import Listener, Seen

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
PV = "io.modelcontextprotocol/protocolVersion"
CC = "io.modelcontextprotocol/clientCapabilities"
SUB = "io.modelcontextprotocol/subscriptionId"

FULL: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
}


def event(message: Any, *, id: str | None = None, retry: int | None = None) -> bytes:
    head = "event: message\n"
    if id is not None:
        head += f"id: {id}\n"
    if retry is not None:
        head += f"retry: {retry}\n"
    data = message if isinstance(message, str) else json.dumps(message)
    return f"{head}data: {data}\n\n".encode()


class Stream:
    """An event stream of the server's, open until it is ended or cut."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.over = asyncio.Event()

    async def send(self, message: Any, *, id: str | None = None, retry: int | None = None) -> None:
        await self.raw(event(message, id=id, retry=retry))

    async def notify(self, method: str, params: Any = None, *, id: str | None = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = params
        await self.send(message, id=id)

    async def request(self, request_id: Any, method: str, params: Any = None) -> None:
        await self.send(
            {"jsonrpc": "2.0", "id": request_id, "method": method}
            | ({"params": params} if params is not None else {})
        )

    async def raw(self, data: bytes) -> None:
        await self.seen.chunk(data)

    async def end(self) -> None:
        await self.seen.finish()
        self.over.set()

    def cut(self) -> None:
        self.seen.cut()
        self.over.set()


class Call:
    """A request being answered."""

    def __init__(self, server: McpServer, seen: Seen) -> None:
        self.server = server
        self.seen = seen
        self.message: dict[str, Any] = seen.json
        self.id = self.message.get("id")
        self.params: dict[str, Any] = self.message.get("params") or {}
        self.headers: dict[str, str] = {}

    @property
    def token(self) -> Any:
        return self.params.get("_meta", {}).get("progressToken")

    @property
    def is_modern(self) -> bool:
        return PV in self.params.get("_meta", {})

    def response(self, result: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": self.id, "result": result}

    async def result(self, result: Any) -> None:
        """As this server answers: JSON, or a stream of one event."""
        if self.is_modern and isinstance(result, dict):
            result = {"resultType": "complete"} | result
        if self.server.answers_json:
            await self.json(self.response(result))
        else:
            stream = await self.stream()
            await stream.send(self.response(result))
            await stream.end()

    async def json(self, message: Any, status: int = 200) -> None:
        await self.seen.respond(status, json.dumps(message).encode(), "application/json", self.headers)

    async def error(self, code: int, message: str, *, status: int = 200, data: Any = None) -> None:
        error = {"code": code, "message": message} | ({} if data is None else {"data": data})
        await self.json({"jsonrpc": "2.0", "id": self.id, "error": error}, status)

    async def stream(self) -> Stream:
        await self.seen.begin("text/event-stream", self.headers)
        return Stream(self.seen)

    async def answered(self, upstream_id: Any) -> Seen:
        """The client's answer to a request of this server's."""
        return await self.server.answer_to(upstream_id)


Handler = Callable[[Call], Awaitable[None]]


@dataclass(eq=False)
class McpServer:
    name: str = "fixture"
    answers_json: bool = True
    issues_ids: bool = True
    next_ids: list[str] = field(default_factory=list[str])
    """Session ids to give out before made-up ones."""
    versions: tuple[str, ...] = LEGACY
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(FULL))
    offers_get: bool = True
    delete_status: int = 200
    lost_as: tuple[int, Any] = (404, None)
    """How an unknown session is told: a status and the JSON-RPC error that comes with it."""
    requests: list[Seen] = field(default_factory=list[Seen])
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Live sessions and the parameters they were opened with."""
    listening: list[Stream] = field(default_factory=list[Stream])
    """The standalone streams that were opened, oldest first."""
    handlers: dict[str, Handler] = field(default_factory=dict[str, Handler])
    on_get: Callable[[Seen], Awaitable[None]] | None = None
    """Answers a GET that resumes, or every GET where this server is told to."""
    on_delete: Callable[[Seen], Awaitable[None]] | None = None
    """Answers every DELETE where this server is told to."""
    _changed: Changed = field(default_factory=Changed)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.listener = Listener(self._handle)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}/mcp"

    def on(self, method: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.handlers[method] = handler
            return handler

        return add

    def restart(self) -> None:
        """Forgets every session, as a new process would."""
        self.sessions.clear()

    # What it was sent.

    def got(self, what: str) -> list[Seen]:
        """The requests with this JSON-RPC method, or with this HTTP method."""
        if what in ("GET", "DELETE"):
            return [seen for seen in self.requests if seen.method == what]
        return [seen for seen in self.requests if seen.method == "POST" and seen.rpc == what]

    async def gets(self, what: str, count: int = 1) -> Seen:
        """Waits for the `count`-th of them."""
        await self._changed.until(lambda: len(self.got(what)) >= count)
        return self.got(what)[count - 1]

    async def listens(self, count: int = 1) -> Stream:
        await self._changed.until(lambda: len(self.listening) >= count)
        return self.listening[count - 1]

    async def answer_to(self, upstream_id: Any) -> Seen:
        def found() -> list[Seen]:
            return [
                seen
                for seen in self.requests
                if seen.method == "POST"
                and isinstance(seen.json, dict)
                and "method" not in seen.json
                and seen.json.get("id") == upstream_id
            ]

        await self._changed.until(found)
        return found()[0]

    # Answering.

    async def _handle(self, seen: Seen) -> None:
        self.requests.append(seen)
        self._changed.tell()
        if seen.method == "GET":
            await self._get(seen)
        elif seen.method == "DELETE":
            await self._delete(seen)
        else:
            await self._post(seen)

    def _knows(self, seen: Seen) -> bool:
        return not self.issues_ids or seen.get("mcp-session-id") in self.sessions

    async def _lost(self, seen: Seen) -> None:
        status, error = self.lost_as
        if error is None:
            await seen.respond(status)
        else:
            body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
            await seen.respond(status, body, "application/json")

    async def _get(self, seen: Seen) -> None:
        if self.on_get is not None and (seen.get("last-event-id") is not None or not self.offers_get):
            await self.on_get(seen)
        elif not self.offers_get:
            await seen.respond(405, headers={"Allow": "POST"})
        elif not self._knows(seen):
            await self._lost(seen)
        else:
            await seen.begin("text/event-stream")
            stream = Stream(seen)
            self.listening.append(stream)
            self._changed.tell()
            await _either(stream.over, seen.dropped)

    async def _delete(self, seen: Seen) -> None:
        if self.on_delete is not None:
            await self.on_delete(seen)
            return
        if not self._knows(seen):
            await self._lost(seen)
            return
        if self.delete_status < 300:
            self.sessions.pop(seen.get("mcp-session-id") or "", None)
        await seen.respond(self.delete_status)

    async def _post(self, seen: Seen) -> None:
        message = seen.json
        if not isinstance(message, dict) or "method" not in message:
            if handler := self.handlers.get("answer"):
                await handler(Call(self, seen))
            else:
                await seen.respond(202)
            return
        call = Call(self, seen)
        method = message["method"]
        if method != "initialize" and not call.is_modern and not self._knows(seen):
            await self._lost(seen)
        elif handler := self.handlers.get(method):
            await handler(call)
        elif call.id is None:
            await seen.respond(202)
        elif method == "initialize":
            await self.initialize(call)
        else:
            await self._default(call, method)

    async def initialize(self, call: Call) -> None:
        asked = call.params.get("protocolVersion")
        version = asked if asked in self.versions else self.versions[0]
        if self.issues_ids:
            id = self.next_ids.pop(0) if self.next_ids else f"up-{self.name}-{next(self._ids)}"
            self.sessions[id] = call.params
            call.headers["Mcp-Session-Id"] = id
        await call.result(
            {
                "protocolVersion": version,
                "capabilities": self.capabilities,
                "serverInfo": {"name": self.name, "version": "1"},
            }
        )

    async def _default(self, call: Call, method: str) -> None:
        match method:
            case "tools/call":
                await call.result({"content": [{"type": "text", "text": self.name}]})
            case "tools/list":
                await call.result({"tools": []})
            case "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" | "ping":
                await call.result({})
            case "server/discover":
                await call.result({"supportedVersions": [MODERN], "capabilities": self.capabilities})
            case _:
                await call.error(-32601, "Method not found", status=404 if call.is_modern else 200)


async def _either(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@asynccontextmanager
async def mcp_server(**script: Any) -> AsyncIterator[McpServer]:
    server = McpServer(**script)
    await server.listener.open()
    try:
        yield server
    finally:
        await server.listener.close()
    assert not server.listener.failures, server.listener.failures


def holding(released: asyncio.Event, then: Handler) -> Handler:
    """Answers once it is released."""

    async def handle(call: Call) -> None:
        await happens(released)
        await then(call)

    return handle


def refusing(status: int, body: bytes = b"", content_type: str | None = None, **headers: str) -> Handler:
    fields: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}

    async def handle(call: Call) -> None:
        await call.seen.respond(status, body, content_type, fields)

    return handle

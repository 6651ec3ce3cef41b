"""A scriptable server of the 2024-11-05 transport: a stream per session, and a URL to post to."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.rig.server import FULL, LEGACY, event
from tests.rig.wait import Changed, soon
from tests.rig.wire import Listener, Seen


class OldSession:
    """One open stream of the server's, and what was posted for it."""

    def __init__(self, id: str, seen: Seen) -> None:
        self.id = id
        self.seen = seen
        self.posted: list[Any] = []
        self.over = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.raw(event(message))

    async def raw(self, data: bytes) -> None:
        await self.seen.chunk(data)

    async def notify(self, method: str, params: Any = None) -> None:
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        await self.send(message if params is None else {**message, "params": params})

    async def request(self, id: Any, method: str, params: Any = None) -> None:
        await self.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})

    async def end(self) -> None:
        await self.seen.finish()
        self.over.set()

    def cut(self) -> None:
        self.seen.cut()
        self.over.set()


class OldCall:
    """A posted request; its answer goes onto the stream."""

    def __init__(self, session: OldSession, message: dict[str, Any]) -> None:
        self.session = session
        self.message = message
        self.id = message["id"]
        self.params: dict[str, Any] = message.get("params") or {}

    @property
    def token(self) -> Any:
        return self.params.get("_meta", {}).get("progressToken")

    async def result(self, result: Any) -> None:
        await self.session.send({"jsonrpc": "2.0", "id": self.id, "result": result})


Handler = Callable[[OldCall], Awaitable[None]]


@dataclass(eq=False)
class OldServer:
    name: str = "old"
    capabilities: dict[str, Any] = field(default_factory=lambda: dict(FULL))
    endpoint: str = "/messages?session_id={id}"
    """What is said of where to post; None of the sessions are found elsewhere."""
    accepted: int = 202
    handlers: dict[str, Handler] = field(default_factory=dict[str, Handler])
    on_get: Callable[[Seen], Awaitable[None]] | None = None
    on_post: Callable[[Seen], Awaitable[bool]] | None = None
    """Sees every POST first; true when it has answered it."""
    sessions: dict[str, OldSession] = field(default_factory=dict[str, OldSession])
    opened: list[OldSession] = field(default_factory=list[OldSession])
    requests: list[Seen] = field(default_factory=list[Seen])
    changed: Changed = field(default_factory=Changed)
    _answering: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.listener = Listener(self._handle)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.port}/sse"

    def on(self, method: str) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.handlers[method] = handler
            return handler

        return add

    # What it was sent.

    @property
    def last(self) -> OldSession:
        return self.opened[-1]

    def got(self, method: str) -> list[Any]:
        return [
            message
            for session in self.opened
            for message in session.posted
            if isinstance(message, dict) and message.get("method") == method
        ]

    async def gets(self, method: str, count: int = 1) -> Any:
        await self.changed.until(lambda: len(self.got(method)) >= count)
        return self.got(method)[count - 1]

    async def opens(self, count: int) -> OldSession:
        await self.changed.until(lambda: len(self.opened) >= count)
        return self.opened[count - 1]

    async def answer_to(self, id: Any) -> Any:
        def found() -> list[Any]:
            posted = [message for session in self.opened for message in session.posted]
            return [one for one in posted if "method" not in one and one.get("id") == id]

        await self.changed.until(found)
        return found()[0]

    # Answering.

    async def _handle(self, seen: Seen) -> None:
        self.requests.append(seen)
        if seen.method == "GET" and urlsplit(seen.target).path == "/sse":
            await (self.on_get or self._get)(seen)
        elif seen.method == "POST" and urlsplit(seen.target).path == "/messages":
            if self.on_post is None or not await self.on_post(seen):
                await self._post(seen)
        else:
            # As Express does.
            await seen.respond(404, b"Cannot POST /sse", "text/html")

    async def _get(self, seen: Seen) -> None:
        session = OldSession(f"s{next(self._ids)}", seen)
        self.sessions[session.id] = session
        await seen.begin("text/event-stream")
        await session.raw(f"event: endpoint\ndata: {self.endpoint.format(id=session.id)}\n\n".encode())
        self.opened.append(session)
        self.changed.tell()
        waiting = [asyncio.ensure_future(one.wait()) for one in (session.over, seen.dropped)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.sessions.pop(session.id, None)
            session.over.set()
            self.changed.tell()
            for one in waiting:
                one.cancel()

    async def _post(self, seen: Seen) -> None:
        [id] = parse_qs(urlsplit(seen.target).query).get("session_id", [""])
        session = self.sessions.get(id)
        if session is None:
            await seen.respond(404, b"Could not find session", "text/plain")
            return
        message = seen.json
        session.posted.append(message)
        self.changed.tell()
        await seen.respond(self.accepted, b"Accepted", "text/plain")
        if "method" in message and "id" in message:
            # The connection that it was posted on may bring the next one meanwhile.
            answering = asyncio.get_running_loop().create_task(self._answer(OldCall(session, message)))
            self._answering.add(answering)
            answering.add_done_callback(self._answered)

    def _answered(self, answering: asyncio.Task[None]) -> None:
        self._answering.discard(answering)
        failure = None if answering.cancelled() else answering.exception()
        if failure is not None and not isinstance(failure, ConnectionError):
            self.listener.failures.append(failure)

    async def close(self) -> None:
        await self.listener.close()
        for answering in self._answering:
            answering.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _answer(self, call: OldCall) -> None:
        method = call.message["method"]
        if handler := self.handlers.get(method):
            await handler(call)
        elif method == "initialize":
            asked = call.params.get("protocolVersion")
            await call.result(
                {
                    "protocolVersion": asked if asked in LEGACY else LEGACY[0],
                    "capabilities": self.capabilities,
                    "serverInfo": {"name": self.name, "version": "1"},
                }
            )
        elif method == "tools/call":
            await call.result({"content": [{"type": "text", "text": json.dumps(call.params)}]})
        else:
            await call.result({})

    async def restart(self) -> None:
        """Everything it had is gone; the address is the same."""
        await self.close()
        self.sessions.clear()
        await self.listener.open()

    async def is_left_by(self, session: OldSession) -> None:
        async with soon():
            await session.over.wait()


@asynccontextmanager
async def old_server(**script: Any) -> AsyncIterator[OldServer]:
    server = OldServer(**script)
    await server.listener.open()
    try:
        yield server
    finally:
        await server.close()
    assert not server.listener.failures, server.listener.failures

"""A raw client of the 2024-11-05 transport: one stream, and messages posted to where it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.rig.client import JSON, Client, Event, Reply, client_of, rpc

ACCEPT_STREAM = ("Accept", "text/event-stream")


class OldClient:
    def __init__(self, http: Client) -> None:
        self.http = http
        self.stream: Reply
        self.endpoint = ""

    async def connect(self) -> None:
        self.stream = await self.http.request("GET", [ACCEPT_STREAM])
        assert (self.stream.status, self.stream.kind) == (200, "text/event-stream")
        first = await self.stream.event()
        assert first is not None
        assert first.event == "endpoint"
        self.endpoint = first.data

    async def post(self, message: Any, *more: tuple[str, str]) -> Reply:
        """As the official clients do, without an Accept of its own."""
        return await self.http.post(message, *more, plain=[JSON], path=self.endpoint)

    async def accepted(self, message: Any) -> None:
        reply = await self.post(message)
        assert (reply.status, await reply.body()) == (202, b"")

    async def ask(self, method: str, params: Any = None, id: Any = 1) -> None:
        await self.accepted(rpc(method, params or {}, id))

    async def notify(self, method: str, params: Any = None) -> None:
        await self.accepted(rpc(method, params))

    async def event(self) -> Event:
        found = await self.stream.event()
        assert found is not None, "the stream ended"
        # The transport knows no resuming, and an event that is empty breaks its clients.
        assert (found.event, found.id, found.retry) == ("message", None, None)
        assert found.data
        return found

    async def message(self) -> Any:
        return (await self.event()).json

    async def call(self, method: str, params: Any = None, id: Any = 1) -> Any:
        """The response to a request that nothing comes before."""
        await self.ask(method, params, id)
        answer = await self.message()
        assert answer["id"] == id, answer
        return answer

    async def initialize(self, version: str = "2024-11-05", capabilities: Any = None) -> Any:
        params = {
            "protocolVersion": version,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "rig", "version": "1"},
        }
        answer = await self.call("initialize", params, 0)
        await self.notify("notifications/initialized")
        return answer["result"]

    async def ends(self) -> None:
        """Waits for the end of the stream, on which nothing more may come."""
        assert await self.stream.event() is None


@asynccontextmanager
async def old_client_of(port: int, path: str = "/sse", *, connected: bool = True) -> AsyncIterator[OldClient]:
    async with client_of(port, path) as http:
        client = OldClient(http)
        if connected:
            await client.connect()
        yield client

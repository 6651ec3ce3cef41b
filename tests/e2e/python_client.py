"""The official Python SDK's client, as an application uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from tests.rig.wait import Changed

MODERN = "2026-07-28"
LEGACY = ("2025-03-26", "2025-06-18", "2025-11-25")
VERSIONS = (*LEGACY, MODERN)


def plain(value: Any) -> Any:
    """What the application got, comparable and readable."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


def text_of(result: types.CallToolResult) -> str:
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


@dataclass(eq=False)
class App:
    """An application: its client, and what reached it beside the results it asked for."""

    version: str
    logs: list[Any] = field(default_factory=list[Any])
    changes: list[Any] = field(default_factory=list[Any])
    asked: list[Any] = field(default_factory=list[Any])
    faults: list[Exception] = field(default_factory=list[Exception])
    progress: list[Any] = field(default_factory=list[Any])
    listens: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the standalone stream of the client is open."""
    elicited: types.ElicitResult = field(
        default_factory=lambda: types.ElicitResult(
            action="accept", content={"name": "Ada", "username": "ada", "email": "ada@example.org"}
        )
    )
    changed: Changed = field(default_factory=Changed)
    client: Client = field(init=False)

    @property
    def is_modern(self) -> bool:
        return self.version == MODERN

    async def call(self, name: str, /, **arguments: Any) -> Any:
        return await self.client.call_tool(name, arguments, progress_callback=self.progressed)

    async def says(self, name: str, /, **arguments: Any) -> str:
        return text_of(await self.call(name, **arguments))

    @property
    def steps(self) -> list[float]:
        return [step for step, _, _ in self.progress]

    async def progressed_to(self, step: int) -> None:
        await self.changed.until(lambda: len(self.progress) >= step)

    async def set_level(self, level: types.LoggingLevel) -> None:
        await self.client.set_logging_level(level)

    async def subscribe(self, uri: str) -> None:
        await self.client.subscribe_resource(uri)

    # Callbacks.

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))
        self.changed.tell()

    async def logged(self, params: types.LoggingMessageNotificationParams) -> None:
        self.logs.append(plain(params))
        self.changed.tell()

    async def told(self, message: Any) -> None:
        if isinstance(message, Exception):
            self.faults.append(message)
        elif not isinstance(message, types.LoggingMessageNotification | types.ProgressNotification):
            said = plain(message)
            said.get("params", {}).pop("_meta", None)
            self.changes.append(said)
        self.changed.tell()

    async def sample(self, context: Any, params: types.CreateMessageRequestParams) -> Any:
        self.asked.append(plain(params))
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="Paris"), model="test-model"
        )

    async def elicit(self, context: Any, params: types.ElicitRequestParams) -> Any:
        self.asked.append(plain(params))
        return self.elicited

    async def list_roots(self, context: Any) -> Any:
        self.asked.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///work", name="work")])  # pyright: ignore[reportArgumentType]

    async def answered(self, response: httpx2.Response) -> None:
        if response.request.method == "GET" and response.status_code == 200:
            self.listens.set()


@asynccontextmanager
async def application(url: str, version: str, **options: Any) -> AsyncIterator[App]:
    """Connected as `version` wants it: legacy by the handshake, modern by asking first what the server speaks."""
    app = App(version)
    async with create_mcp_http_client() as http:
        http.event_hooks = {"response": [app.answered]}
        app.client = Client(
            sse_client(url) if url.endswith("/sse") else streamable_http_client(url, http_client=http),
            mode="auto" if app.is_modern else "legacy",
            sampling_callback=app.sample,
            elicitation_callback=app.elicit,
            list_roots_callback=app.list_roots,
            logging_callback=app.logged,
            message_handler=app.told,
            read_timeout_seconds=30,
            **options,
        )
        # The client offers its newest version and has no setting for it.
        with patch("mcp.client.session.LATEST_HANDSHAKE_VERSION", version):
            await app.client.__aenter__()
        try:
            assert app.client.protocol_version == version
            yield app
        finally:
            await app.client.__aexit__(None, None, None)


async def error_of(awaitable: Any) -> Any:
    try:
        return {"unexpected": plain(await awaitable)}
    except MCPError as error:
        return {"code": error.code, "message": error.message, "data": error.data}

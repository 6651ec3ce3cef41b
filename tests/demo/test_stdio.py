"""`shadowcat demo --server stdio`, with the official client and by hand."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from shadowcat.app.demo_stdio import DemoOverStdio
from tests.e2e.python_client import text_of
from tests.rig.wait import soon
from tests.stdio.editor import call, editor, line

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

SERVER = (sys.executable, "-m", "shadowcat", "demo", "--server", "stdio")
PV, CC = (f"io.modelcontextprotocol/{name}" for name in ("protocolVersion", "clientCapabilities"))
ENVELOPE = {PV: "2026-07-28", CC: {}}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client(mode: Any) -> None:
    steps: list[float] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        steps.append(progress)

    async def elicit(context: Any, params: types.ElicitRequestParams) -> Any:
        return types.ElicitResult(action="accept", content={"name": "Ada"})

    transport = stdio_client(StdioServerParameters(command=SERVER[0], args=list(SERVER[1:])))
    async with Client(transport, mode=mode, elicitation_callback=elicit, read_timeout_seconds=60) as client:
        assert client.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")
        counted = await client.call_tool("count", {"to": 3, "pause_ms": 1}, progress_callback=progressed)
        assert text_of(counted) == "Counted to 3."
        assert steps == [1, 2, 3]
        assert text_of(await client.call_tool("ask", {})) == "You are Ada."


async def test_what_was_asked_before_the_end_of_stdin_is_answered() -> None:
    async with editor(*SERVER) as client:
        await client.initialize()
        await client.send(call(1, "greet"))
        code, out, err = await client.end()
    assert (code, err) == (0, b"")
    assert json.loads(out)["result"]["content"][0]["text"] == "Hello, world!"


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"{nonsense\n", -32700),
        (line({"id": 1, "method": "tools/list"}), -32600),
        (line({"id": 1, "method": "ping", "params": {"_meta": ENVELOPE}}), -32601),
        (line({"id": 1, "method": "tools/list", "params": {"_meta": {PV: "2026-07-28"}}}), -32602),
        (
            line({"id": 1, "method": "tools/list", "params": {"_meta": {**ENVELOPE, PV: "1900-01-01"}}}),
            -32022,
        ),
    ],
)
async def test_what_it_refuses(sent: bytes, code: int) -> None:
    async with editor(*SERVER) as client:
        await client.send(sent)
        assert (await client.message())["error"]["code"] == code


async def test_an_id_that_is_in_flight_is_told_as_that() -> None:
    async with editor(*SERVER) as client:
        await client.initialize()
        await client.send(call(1, "sleep", seconds=600), call(1, "greet"))
        error = (await client.message())["error"]
        assert (error["code"], error["message"]) == (-32600, "A request with this id is in flight")


async def test_who_reads_nothing_is_not_listened_to_for_ever() -> None:
    """Refusals wait in one task, however many, and none is lost."""
    count = 20_000
    (stdin, ours), (theirs, stdout) = os.pipe(), os.pipe()
    demo = DemoOverStdio(stdin, stdout)
    running = asyncio.create_task(demo.run())
    writing = asyncio.create_task(asyncio.to_thread(_write_all, ours, b"{\n" * count))
    got = 0
    async with soon():
        while got < count:
            got += (await asyncio.to_thread(os.read, theirs, 1_000)).count(b"\n")
            assert len(demo._tasks) <= 1  # pyright: ignore[reportPrivateUsage]
        await writing
        await running
    os.close(theirs)


def _write_all(fd: int, data: bytes) -> None:
    with os.fdopen(fd, "wb") as file:
        file.write(data)


async def test_a_cancelled_call_is_not_answered() -> None:
    async with editor(*SERVER) as client:
        await client.initialize()
        await client.send(
            call(1, "sleep", seconds=600),
            line({"method": "notifications/cancelled", "params": {"requestId": 1}}),
            call(2, "greet"),
        )
        assert (await client.message())["id"] == 2
        assert (await client.end())[0] == 0


async def test_a_subscriber_is_told() -> None:
    async with editor(*SERVER) as client:
        await client.initialize()
        await client.send(
            line({"method": "notifications/initialized"}),
            line({"id": 1, "method": "resources/subscribe", "params": {"uri": "demo://note"}}),
            call(2, "note", text="new"),
        )
        said = [await client.message() for _ in range(3)]
    assert {message.get("id") for message in said} == {1, 2, None}
    [update] = [message for message in said if "id" not in message]
    assert update["params"] == {"uri": "demo://note"}

"""Official servers over stdio behind `shadowcat forward http`, with the official client, one and many at a time.

The long form of the crowd, 100 sessions with 50 calls each, is `make soak`'s.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conformance.suite import serving
from tests.e2e.python_client import MODERN, application, plain, text_of
from tests.e2e.stage import assert_quiet
from tests.rig.children import SPEAKER, runs, text, tool
from tests.rig.client import Client, client_of
from tests.size import sized

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    pytest.mark.timeout(sized(120, 1200)),
]

FIXTURE = (sys.executable, "-m", "tests.e2e.server", "--stdio")
SESSIONS, CALLS = sized((30, 20), (100, 50))


@asynccontextmanager
async def forward(out: Path, *command: str, flags: tuple[str, ...] = ()) -> AsyncIterator[str]:
    log = out / "proxy.log"
    arguments = ("shadowcat", "forward", "http", "--listen", "127.0.0.1:0", *flags, "--", *command)
    async with serving(arguments, log) as url:
        yield url
    assert_quiet(log)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", MODERN])
async def test_the_official_client_and_server(version: str, tmp_path: Path) -> None:
    async with forward(tmp_path, *FIXTURE) as url, application(url, version) as app:
        assert await app.says("greet", name="Ada") == "Hello, Ada!"
        tools = await app.client.list_tools()
        assert "count" in [tool.name for tool in tools.tools]
        await app.call("test_tool_with_progress")
        assert app.steps == [0, 50, 100]
        if version != MODERN:
            assert "Paris" in text_of(await app.call("test_sampling", prompt="Which city?"))
            assert "da" in text_of(await app.call("test_elicitation", message="Who?"))
            assert app.asked
        assert app.faults == []


async def test_server_everything(tmp_path: Path) -> None:
    program = needs.peers() / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    async with (
        forward(tmp_path, str(needs.node()), str(program), "stdio") as url,
        application(url, "2025-11-25") as app,
    ):
        assert "hello" in await app.says("echo", message="hello")
        tools = plain(await app.client.list_tools())["tools"]
        assert len(tools) > 5
        assert "4" in await app.says("get-sum", a=1, b=3)
        await app.call("trigger-long-running-operation", duration=1, steps=4)
        assert len(app.steps) == 4
        assert (await app.client.list_resources()).resources
        assert (await app.client.list_prompts()).prompts
        assert app.faults == []


@pytest.mark.parametrize("flags", [(), ("--shared",)], ids=["own", "shared"])
async def test_a_crowd(flags: tuple[str, ...], tmp_path: Path) -> None:
    async with forward(tmp_path, sys.executable, SPEAKER, flags=flags) as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        async with asyncio.TaskGroup() as tasks:
            members = [tasks.create_task(member(port, name)) for name in range(SESSIONS)]
        pids = {await one for one in members}
    assert len(pids) == (1 if flags else SESSIONS)
    assert not [pid for pid in pids if runs(pid)]


async def member(port: int, name: int) -> int:
    """One of the crowd: ids and tokens are the same as everybody's, answers must be its own."""
    async with client_of(port) as client:
        await client.initialize()
        for number in range(CALLS):
            await one_call(client, name, number)
        return int(text(await client.call(params=tool("pid"))))


async def one_call(client: Client, name: int, number: int) -> None:
    if number % 2:
        answer = await client.call(params=tool("echo", name=name, number=number), id=number)
        assert text(answer) == f'{{"name": {name}, "number": {number}}}'
        return
    reply = await client.begin("tools/call", tool("count", token=number, to=3), number)
    got: list[Any] = await reply.messages()
    assert [message["params"]["progressToken"] for message in got[:-1]] == [number] * 3
    assert got[-1]["id"] == number

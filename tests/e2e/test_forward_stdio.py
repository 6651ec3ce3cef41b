"""Official clients that start official servers, with `shadowcat forward stdio` in the server's place."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests import needs
from tests.e2e.node_client import SCRIPTS
from tests.e2e.python_client import MODERN, plain, text_of
from tests.rig.wait import soon
from tests.stdio.editor import forwarding

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

FIXTURE = (sys.executable, "-m", "tests.e2e.server", "--stdio")


def everything() -> tuple[str, ...]:
    program = needs.peers() / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return (str(needs.node()), str(program), "stdio")


def started(command: tuple[str, ...]) -> StdioServerParameters:
    program, *args = forwarding(*command)
    return StdioServerParameters(command=program, args=args, cwd=needs.ROOT, env=dict(os.environ))


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
async def test_the_python_client_and_server(version: str) -> None:
    mode = "auto" if version == MODERN else "legacy"
    async with Client(stdio_client(started(FIXTURE)), mode=mode) as client, soon(60):
        assert text_of(await client.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "count" in names
        calls = (client.call_tool("greet", {"name": str(number)}) for number in range(50))
        assert [text_of(got) for got in await asyncio.gather(*calls)] == [f"Hello, {n}!" for n in range(50)]


async def test_the_python_client_and_server_everything() -> None:
    async with Client(stdio_client(started(everything())), mode="legacy") as client, soon(60):
        assert "hello" in text_of(await client.call_tool("echo", {"message": "hello"}))
        assert len(plain(await client.list_tools())["tools"]) > 5


async def test_the_typescript_client_and_server_everything() -> None:
    command = everything()
    process = await asyncio.create_subprocess_exec(
        str(needs.node()),
        str(SCRIPTS / "stdio.cjs"),
        *forwarding(*command),
        stdout=asyncio.subprocess.PIPE,
        cwd=needs.ROOT,
        env={**os.environ, "NODE_PATH": str(needs.peers())},
    )
    try:
        async with soon(60):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seen = json.loads(out)
    assert process.returncode == 0
    assert seen["echo"].endswith("Ørjan 猫")
    assert [str(number + 1) in text for number, text in enumerate(seen["sums"])] == [True] * 50
    # Progress that this SDK reads in one piece with the answer is lost in it, here as from the server itself.
    assert seen["steps"] in ([1, 2, 3], [1, 2, 3, 4])
    assert len(seen["tools"]) > 5
    assert seen["prompts"]
    assert seen["resources"]

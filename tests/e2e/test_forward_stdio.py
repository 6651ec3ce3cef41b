"""Official clients that start what they take for a server: `shadowcat forward stdio`, before official servers.

Before commands of theirs, and before those that speak HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests import needs
from tests.e2e.everything import everything, server_everything
from tests.e2e.node_client import SCRIPTS
from tests.e2e.python_client import MODERN, plain, text_of
from tests.e2e.stage import Stage
from tests.rig.wait import soon
from tests.stdio.editor import bridging, forwarding

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

FIXTURE = (sys.executable, "-m", "tests.e2e.server", "--stdio")


def started(command: tuple[str, ...]) -> StdioServerParameters:
    program, *args = command
    return StdioServerParameters(command=program, args=args, cwd=needs.ROOT, env=dict(os.environ))


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
async def test_the_python_client_and_server(version: str) -> None:
    mode = "auto" if version == MODERN else "legacy"
    async with Client(stdio_client(started(forwarding(*FIXTURE))), mode=mode) as client, soon(60):
        assert text_of(await client.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "count" in names
        calls = (client.call_tool("greet", {"name": str(number)}) for number in range(50))
        assert [text_of(got) for got in await asyncio.gather(*calls)] == [f"Hello, {n}!" for n in range(50)]


async def test_the_python_client_and_server_everything() -> None:
    async with (
        Client(stdio_client(started(forwarding(*everything("stdio")))), mode="legacy") as client,
        soon(60),
    ):
        assert "hello" in text_of(await client.call_tool("echo", {"message": "hello"}))
        assert len(plain(await client.list_tools())["tools"]) > 5


async def test_the_typescript_client_and_server_everything() -> None:
    await typescript(forwarding(*everything("stdio")))


async def typescript(command: tuple[str, ...]) -> None:
    """Uses that server by the TypeScript SDK's client, which starts `command`."""
    process = await asyncio.create_subprocess_exec(
        str(needs.node()),
        str(SCRIPTS / "stdio.cjs"),
        *command,
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


# Before a server that speaks HTTP.


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
async def test_the_python_client_and_a_server_over_http(version: str, stage: Stage) -> None:
    mode = "auto" if version == MODERN else "legacy"
    async with Client(stdio_client(started(bridging(stage.direct))), mode=mode) as client, soon(60):
        assert text_of(await client.call_tool("greet", {"name": "Ada"})) == "Hello, Ada!"
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "count" in names
        calls = (client.call_tool("greet", {"name": str(number)}) for number in range(50))
        assert [text_of(got) for got in await asyncio.gather(*calls)] == [f"Hello, {n}!" for n in range(50)]


async def test_server_everything_over_http(tmp_path: Path) -> None:
    async with server_everything(tmp_path / "server.log", "streamableHttp") as url:
        async with Client(stdio_client(started(bridging(url))), mode="legacy") as client, soon(60):
            assert "hello" in text_of(await client.call_tool("echo", {"message": "hello"}))
            assert len(plain(await client.list_tools())["tools"]) > 5
        await typescript(bridging(url))

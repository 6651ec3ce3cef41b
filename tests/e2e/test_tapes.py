"""A tape of the official client and server: played as the server, and as the client."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.e2e.everything import everything
from tests.e2e.python_client import MODERN, App, application, plain
from tests.rig.wait import soon

pytestmark = [pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"), pytest.mark.timeout(300)]

SHADOWCAT = (sys.executable, "-m", "shadowcat")
VERSION = "2025-11-25"
PATIENT_S = 60.0


@asynccontextmanager
async def serving(*args: str, command: tuple[str, ...] = ()) -> AsyncIterator[str]:
    """A command of ours that says where it serves."""
    words = (*args, "--listen", "127.0.0.1:0", *(("--", *command) if command else ()))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        *SHADOWCAT, *words, stdout=PIPE, cwd=needs.ROOT, env=environment
    )
    try:
        assert process.stdout is not None
        async with soon(PATIENT_S):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        yield found[0]
    finally:
        process.terminate()
        async with soon(PATIENT_S):
            await process.wait()


async def script(app: App) -> Any:
    """What an application does with a server, and all it gets."""
    client = app.client
    return [
        plain(client.server_info),
        plain(await client.list_tools()),
        await app.says("echo", message="Ørjan “quoted” 猫"),
        [await app.says("get-sum", a=number, b=1) for number in range(3)],
        plain(await app.call("trigger-long-running-operation", duration=0.2, steps=2)),
        app.progress,
        plain(await client.list_prompts()),
        plain(await client.list_resource_templates()),
        plain(await app.call("get-structured-content", location="Chicago")),
    ]


async def transcript(url: str) -> Any:
    async with application(url, VERSION) as app, soon(PATIENT_S):
        return await script(app)


async def replayed(tape: Path, *command: str) -> tuple[int, list[str]]:
    """The tape's client against a command: the exit code, and the lines."""
    process = await asyncio.create_subprocess_exec(
        *SHADOWCAT, "replay", str(tape), "--", *command, stdout=PIPE, cwd=needs.ROOT
    )
    async with soon(PATIENT_S * 2):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().splitlines()


async def test_server_everything(tmp_path: Path) -> None:
    server = everything("stdio")
    async with serving("forward", "http", "--record", str(tmp_path), command=server) as url:
        first = await transcript(url)
    assert first[2].endswith("猫")

    async with serving("replay", str(tmp_path)) as url:
        assert await transcript(url) == first

    code, lines = await replayed(tmp_path, *server)
    assert (code, lines[-1].endswith("no differences")) == (0, True), lines

    changed = f"{' '.join(server)} | sed -u 's/Echo: /Ekko: /'"
    code, lines = await replayed(tmp_path, "sh", "-c", changed)
    [line, last] = lines
    assert (code, last.endswith(" 1 difference")) == (1, True), lines
    assert line.startswith('tools/call echo /result/content/0/text: expected "Echo: Ørjan')
    assert 'got "Ekko: Ørjan' in line


FIXTURE = (sys.executable, "-m", "tests.e2e.server", "--stdio")
GREETING = "Hello"


async def story(url: str, version: str) -> Any:
    """A server's author tries it out; the server also asks back."""
    async with application(url, version) as app, soon(PATIENT_S):
        client = app.client
        return [
            plain(client.server_info),
            plain(await client.list_tools()),
            await app.says("greet", name="Ørjan"),
            plain(await app.call("test_multiple_content_types")),
            plain(await app.call("test_error_handling")),
            plain(await app.call("test_tool_with_progress")),
            app.progress,
            plain(await client.list_prompts()),
            plain(await client.list_resources()),
            plain(await app.call("test_sampling", prompt="say something")),
        ]


@pytest.mark.parametrize("version", [VERSION, MODERN])
async def test_the_official_sdk_on_both_sides(tmp_path: Path, version: str) -> None:
    async with serving("forward", "http", "--record", str(tmp_path), command=FIXTURE) as url:
        first = await story(url, version)
    assert GREETING in first[2]

    async with serving("replay", str(tmp_path)) as url:
        assert await story(url, version) == first

    code, lines = await replayed(tmp_path, *FIXTURE)
    assert (code, lines[-1].endswith("no differences")) == (0, True), lines

    changed = f"{' '.join(FIXTURE)} | sed -u 's/{GREETING}/Goodbye/'"
    code, lines = await replayed(tmp_path, "sh", "-c", changed)
    assert len(lines) == 2, lines
    line, last = lines
    assert (code, last.endswith(" 1 difference")) == (1, True), lines
    assert line.startswith(f'tools/call greet /result/content/0/text: expected "{GREETING}')
    assert 'got "Goodbye' in line

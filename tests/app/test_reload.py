"""SIGHUP to a real process: what changes, what waits for a restart, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig.client import client_of
from tests.rig.server import McpServer, mcp_server
from tests.rig.wait import soon


@dataclass
class Running:
    process: asyncio.subprocess.Process
    file: Path
    text: str
    port: int = 0

    async def says(self, pattern: str) -> str:
        assert self.process.stderr is not None
        async with soon():
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, f"it ended without {pattern}"
                if re.search(pattern, line):
                    return line

    def change(self, more: str) -> None:
        self.file.write_text(self.text + more)
        self.process.send_signal(signal.SIGHUP)


@pytest.fixture
async def server() -> AsyncIterator[McpServer]:
    async with mcp_server() as found:
        yield found


@pytest.fixture
async def running(server: McpServer, tmp_path: Path) -> AsyncIterator[Running]:
    file = tmp_path / "shadowcat.toml"
    text = f"listen = '127.0.0.1:0'\nupstreams.main.url = '{server.url}'\n"
    file.write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "reverse", "--config", str(file), "--session-idle", "50",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with soon():
            announced = re.match(rb"serving http://127\.0\.0\.1:(\d+)/", await process.stdout.readline())
        assert announced
        yield Running(process, file, text, int(announced[1]))
        process.send_signal(signal.SIGTERM)
        async with soon():
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_what_can_change_does(running: Running) -> None:
    async def status() -> int:
        async with client_of(running.port) as client:
            reply = await client.request(
                "GET", [("Origin", "https://app.example"), ("Accept", "text/event-stream")]
            )
            return reply.status

    assert await status() == 403
    running.change(
        "endpoint.allow_origins = ['https://app.example']\nlog.format = 'json'\nsessions.linger_s = 5\n"
    )
    line = await running.says("read again")
    assert '"message":"the configuration was read again: changed ' in line
    assert "endpoint.allow_origins, sessions.linger_s, log.format" in line
    assert await status() != 403
    running.change("")
    assert "changed endpoint.allow_origins, sessions.linger_s, log.format" in await running.says("read again")
    assert await status() == 403


async def test_what_cannot_change_waits_for_a_restart(running: Running) -> None:
    running.change("endpoint.path = '/other'\n")
    assert (await running.says("read again")).endswith("read again: no change\n")
    assert (await running.says("restart")).endswith(
        "until a restart these stay as they were: endpoint.path\n"
    )
    # It is said for as long as it is so; what a flag says stands before the file.
    running.change("endpoint.path = '/other'\nsessions.idle_s = 5\n")
    assert (await running.says("read again")).endswith("read again: no change\n")
    await running.says("restart")


async def test_a_bad_file_changes_nothing(running: Running) -> None:
    running.change("lisen = 1\nlog.level = 'loud'\n")
    first = await running.says("stays as it was")
    assert "lisen: there is no such setting; did you mean listen?" in first
    assert "log.level: 'loud' is not one of debug, info, warning, error" in await running.says(
        "stays as it was"
    )
    running.change("")
    await running.says("no change")

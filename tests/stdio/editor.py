"""What an editor does with a server: starts it, talks to its pipes, ends it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.rig.children import SPEAKER, tool
from tests.rig.wait import soon

LIMIT = 2**25
SPEAKER_COMMAND = (sys.executable, SPEAKER)
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "editor", "version": "1"},
}


def forwarding(*command: str, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
    return (sys.executable, "-m", "shadowcat", "forward", "stdio", *flags, "--", *command)


def bridging(url: str, *flags: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "shadowcat", "forward", "stdio", "--upstream", url, *flags)


def line(message: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def call(id: Any, name: str, /, **arguments: Any) -> bytes:
    return line({"id": id, "method": "tools/call", "params": tool(name, **arguments)})


class Editor:
    def __init__(self, process: Process) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    async def send(self, *lines: bytes) -> None:
        self.stdin.write(b"".join(lines))
        async with soon():
            await self.stdin.drain()

    async def line(self) -> bytes:
        async with soon():
            return await self.stdout.readline()

    async def message(self) -> Any:
        return json.loads(await self.line())

    async def initialize(self) -> Any:
        await self.send(line({"id": 0, "method": "initialize", "params": INITIALIZE}))
        return await self.message()

    async def call(self, id: Any, name: str, /, **arguments: Any) -> Any:
        await self.send(call(id, name, **arguments))
        return await self.message()

    async def child(self) -> int:
        """The pid of the server."""
        return int((await self.call("pid", "pid"))["result"]["content"][0]["text"])

    async def end(self) -> tuple[int, bytes, bytes]:
        """Closes its stdin and waits: exit code, and the rest of stdout and stderr."""
        self.stdin.close()
        return await self.ended()

    async def ended(self) -> tuple[int, bytes, bytes]:
        async with soon():
            out, err, code = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.process.wait())
        return code, out, err


@asynccontextmanager
async def editor(*command: str, stderr: int = PIPE, **options: Any) -> AsyncIterator[Editor]:
    """With the command as it would be without us, or `forwarding(…)` one."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=stderr, limit=LIMIT, **options
    )
    try:
        yield Editor(process)
    finally:
        if process.returncode is None:
            process.kill()
        if process.stdin is not None:
            process.stdin.close()
        await process.communicate()


@asynccontextmanager
async def forwarded(*flags: str, ours: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Editor]:
    """The scripted server behind `shadowcat forward stdio`."""
    async with editor(*forwarding(*SPEAKER_COMMAND, *flags, flags=ours), **options) as found:
        yield found

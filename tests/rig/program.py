"""`shadowcat` as a program that serves: where, what its log says, how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.rig.wait import soon

START_S = 60.0


@dataclass
class Program:
    process: Process
    port: int

    async def says(self, pattern: str) -> str:
        """The next line of its log that has this in it."""
        assert self.process.stderr is not None
        return await _line(self.process.stderr, pattern)

    async def prints(self, pattern: str) -> str:
        assert self.process.stdout is not None
        return await _line(self.process.stdout, pattern)

    async def ends(self) -> tuple[int, str]:
        """How, and what its log said at last."""
        async with soon():
            _, said = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, said.decode()


async def _line(stream: asyncio.StreamReader, pattern: str, within_s: float = START_S) -> str:
    passed = ""
    async with soon(within_s):
        while True:
            line = (await stream.readline()).decode()
            assert line, f"it ended without {pattern}\n{passed}"
            if re.search(pattern, line):
                return line
            passed += line


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Program]:
    """On a port of its own. It is stopped, and then has to end well, if it has not ended before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", *arguments, "--listen", "127.0.0.1:0", stdout=PIPE, stderr=PIPE
    )
    found = Program(process, 0)
    try:
        serving = re.search(r"https?://127\.0\.0\.1:(\d+)", await found.prints('(^|")serving '))
        assert serving
        found.port = int(serving[1])
        yield found
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            code, said = await found.ends()
            assert code == 0, said
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

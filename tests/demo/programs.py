"""`shadowcat demo` as a program, and what it printed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.rig.wait import soon

START_S = 60.0
LAST_LINE = "See a stream survive"


class Demo:
    def __init__(self, process: Process, printed: str) -> None:
        self.process = process
        self.printed = printed

    @property
    def url(self) -> str:
        found = re.search(r"^serving (\S+)", self.printed, re.MULTILINE)
        assert found, self.printed
        return found[1]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0])

    def pasted(self, beginning: str) -> str:
        """The paragraph to paste that begins like this."""
        [found] = [text for text in self.printed.split("\n\n") if text.strip().startswith(beginning)]
        return found

    async def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: how it ended, and what it said at last."""
        self.process.send_signal(signal.SIGINT)
        async with soon():
            out, _ = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode()


@asynccontextmanager
async def demo(directory: Path, *options: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "demo", *options,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "TMPDIR": str(directory)},
    )  # fmt: skip
    assert process.stdout is not None
    printed = ""
    try:
        async with soon(START_S):
            while LAST_LINE not in printed:
                line = await process.stdout.readline()
                assert line, printed
                printed += line.decode()
        yield Demo(process, printed)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

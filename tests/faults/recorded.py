"""`shadowcat reverse --record` in a process of its own, whose log can be read."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.rig.wait import soon

STARTS_S = 60.0


class RecordedProxy:
    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self._log = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def writer_pid(self) -> int:
        """Of its process that writes the recording."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        [writer] = [int(pid) for pid in children if b"scribe" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return writer

    async def log_has(self, text: str) -> None:
        """Waits for it to be said."""
        assert self.process.stderr is not None
        async with soon():
            while text.encode() not in self._log:
                data = await self.process.stderr.read(65_536)
                assert data, self._log
                self._log += data

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def end(self) -> str:
        """Stops it, and returns all that it logged."""
        self.process.send_signal(signal.SIGTERM)
        async with soon(STARTS_S):
            _, rest = await self.process.communicate()
        return (self._log + rest).decode()


@asynccontextmanager
async def recorded_proxy(directory: Path, *words: str) -> AsyncIterator[RecordedProxy]:
    """`words`: the mode with its options, and after `--` the command."""
    mode, rest = words, ()
    if "--" in words:
        mode, rest = words[: words.index("--")], words[words.index("--") :]
    ours = ("--listen", "127.0.0.1:0", "--record", str(directory))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shadowcat", *mode, *ours, *rest),
        stdout=PIPE,
        stderr=PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        async with soon(STARTS_S):
            line = (await process.stdout.readline()).decode()
        found = re.match(r"serving http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line
        yield RecordedProxy(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()

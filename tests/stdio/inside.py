"""A client of something in this process that has taken the place of a command."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from tests.rig.wait import soon


class _Runs(Protocol):
    async def run(self) -> int: ...


class Inside:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reading: asyncio.ReadTransport
    ) -> None:
        self._reader = reader
        self.reading = reading
        self.writer = writer
        self.code: int | None = None
        self.rest = b""
        """What came after all that was read."""

    async def message(self) -> Any:
        async with soon():
            return json.loads(await self._reader.readline())

    async def ask(self, sent: bytes) -> Any:
        self.writer.write(sent)
        return await self.message()


@asynccontextmanager
async def running(make: Callable[[int, int], _Runs]) -> AsyncIterator[Inside]:
    """`make` gets the descriptors of stdin and stdout; what it makes is ended by closing stdin."""
    loop = asyncio.get_running_loop()
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    reader = asyncio.StreamReader(limit=2**25)
    protocol = asyncio.StreamReaderProtocol(reader)
    reading, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(from_stdout, "rb", 0))
    writing, drain = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(to_stdin, "wb", 0)
    )
    run = asyncio.create_task(make(stdin, stdout).run())
    client = Inside(reader, asyncio.StreamWriter(writing, drain, reader, loop), reading)
    try:
        yield client
        client.writer.close()
        async with soon():
            client.code = await run
            os.close(stdout)
            client.rest = await reader.read()
    finally:
        run.cancel()
        reading.close()
        os.close(stdin)

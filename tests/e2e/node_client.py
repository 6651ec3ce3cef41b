"""Applications of the TypeScript SDKs, each in a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from tests import needs
from tests.rig.wait import Changed, soon

SCRIPTS = Path(__file__).parent / "ts"
SDK1, SDK2 = "sdk1.cjs", "sdk2.cjs"
LINE_LIMIT = 2**22
ANSWER_S = 40.0


class Failed(Exception):
    """What the application got instead of an answer."""


class NodeApp:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._changed = Changed()
        self._reading = asyncio.create_task(self._read(), name="node application")
        self.connected: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.listens = asyncio.Event()
        self.gets: list[int] = []
        """How each GET was answered."""
        self.steps: list[float] = []

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self._take(json.loads(line))
        finally:
            for waiting in (self.connected, *self._answers.values()):
                if not waiting.done():
                    waiting.set_exception(Failed("the application ended"))

    def _take(self, line: Any) -> None:
        match line:
            case {"progress": step}:
                self.steps.append(step)
                self._changed.tell()
            case {"get": status}:
                self.gets.append(status)
                self._changed.tell()
                if status == 200:
                    self.listens.set()
            case {"connected": version}:
                self.connected.set_result(version)
            case {"id": id, "failed": message}:
                self._answers.pop(id).set_exception(Failed(message))
            case {"id": id}:  # JSON leaves out what is undefined
                self._answers.pop(id).set_result(line.get("got"))
            case _:
                raise AssertionError(f"unexpected: {line}")

    async def does(self, what: str, **given: Any) -> Any:
        id = next(self._ids)
        self._answers[id] = answer = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": id, "does": what, **given}).encode() + b"\n")
        async with soon(ANSWER_S):
            return await answer

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with soon():
            await self._process.wait()
            await self._reading
        assert self._process.returncode == 0

    async def opens(self, count: int) -> None:
        """Waits until so many GETs were answered."""
        await self._changed.until(lambda: len(self.gets) >= count)

    # As every application.

    async def says(self, name: str, /, **arguments: Any) -> str:
        return await self.does("call", name=name, args=arguments)

    async def progressed_to(self, step: int) -> None:
        await self._changed.until(lambda: len(self.steps) >= step)

    async def set_level(self, level: str) -> None:
        await self.does("level", level=level)

    async def subscribe(self, uri: str) -> None:
        await self.does("subscribe", uri=uri)


def node_application(script: str) -> Callable[[str, str], AbstractAsyncContextManager[NodeApp]]:
    @asynccontextmanager
    async def application(url: str, version: str) -> AsyncIterator[NodeApp]:
        process = await asyncio.create_subprocess_exec(
            needs.node(),
            SCRIPTS / script,
            url,
            version,
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_LIMIT,
            env={**os.environ, "NODE_PATH": str(needs.peers())},
        )
        try:
            app = NodeApp(process)
            async with soon():
                assert await app.connected == version
            yield app
            await app.end()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    return application

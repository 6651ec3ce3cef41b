"""The processes under test: the proxy and the counting server, each owned, looked into, and ended by its pid."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.rig.wait import soon

ROOT = Path(__file__).resolve().parent.parent.parent
START_S = 30.0
END_S = 20.0


class Child:
    """A process of ours. What it says on stderr is kept for who wonders why it failed."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.process = process
        self._errors = errors
        self._is_stopped = False

    async def line(self, within_s: float = START_S) -> str:
        assert self.process.stdout is not None
        async with soon(within_s):
            line = await self.process.stdout.readline()
        assert line, f"it ended: {self.errors()}"
        return line.decode().strip()

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    @property
    def rss_bytes(self) -> int:
        resident = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return resident * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self) -> None:
        """SIGSTOP: everything it holds stays as it is, and it does nothing."""
        self.process.send_signal(signal.SIGSTOP)
        self._is_stopped = True

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self._is_stopped = False

    async def end(self, within_s: float = END_S) -> int:
        """Asks it to end, and tells how it did; kills it where it does not."""
        if self._is_stopped:
            self.go_on()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            async with soon(within_s):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


C = TypeVar("C", bound=Child)


@asynccontextmanager
async def child(kind: type[C], *arguments: str, **environment: str) -> AsyncIterator[C]:
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        found = kind(process, errors)
        try:
            yield found
        finally:
            await found.kill()
            assert process.stdin is not None
            process.stdin.close()


class ProxyChild(Child):
    port: int

    async def statistics(self) -> dict[str, Any]:
        """What the runner counts; the command line has no such thing."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"statistics\n")
        return json.loads(await self.line())

    async def says(self, true: Callable[[dict[str, Any]], bool], within_s: float = 20.0) -> dict[str, Any]:
        """Waits until it is true of the statistics."""
        return await _told(self.statistics, true, within_s)


@asynccontextmanager
async def _proxy(*arguments: str) -> AsyncIterator[ProxyChild]:
    async with child(ProxyChild, *arguments) as found:
        line = await found.line()
        serving = re.match(r"serving http://127\.0\.0\.1:(\d+)/mcp", line)
        assert serving is not None, line
        found.port = int(serving[1])
        yield found
        code = await found.end()
        said = found.errors()
    assert code == 0, said
    assert "Traceback" not in said, said
    assert "did not end within" not in said, said


Proxies = AbstractAsyncContextManager[ProxyChild]


def proxy_before(*upstreams: str, more: tuple[str, ...] = ()) -> Proxies:
    """`shadowcat reverse`, as a user starts it. Ends with a look at how it ended and what it logged."""
    named = [argument for url in upstreams for argument in ("--upstream", url)]
    return _proxy("-m", "shadowcat", "reverse", "--listen", "127.0.0.1:0", *named, *more)


def tuned_proxy_before(upstream: str, **options: Any) -> Proxies:
    """The same with what the command line has no option for, and with its statistics."""
    return _proxy("-m", "tests.faults.runner", json.dumps({"upstream": upstream, **options}))


class NumbersChild(Child):
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def control(self, do: str, **more: Any) -> dict[str, Any]:
        body = json.dumps({"do": do, **more}).encode()
        async with soon():
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                head = f"POST /control HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                writer.write(head + body)
                said = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = re.search(r"content-length: (\d+)", said)
                assert length is not None
                return json.loads(await reader.readexactly(int(length[1])))
            finally:
                writer.transport.abort()

    async def counted(self, what: str) -> int:
        return (await self.control("tell"))["counts"].get(what, 0)

    async def says(self, true: Callable[[dict[str, Any]], bool], within_s: float = 20.0) -> dict[str, Any]:
        """Waits until it is true of what it tells of itself."""
        return await _told(lambda: self.control("tell"), true, within_s)


async def _told(
    ask: Callable[[], Awaitable[dict[str, Any]]], true: Callable[[dict[str, Any]], bool], within_s: float
) -> dict[str, Any]:
    told = await ask()
    try:
        async with soon(within_s):
            while not true(told):
                await asyncio.sleep(0.02)
                told = await ask()
    except TimeoutError:
        raise AssertionError(f"not within {within_s} s: {told}") from None
    return told


@asynccontextmanager
async def numbers() -> AsyncIterator[NumbersChild]:
    async with child(NumbersChild, "-m", "tests.faults.numbers") as found:
        found.port = int(await found.line())
        yield found
        said = found.errors()
    assert "Traceback" not in said, said

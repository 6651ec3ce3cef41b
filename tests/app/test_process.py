"""How a program that serves is stopped: signals, and a terminal that is closed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import termios
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator

import pytest

from tests.rig.client import client_of
from tests.rig.program import program
from tests.rig.server import Call, McpServer, mcp_server
from tests.rig.wait import happens, soon


@pytest.fixture
async def server() -> AsyncIterator[McpServer]:
    async with mcp_server() as found:
        yield found


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_ends_at_once_what_the_first_would_let_finish(
    server: McpServer, first: signal.Signals
) -> None:
    called, released = asyncio.Event(), asyncio.Event()

    @server.on("tools/call")
    async def hang(call: Call) -> None:
        called.set()
        await happens(released)

    async with program("reverse", "--upstream", server.url) as proxy, client_of(proxy.port) as client:
        await client.initialize()
        waiting = asyncio.create_task(client.call())
        await happens(called)
        proxy.process.send_signal(first)
        await proxy.prints("stopping: running calls have 10 s")
        await proxy.says("opened on upstream")
        proxy.process.send_signal(signal.SIGINT)
        # Not in good order, which would say what could not be done.
        assert await proxy.ends() == (128 + signal.SIGINT, "")
        waiting.cancel()
        released.set()


async def test_the_first_signal_lets_a_running_call_finish(server: McpServer) -> None:
    called, released = asyncio.Event(), asyncio.Event()

    @server.on("tools/call")
    async def hang(call: Call) -> None:
        called.set()
        await happens(released)
        await call.result({"content": []})

    async with program("reverse", "--upstream", server.url) as proxy, client_of(proxy.port) as client:
        await client.initialize()
        waiting = asyncio.create_task(client.call())
        await happens(called)
        proxy.process.send_signal(signal.SIGINT)
        await proxy.prints("stopping")
        released.set()
        assert "result" in await waiting
        assert (await proxy.ends())[0] == 0


async def test_a_hangup_without_a_file_changes_and_ends_nothing(server: McpServer) -> None:
    async with program("reverse", "--upstream", server.url) as proxy, client_of(proxy.port) as client:
        proxy.process.send_signal(signal.SIGHUP)
        assert "there is no settings file to reload: --config names none\n" in await proxy.says(
            "settings file"
        )
        assert "serverInfo" in await client.initialize()


def in_terminal(end: int) -> subprocess.Popen[bytes]:
    """Whose terminal that is, as a shell's. The event loop's own way has none yet when this could be said."""

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-m", "shadowcat", "forward", "http", "--listen", "127.0.0.1:0"],
        stdin=end, stdout=end, stderr=end, start_new_session=True, preexec_fn=own_terminal,
    )  # fmt: skip


async def test_the_end_of_its_terminal_is_the_end_of_it() -> None:
    """Also with nobody left to tell what it does."""
    ours, its = os.openpty()
    process = in_terminal(its)
    os.close(its)
    try:
        said = b""
        async with soon(60):
            while b"admin page on " not in said:
                said += await asyncio.to_thread(os.read, ours, 4096)
        os.close(ours)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()


async def test_who_reads_no_more_of_what_it_prints_does_not_keep_it_from_its_end() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "shadowcat", "forward", "http", "--listen", "127.0.0.1:0",
        stdin=DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with soon(60):
            assert (await process.stdout.readline()).startswith(b"serving ")
            assert await process.stdout.readline()
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        process.send_signal(signal.SIGTERM)
        async with soon():
            said = await process.stderr.read()
            assert (await process.wait(), said) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

"""Children that die, loop, talk nonsense, do not go, or are left behind: `shadowcat forward http` before a command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.child import ProxyChild, child
from tests.rig.children import SPEAKER, is_gone, runs, text, tool
from tests.rig.client import Client, client_of, rpc
from tests.rig.wait import soon, until
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1200))

HANDSHAKE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 1)


@asynccontextmanager
async def forward(*flags: str, more: tuple[str, ...] = (), code: int = 0) -> AsyncIterator[ProxyChild]:
    """The proxy as a user starts it; at its end nothing of it is left."""
    command = (sys.executable, SPEAKER, *flags)
    arguments = ("-m", "shadowcat", "forward", "http", "--listen", "127.0.0.1:0", *more, "--", *command)
    async with child(ProxyChild, *arguments) as found:
        serving = re.match(r"serving http://127\.0\.0\.1:(\d+)/mcp", await found.line())
        assert serving is not None
        found.port = int(serving[1])
        yield found
        left = descendants(found.process.pid)
        assert await found.end() == code
        for pid in left:
            await is_gone(pid)
        assert "Traceback" not in found.errors(), found.errors()


def descendants(pid: int) -> set[int]:
    try:
        direct = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return set()
    return {found for one in direct for found in (int(one), *descendants(int(one))) if runs(found)}


@asynccontextmanager
async def session(proxy: ProxyChild) -> AsyncIterator[Client]:
    async with client_of(proxy.port) as client:
        await client.initialize()
        yield client


async def pid_of(client: Client, id: Any = "pid") -> int:
    return int(text(await client.call(params=tool("pid"), id=id)))


async def pid_of_next(client: Client) -> int:
    """Of the process after one that ended: a session is not opened again twice in a second."""
    async with soon():
        while "result" not in (answer := await client.call(params=tool("pid"))):  # noqa: ASYNC110 - ends by time
            await asyncio.sleep(0.05)
        return int(text(answer))


async def test_fault_26_a_child_that_is_killed() -> None:
    loop = asyncio.get_running_loop()
    async with forward() as proxy, session(proxy) as client:
        # Ten would be a crash loop.
        for turn in range(sized(3, 9)):
            pid = await pid_of(client)
            waiting = asyncio.create_task(client.call(params=tool("hold", key="k"), id=turn))
            while '"hold"' not in text(await client.call(params=tool("heard_so_far"), id="heard")):
                pass
            killed_at = loop.time()
            os.kill(pid, signal.SIGKILL)
            answer = await waiting
            assert loop.time() - killed_at < 1.0
            assert (answer["id"], answer["error"]["code"]) == (turn, -31004)
            assert await pid_of_next(client) != pid


async def test_fault_27_a_crash_loop() -> None:
    async with forward("--exits") as proxy, client_of(proxy.port) as client:
        reasons: list[str] = []
        while len(reasons) < 40 and (len(reasons) < 15 or reasons[-1] != "command_keeps_failing"):
            reply = await client.post(HANDSHAKE)
            assert reply.status == 503
            reasons.append((await reply.json())["error"]["data"]["reason"])
        assert reasons[-1] == "command_keeps_failing"
        assert 1 <= reasons.count("command_ended") <= 10


async def test_fault_28_nonsense_and_noise() -> None:
    async with (
        forward(more=("--log-level", "error")) as proxy,
        session(proxy) as noisy,
        session(proxy) as other,
    ):
        answers = await asyncio.gather(
            noisy.call(params=tool("say_raw", raw='no json\n{"jsonrpc":"2.0",\n\n', times=1_000), id=1),
            noisy.call(params=tool("say_raw", raw="x" * 1_000, times=17_000, end="\n"), id=4),
            noisy.call(params=tool("stderr", text="noise " * 20 + "\n", times=sized(50_000, 500_000)), id=2),
            noisy.call(params=tool("echo", x="y" * 3_000_000), id=3),
            *(other.call(params=tool("echo", n=n), id=n) for n in range(50)),
        )
        assert [answer["id"] for answer in answers] == [1, 4, 2, 3, *range(50)]
        assert all("result" in answer for answer in answers)
        assert [json.loads(text(answer)) for answer in answers[4:]] == [{"n": n} for n in range(50)]


@pytest.mark.parametrize("ends", ["DELETE", "proxy"])
async def test_fault_29_a_child_that_does_not_go_and_has_children(ends: str) -> None:
    loop = asyncio.get_running_loop()
    async with forward("--stays", "--ignores-term", "--grandchild") as proxy:
        async with session(proxy) as client:
            await pid_of(client)
            left = descendants(proxy.process.pid)
            assert len(left) == 2
            began_at = loop.time()
            if ends == "DELETE":
                assert (await client.delete()).status == 200
                assert loop.time() - began_at < 2.0
            else:
                assert await proxy.end() == 0
        for pid in left:
            await until(lambda pid=pid: not runs(pid), 15)
        assert loop.time() - began_at < 12.5


async def test_fault_30_sessions_that_nobody_ends() -> None:
    count = sized(15, 500)
    async with forward(more=("--session-idle", "1")) as proxy:
        async with session(proxy) as warm:
            await pid_of(warm)
            await warm.delete()
        await until(lambda: not descendants(proxy.process.pid))
        files, size = proxy.open_files, proxy.rss_bytes
        async with AsyncExitStack() as stack:
            for _ in range(count):
                await pid_of(await stack.enter_async_context(session(proxy)))
        await until(lambda: not descendants(proxy.process.pid), 60)
        await until(lambda: proxy.open_files <= files, 60)
        assert proxy.rss_bytes < size * 1.05 + sized(4, 8) * 1024 * 1024


async def test_a_child_does_not_outlive_a_proxy_that_is_killed() -> None:
    async with forward("--stays", "--ignores-term", code=-signal.SIGKILL) as proxy:
        async with session(proxy) as client:
            pid = await pid_of(client)
            proxy.process.kill()
            await proxy.process.wait()
        await is_gone(pid)

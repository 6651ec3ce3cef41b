"""The scripted stdio server as a command, and what is left of processes."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from shadowcat import ReverseProxy
from shadowcat.upstream.channel import ChannelLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.process import Patience
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from tests.rig.client import Client, client_of
from tests.rig.wait import until

SPEAKER = str(Path(__file__).with_name("speaker.py"))
QUICK = Patience(close_s=0.5, term_s=0.5, read_s=0.5, rest_s=0.1)


def speaker(*flags: str, **more: Any) -> Command:
    return Command((sys.executable, SPEAKER, *flags), **more)


def quick(**limits: Any) -> ChannelLimits:
    return ChannelLimits(**{"patience": QUICK, **limits})


def runs(pid: int) -> bool:
    """Whether a process is there and is more than an entry that nobody has looked at yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def is_gone(pid: int) -> None:
    await until(lambda: not runs(pid))


def children() -> set[int]:
    """Those of this process that run."""
    found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found if runs(int(pid))}


class Team:
    """A proxy before a command, and clients as many as one likes."""

    def __init__(self, upstream: StdioUpstream, proxy: ReverseProxy, stack: AsyncExitStack) -> None:
        self.upstream = upstream
        self.proxy = proxy
        self._stack = stack

    async def client(self) -> Client:
        return await self._stack.enter_async_context(client_of(self.proxy.port))

    async def session(self, *given: Any, **more: Any) -> Client:
        client = await self.client()
        await client.initialize(*given, **more)
        return client


@asynccontextmanager
async def team(
    *flags: str, shared: bool = False, limits: StdioLimits | None = None, **options: Any
) -> AsyncIterator[Team]:
    upstream = StdioUpstream(
        "speaker", speaker(*flags), shared=shared, limits=limits or StdioLimits(channel=quick())
    )
    async with (
        AsyncExitStack() as stack,
        ReverseProxy({"speaker": upstream}, port=0, **options) as proxy,
    ):
        yield Team(upstream, proxy, stack)
    assert upstream.processes == 0


def tool(name: str, /, *, token: Any = None, **arguments: Any) -> dict[str, Any]:
    """The parameters of a call of the scripted server's."""
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    return params if token is None else {**params, "_meta": {"progressToken": token}}


def text(answer: Any) -> str:
    return answer["result"]["content"][0]["text"]

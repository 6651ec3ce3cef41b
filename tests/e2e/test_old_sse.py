"""The official SDKs over HTTP+SSE: clients and servers of that transport with each other, and with newer ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.everything import server_everything
from tests.e2e.node_client import SDK1, NodeApp, node_application
from tests.e2e.python_client import application, plain, text_of
from tests.e2e.stage import Wire, proxy, server
from tests.e2e.test_typescript_features import LEGACY_FEATURES
from tests.rig.wait import soon

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

VERSION = "2025-11-25"
PAIRS = {
    "old client, old server": ("/sse", "--sse"),
    "old client, new server": ("/sse", None),
    "new client, old server": ("/mcp", "--sse"),
    "new client, new server": ("/mcp", None),
}


@dataclass(frozen=True, slots=True)
class Proxies:
    """The URL of a proxy before each kind of server, and that of the old one itself."""

    old: str
    new: str
    direct: str

    def url(self, pair: str) -> str:
        path, flag = PAIRS[pair]
        return (self.old if flag else self.new).removesuffix("/mcp") + path


@pytest.fixture(scope="module")
async def proxies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxies]:
    out = tmp_path_factory.mktemp("old")
    async with (
        server(out / "old-server.log", "--sse") as old,
        server(out / "new-server.log") as new,
        proxy(old, out / "old-proxy.log") as before_old,
        proxy(new, out / "new-proxy.log") as before_new,
    ):
        yield Proxies(before_old, before_new, old)


@pytest.mark.parametrize("pair", PAIRS)
async def test_the_official_client_and_server(proxies: Proxies, pair: str) -> None:
    async with application(proxies.url(pair), VERSION) as app:
        assert await app.says("greet", name="Ada") == "Hello, Ada!"
        assert "count" in [tool.name for tool in (await app.client.list_tools()).tools]
        await app.call("test_tool_with_progress")
        assert app.steps == [0, 50, 100]
        await app.call("test_tool_with_logging")
        assert [log["data"] for log in app.logs][-1] == "Tool execution completed"
        assert "Paris" in text_of(await app.call("test_sampling", prompt="Which city?"))
        assert "da" in text_of(await app.call("test_elicitation", message="Who?"))
        assert len(app.asked) == 2
        assert (await app.client.read_resource("test://static-text")).contents
        answers = await asyncio.gather(*(app.says("greet", name=str(n)) for n in range(20)))
        assert answers == [f"Hello, {n}!" for n in range(20)]
        assert app.faults == []


# This SDK's client of the older transport loses progress that it reads in one piece with the answer, from any server.
TS_FEATURES = LEGACY_FEATURES.keys() - {"progress"}
TS_PAIRS = [pair for pair, (path, flag) in PAIRS.items() if path == "/sse" or flag]


@pytest.fixture(scope="module")
async def applications(proxies: Proxies) -> AsyncIterator[dict[str, NodeApp]]:
    async with AsyncExitStack() as stack:
        yield {
            pair: await stack.enter_async_context(node_application(SDK1)(proxies.url(pair), VERSION))
            for pair in TS_PAIRS
        }


@pytest.mark.parametrize(
    ("pair", "feature"), [(pair, one) for pair in TS_PAIRS for one in sorted(TS_FEATURES)]
)
async def test_feature(applications: dict[str, NodeApp], pair: str, feature: str) -> None:
    got = await applications[pair].does("feature", name=feature)
    assert LEGACY_FEATURES[feature](got), got


async def test_a_client_that_comes_back_after_its_stream_was_cut(proxies: Proxies, tmp_path: Path) -> None:
    """It has to connect anew, and what it left behind is gone."""
    wire = Wire(proxies.url("old client, old server"))
    await wire.open()
    url = wire.url.removesuffix("/mcp") + "/sse"
    try:
        async with application(url, VERSION) as app:
            running = asyncio.create_task(app.call("hold", key="cut"))
            async with application(proxies.direct, VERSION) as straight:
                await straight.call("started", key="cut")
                wire.cut()
                async with soon():
                    assert await straight.says("fate", key="cut") == "CancelledError"
            with pytest.raises(Exception):  # noqa: B017, PT011 - the SDK's own, whichever
                await running
        wire.mend()
        async with application(url, VERSION) as app:
            assert await app.says("greet", name="again") == "Hello, again!"
    finally:
        await wire.close()


# Another implementation of a server.


@pytest.mark.parametrize("path", ["/sse", "/mcp"], ids=["old client", "new client"])
async def test_server_everything(path: str, tmp_path: Path) -> None:
    async with (
        server_everything(tmp_path / "server.log", "sse") as upstream,
        proxy(upstream, tmp_path / "proxy.log") as url,
        application(url.removesuffix("/mcp") + path, VERSION) as app,
    ):
        assert "hello" in await app.says("echo", message="hello")
        assert len(plain(await app.client.list_tools())["tools"]) > 5
        await app.call("trigger-long-running-operation", duration=1, steps=4)
        assert len(app.steps) == 4
        assert (await app.client.list_resources()).resources
        assert (await app.client.list_prompts()).prompts
        assert app.faults == []

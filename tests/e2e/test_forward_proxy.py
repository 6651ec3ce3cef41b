"""The official SDKs' clients, which are told of a forward proxy by the environment alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.conformance.suite import serving
from tests.e2e.node_client import SCRIPTS, NodeApp, node_application
from tests.e2e.python_client import VERSIONS, application, text_of
from tests.e2e.stage import assert_quiet, server
from tests.e2e.test_typescript_features import RUNS
from tests.rig.wait import until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

OLD = "2025-11-25"
NODE = {run: RUNS[run] for run in ("sdk1-2025-11-25", "sdk2-2026-07-28")}


@asynccontextmanager
async def forward_proxy(log: Path) -> AsyncIterator[str]:
    async with serving(("shadowcat", "forward", "http", "--listen", "127.0.0.1:0"), log) as announced:
        yield announced.removeprefix("http_proxy=")
    assert_quiet(log)


@pytest.fixture(scope="module")
async def told_of_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Its log. Node's fetch opens a tunnel to every server, the Python clients name the server in each request."""
    log = tmp_path_factory.mktemp("forward") / "proxy.log"
    with pytest.MonkeyPatch.context() as patched:
        for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            patched.delenv(name, raising=False)
        async with forward_proxy(log) as url:
            patched.setenv("http_proxy", url)
            patched.setenv("HTTP_PROXY", url)
            patched.setenv("NODE_OPTIONS", f"--require {SCRIPTS / 'env_proxy.cjs'}")
            yield log


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_python_client(version: str, told_of_a_proxy: Path, tmp_path: Path) -> None:
    async with server(tmp_path / "server.log") as url, application(url, version) as app:
        assert await app.says("greet", name="Ada") == "Hello, Ada!"
        await app.call("test_tool_with_progress")
        assert app.steps == [0, 50, 100]
        if not app.is_modern:
            assert "Paris" in text_of(await app.call("test_sampling", prompt="Which city?"))
        answers = await asyncio.gather(*(app.says("greet", name=str(n)) for n in range(20)))
        assert answers == [f"Hello, {n}!" for n in range(20)]
        assert app.faults == []
        if not app.is_modern:
            await until(lambda: f"upstream {url.removeprefix('http://')}" in told_of_a_proxy.read_text())


async def test_the_python_client_of_the_old_transport(told_of_a_proxy: Path, tmp_path: Path) -> None:
    async with server(tmp_path / "server.log", "--sse") as url, application(url, OLD) as app:
        assert url.endswith("/sse")
        assert await app.says("greet", name="Ada") == "Hello, Ada!"
        await app.call("test_tool_with_progress")
        assert app.steps == [0, 50, 100]
        assert "Paris" in text_of(await app.call("test_sampling", prompt="Which city?"))


@pytest.fixture(scope="module")
async def applications(
    told_of_a_proxy: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, NodeApp]]:
    async with AsyncExitStack() as stack:
        log = tmp_path_factory.mktemp("node") / "server.log"
        url = await stack.enter_async_context(server(log))
        yield {
            run: await stack.enter_async_context(node_application(script)(url, version))
            for run, (script, version, _) in NODE.items()
        }


@pytest.mark.parametrize(
    ("run", "feature"), [(run, name) for run, found in NODE.items() for name in found[2]]
)
async def test_the_typescript_clients(applications: dict[str, NodeApp], run: str, feature: str) -> None:
    got = await applications[run].does("feature", name=feature)
    assert NODE[run][2][feature](got), got

"""Outages that the applications of official clients do not notice.

Each breaks a connection while a call is under way, lets the server go on meanwhile, and mends the connection only
after somebody tried it in vain. The call ends as if nothing had been: all progress in order, and the result.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests import needs
from tests.e2e.node_client import SDK1, SDK2, node_application
from tests.e2e.python_client import MODERN, App, application
from tests.e2e.stage import Stage, proxy, server, wire_to
from tests.faults.restarts import Restarting, kept_proxy_before
from tests.rig.wait import happens, soon

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

LEGACY = "2025-11-25"
WATCHED = "test://watched-resource"
FIRST, TOTAL = 5, 40


class Application(Protocol):
    """What is asked of an application, whatever its client is written in."""

    @property
    def steps(self) -> list[float]: ...
    @property
    def listens(self) -> asyncio.Event: ...
    async def says(self, name: str, /, **arguments: Any) -> str: ...
    async def progressed_to(self, step: int) -> None: ...
    async def set_level(self, level: Any) -> None: ...
    async def subscribe(self, uri: str) -> None: ...


Connects = Callable[[str, str], AbstractAsyncContextManager[Application]]

CLIENTS: dict[str, Connects] = {
    "python": application,
    "sdk1": node_application(SDK1),
    "sdk2": node_application(SDK2),
}
each_client = pytest.mark.parametrize("connects", CLIENTS.values(), ids=CLIENTS)


@asynccontextmanager
async def counting(app: Application, upstream: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A call that is under way inside the block, which is given how to let it end; after it, it has ended well."""
    key = uuid.uuid4().hex
    async with application(upstream, MODERN) as steering:

        async def release() -> None:
            await steering.says("release", key=key)

        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(app.says("count", key=key, first=FIRST, total=TOTAL))
            await app.progressed_to(FIRST)
            yield release
            async with soon(40):
                assert await call == f"counted to {TOTAL}"
    await app.progressed_to(TOTAL)
    assert app.steps == list(range(1, TOTAL + 1))


@pytest.fixture(scope="module")
async def outages(stage: Stage) -> dict[str, BaseException | None]:
    """How an outage between client and proxy ended for each client; together, because each takes twice 3 s."""
    ends = await asyncio.gather(
        *(an_outage_between_client_and_proxy(stage, connects) for connects in CLIENTS.values()),
        return_exceptions=True,
    )
    return dict(zip(CLIENTS, ends, strict=True))


async def an_outage_between_client_and_proxy(stage: Stage, connects: Connects) -> None:
    async with wire_to(stage.proxied) as wire, connects(wire.url, LEGACY) as app:
        await happens(app.listens)
        async with counting(app, stage.direct) as release:
            wire.cut()
            await release()
            # A client tries after 3 s, in vain, with the call's stream and the standalone one; then after 3 s more.
            await wire.turns_away(2)
            wire.mend()
        assert await app.says("greet", name="again") == "Hello, again!"


@pytest.mark.parametrize("client", CLIENTS)
async def test_an_outage_between_client_and_proxy(
    outages: dict[str, BaseException | None], client: str
) -> None:
    end = outages[client]
    if end is not None:
        raise end


@each_client
async def test_an_outage_between_proxy_and_server(stage: Stage, connects: Connects, tmp_path: Path) -> None:
    async with (
        wire_to(stage.direct) as wire,
        proxy(wire.url, tmp_path / "proxy.log") as proxied,
        connects(proxied, LEGACY) as app,
    ):
        await happens(app.listens)
        async with counting(app, stage.direct) as release:
            wire.cut()
            await release()
            await wire.turns_away(4)
            wire.mend()
        assert await app.says("greet", name="again") == "Hello, again!"


@pytest.fixture(scope="module", params=["SIGTERM", "SIGKILL"])
async def proxy_restarts(
    stage: Stage, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, BaseException | None]:
    """How a restart of the proxy ended for each client that there is; they live through one together."""
    there = {client: CLIENTS[client] for client in CLIENTS if client == "python" or needs.have_peers()}
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'sessions.db'}"
    async with kept_proxy_before(stage.direct, store, drain_s=0.5) as proxied:
        restart = Restart(proxied, request.param, len(there))
        ends = await asyncio.gather(
            *(
                a_restart_of_the_proxy(stage, connects, restart, 10 * number)
                for number, connects in enumerate(there.values())
            ),
            return_exceptions=True,
        )
    return dict(zip(there, ends, strict=True))


class Restart:
    """Of a proxy with a store, once every client has a call under way; the calls go on while there is none."""

    def __init__(self, proxied: Restarting, how: str, clients: int) -> None:
        self.url = f"http://127.0.0.1:{proxied.port}/mcp"
        self._proxied = proxied
        self._how = how
        self._ready = asyncio.Barrier(clients)
        self._gone = asyncio.Event()

    async def all_are_here(self) -> int:
        """Returns another number to each."""
        async with soon():
            return await self._ready.wait()

    async def happens(self, release: Callable[[], Awaitable[None]]) -> None:
        number = await self.all_are_here()
        if number == 0:
            await (self._proxied.kill() if self._how == "SIGKILL" else self._proxied.end())
            self._gone.set()
        await happens(self._gone)
        await release()
        await self.all_are_here()
        if number == 0:
            await self._proxied.start()


async def a_restart_of_the_proxy(
    stage: Stage, connects: Connects, restart: Restart, calls_before: int
) -> None:
    async with connects(restart.url, LEGACY) as app:
        await happens(app.listens)
        # The fixture server knows the streams that it repeats by nothing but the number of their request.
        for _ in range(calls_before):
            await app.says("greet", name="Ada")
        await restart.all_are_here()
        async with counting(app, stage.direct) as release:
            await restart.happens(release)
        assert await app.says("greet", name="again") == "Hello, again!"


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_restart_of_the_proxy(proxy_restarts: dict[str, BaseException | None], client: str) -> None:
    if client != "python":
        needs.peers()
    end = proxy_restarts[client]
    if end is not None:
        raise end


LEGACY_RUNS = {client: (client, LEGACY) for client in CLIENTS}
MODERN_RUNS = {f"{client}-modern": (client, MODERN) for client in ("python", "sdk2")}


@pytest.fixture(scope="module")
async def restarts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each client's application was answered after the one restart that all of them live through."""
    async with AsyncExitStack() as stack:
        proxied, restart = await stack.enter_async_context(restarting(tmp_path_factory.mktemp("restart")))
        apps: dict[str, Application] = {}
        for run, (client, version) in (LEGACY_RUNS | MODERN_RUNS).items():
            app = apps[run] = await stack.enter_async_context(CLIENTS[client](proxied, version))
            assert await app.says("greet", name="Ada") == "Hello, Ada!"
            if version == LEGACY:
                await happens(app.listens)
                await app.set_level("error")
                await app.subscribe(WATCHED)
        await restart()
        answers = await asyncio.gather(
            *(app.says("settings") for app in apps.values()), return_exceptions=True
        )
        return dict(zip(apps, answers, strict=True))


@pytest.mark.parametrize("run", LEGACY_RUNS)
async def test_a_restart_of_the_server(restarts: dict[str, Any], run: str) -> None:
    assert restarts[run] == f"level error, subscribed to ['{WATCHED}']"


@pytest.mark.parametrize("run", MODERN_RUNS)
async def test_a_restart_of_the_server_without_sessions(restarts: dict[str, Any], run: str) -> None:
    assert str(restarts[run]).startswith("level none")


@asynccontextmanager
async def restarting(out: Path) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """A proxy before a server, and what ends that and starts another one in its place."""
    async with AsyncExitStack() as later, AsyncExitStack() as first:
        old = await first.enter_async_context(server(out / "server.log"))
        wire = await later.enter_async_context(wire_to(old))
        proxied = await later.enter_async_context(proxy(wire.url, out / "proxy.log"))

        async def restart() -> None:
            await first.aclose()
            wire.lead_to(await later.enter_async_context(server(out / "server-2.log")))

        yield proxied, restart


async def test_the_application_is_told_what_it_may_have_missed(tmp_path: Path) -> None:
    async with restarting(tmp_path) as (proxied, restart), application(proxied, LEGACY) as app:
        assert isinstance(app, App)
        await happens(app.listens)
        await app.subscribe(WATCHED)
        await restart()
        await app.says("greet", name="again")
        await app.changed.until(lambda: len(app.changes) >= 4)
        assert sorted(change["method"] for change in app.changes) == [
            "notifications/prompts/list_changed",
            "notifications/resources/list_changed",
            "notifications/resources/updated",
            "notifications/tools/list_changed",
        ]
        assert app.faults == []

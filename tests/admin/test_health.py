"""`/health` and `/ready`, in every state that a proxy is in."""

from __future__ import annotations

import asyncio
from typing import Any

from shadowcat import Admin, ReverseProxy
from shadowcat.clock import ManualClock
from tests.admin.kit import Operator, watched_stand
from tests.admin.stores import ASYNC, STRICT, FailingStore
from tests.rig.client import client_of, rpc
from tests.rig.server import Call, holding, mcp_server
from tests.rig.wait import until

INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


async def ready(operator: Operator) -> tuple[int, list[str], list[str]]:
    reply = await operator.ask("/ready")
    told: Any = await reply.json()
    assert told["is_ready"] == (reply.status == 200)
    return reply.status, told["reasons"], told["degraded"]


async def test_from_before_it_serves_until_it_has_drained() -> None:
    released = asyncio.Event()
    async with mcp_server(name="a") as server:

        async def answer(call: Call) -> None:
            await call.result({"content": []})

        server.on("tools/call")(holding(released, answer))
        proxy = ReverseProxy({"a": server.url}, port=0)
        async with Admin(proxy) as admin, client_of(admin.port) as asker:
            operator = Operator(admin, asker)
            assert await ready(operator) == (503, ["starting"], [])
            async with proxy, client_of(proxy.port) as client:
                assert await ready(operator) == (200, [], [])
                await client.initialize()
                calling = asyncio.create_task(client.call())
                await server.gets("tools/call")
                draining = asyncio.create_task(proxy.drain())
                await until(lambda: proxy.shared.phase.value == "draining")
                assert await ready(operator) == (503, ["draining"], [])
                assert (await operator.get("/health")) == {"is_alive": True}
                released.set()
                assert "result" in await calling
                await draining
            assert await ready(operator) == (503, ["draining"], [])


async def test_no_upstream_that_can_be_reached() -> None:
    async with watched_stand(servers=2) as (rig, operator):
        clock = rig.proxy.shared.clock = rig.proxy.shared.upstreams._clock = ManualClock()
        await rig.servers[0].listener.close()
        for _ in range(2):
            await (await rig.client.post(INITIALIZE)).body()
        # The other one serves.
        assert await ready(operator) == (200, [], [])
        await rig.servers[1].listener.close()
        for _ in range(2):
            assert (await rig.client.post(INITIALIZE)).status == 503
        assert await ready(operator) == (503, ["no_upstream_reachable"], [])
        # Without traffic nobody would find out that one is back.
        clock.advance(10.0)
        assert await ready(operator) == (200, [], [])


async def test_a_store_that_fails_while_traffic_goes_on_without_it() -> None:
    store = FailingStore()
    async with watched_stand(store=store, durability=ASYNC) as (rig, operator):
        await rig.client.initialize()
        store.is_failing = True
        rig.session().core.ledger.record_changed()
        await until(lambda: rig.writer.is_failing)
        assert await ready(operator) == (200, [], ["store_failing"])
        store.is_failing = False
        await until(lambda: not rig.writer.is_failing)
        assert await ready(operator) == (200, [], [])


async def test_a_store_that_fails_where_nothing_goes_on_without_it() -> None:
    store = FailingStore()
    async with watched_stand(store=store, durability=STRICT) as (rig, operator):
        await rig.client.initialize()
        store.is_failing = True
        rig.session().core.ledger.record_changed()
        await until(lambda: rig.writer.is_failing)
        assert await ready(operator) == (503, ["store_failing"], [])
        store.is_failing = False
        await until(lambda: not rig.writer.is_failing)

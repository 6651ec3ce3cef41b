"""Two nodes on one Redis, killed, paused and restarted: no client loses anything, wherever it is led."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import outages
from tests.faults.caller import Caller, Hearing, Tally, seeded
from tests.faults.child import NumbersChild
from tests.faults.customers import YES, Customer, answer
from tests.faults.nodes import LEASE_S, Nodes, roaming_customers, two_nodes
from tests.faults.numbers import TOOLS, CallPlan
from tests.rig.redis_server import RedisServer, redis_server
from tests.rig.wait import soon, until
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1800))

UPGRADE: dict[str, Any] = {"session": {"upgrade_after_s": 0.05}}
LEASE_BY_DEFAULT_S = 5.0
SPARE_S = 4.0
"""What the machine may take longer than the proxy: the bar is the lease and a second."""


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path, appendonly="yes") as server:
        yield server


@pytest.fixture
async def nodes(counting: NumbersChild, redis: RedisServer) -> AsyncIterator[Nodes]:
    async with two_nodes(counting.url, redis.url, **UPGRADE) as found:
        yield found


class Session:
    """One with all that can be under way: a call, its question, and the standalone stream."""

    def __init__(self, client: Caller, name: str, counting: NumbersChild) -> None:
        self.client = client
        self.calling = CallPlan(label=f"call-{name}", count=40, hold_after=20)
        self.asking = CallPlan(label=f"ask-{name}", count=20, ask_after=10)
        self.call = Tally(self.calling.label)
        self.ask = Tally(self.asking.label)
        self.standalone: Tally
        self._counting = counting

    async def begin(self) -> None:
        await self.client.initialize()
        upstream_id = (await self._counting.control("tell"))["sessions"][-1]
        self.standalone = Tally(f"standalone {upstream_id}")
        client = self.client
        listening = await client.begun(await client.listen())
        await self._counting.control("emit", count=1)
        await client.follow(listening, self.standalone, lambda: self.standalone.number == 1)
        hearing = await client.begun(await client.call(self.calling))
        await client.follow(hearing, self.call, lambda: self.call.number == 20)
        hearing = await client.begun(await client.call(self.asking))
        await client.follow(hearing, self.ask, lambda: bool(self.ask.asked))

    async def go_on(self, port: int) -> None:
        """At that node, to the end of everything."""
        client = self.client
        client.port = port
        await self._counting.control("release", label=self.calling.label)
        await client.gather(await client.listen(self.call.last_id), self.call)
        self.call.check_result(self.calling)
        await answer(client, self.ask.asked[0])
        await client.gather(await client.listen(self.ask.last_id), self.ask)
        self.ask.check_result(self.asking)
        assert self.ask.response["result"]["structuredContent"]["answer"] == YES
        assert len(self.ask.asked) == 1
        hearing = await client.begun(await client.listen(self.standalone.last_id))
        last = self.standalone.number + 1
        await self._counting.control("emit", count=1)
        await client.follow(hearing, self.standalone, lambda: self.standalone.number == last)
        assert self.standalone.others == []


async def _nothing_was_ended(counting: NumbersChild, sessions: int) -> None:
    assert await counting.counted("initialize") == sessions
    for never in ("DELETE", "notifications/cancelled"):
        assert await counting.counted(never) == 0


# 35: the owner is killed.


async def test_a_session_of_a_killed_node_is_soon_served_by_the_other(
    counting: NumbersChild, redis: RedisServer
) -> None:
    async with (
        two_nodes(counting.url, redis.url, lease_s=LEASE_BY_DEFAULT_S) as nodes,
        Caller(nodes.one.port) as client,
    ):
        session = Session(client, "1", counting)
        await session.begin()
        await nodes.written()
        await nodes.one.kill()
        killed_at = time.monotonic()
        session.client.port = nodes.two.port
        await session.client.begun(await session.client.listen(session.call.last_id))
        assert time.monotonic() - killed_at <= LEASE_BY_DEFAULT_S + 1.0 + SPARE_S
        await session.go_on(nodes.two.port)
        assert (await counting.control("tell"))["answers"][session.asking.label] == 1
        await _nothing_was_ended(counting, 1)


async def test_whichever_node_is_killed_every_client_goes_on(nodes: Nodes, counting: NumbersChild) -> None:
    draws = seeded("kills")

    async def kill(heard: Heard) -> None:
        for _ in range(sized(3, 60)):
            await heard(draws.randrange(10, 50))
            node = draws.choice(list(nodes))
            await node.kill()
            await asyncio.sleep(draws.uniform(0.0, 2 * LEASE_S))
            await node.start()

    customers = await _busy_while(nodes, counting, sized(12, 24), kill)
    await _nothing_was_ended(counting, len(customers))


Heard = Callable[[int], Awaitable[None]]
"""Waits until each customer has heard so many events more on its standalone stream, or some more and others fewer:
by the clock a slow machine would be disturbed before anything has happened on it."""


async def _busy_while(
    nodes: Nodes, counting: NumbersChild, count: int, work: Callable[[Heard], Awaitable[None]]
) -> list[Customer]:
    """Customers at both nodes, each request at either, until it is done; each has then heard all there was to hear."""
    is_over, last_is_said = asyncio.Event(), asyncio.Event()
    emitted = 0

    async def emit() -> None:
        nonlocal emitted
        while not is_over.is_set():
            emitted += 1
            await counting.control("emit", count=1)
            await asyncio.sleep(0.02)
        # One that everybody still waits for.
        emitted += 1
        last_is_said.set()
        await counting.control("emit", count=1)

    async def disturb(customers: Sequence[Customer]) -> None:
        def heard() -> int:
            return sum(customer.standalone.number for customer in customers)

        async def more(events: int) -> None:
            enough = heard() + events * len(customers)
            await until(lambda: heard() >= enough, within_s=60.0)

        await work(more)
        is_over.set()

    async with roaming_customers(nodes, counting, count) as customers:
        # A stream on which nothing was said has nothing to be resumed from.
        emitted += 1
        await counting.control("emit", count=1)
        await nodes.written()
        async with soon(sized(90.0, 1_500.0)), asyncio.TaskGroup() as tasks:
            for customer in customers:
                tasks.create_task(customer.hears(lambda: emitted, last_is_said))
                tasks.create_task(customer.calls(is_over))
            tasks.create_task(emit())
            tasks.create_task(disturb(customers))
    assert {customer.standalone.number for customer in customers} == {emitted}
    assert [customer.standalone.others for customer in customers] == [[]] * len(customers)
    assert sum(sum(customer.kinds.values()) for customer in customers) > len(customers)
    return customers


# 36: the owner is paused past its lease, and wakes.


async def test_a_node_that_slept_past_its_lease_gives_its_sessions_up(
    nodes: Nodes, counting: NumbersChild
) -> None:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Caller(nodes.one.port)) for _ in range(sized(2, 20))]
        sessions = [Session(client, f"{number}", counting) for number, client in enumerate(clients)]
        for session in sessions:
            await session.begin()
        await nodes.written()
        nodes.one.child.stop()
        for session in sessions:
            await session.go_on(nodes.two.port)
        nodes.one.child.go_on()
        await nodes.one.child.says(lambda told: told["sessions_lost"] == len(sessions))
        assert (await nodes.one.child.statistics())["sessions"] == 0
        for session in sessions:
            # Who still speaks to the old one is passed on.
            client = session.client
            client.port = nodes.one.port
            assert await client.ask("tools/list") == {"jsonrpc": "2.0", "id": client._last, "result": TOOLS}
            plan = CallPlan(label=f"after-{client.session_id}", count=10, ask_after=5)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: bool(tally.asked))
            await answer(client, tally.asked[0])
            await client.follow(hearing, tally)
            tally.check_result(plan)
            for ended in (session.call, session.ask):
                assert await _status(client.listen(ended.last_id)) == 204
        told = await counting.control("tell")
        assert all(told["answers"][session.asking.label] == 1 for session in sessions)
        await _nothing_was_ended(counting, len(sessions))


async def test_whichever_node_sleeps_every_client_goes_on(nodes: Nodes, counting: NumbersChild) -> None:
    draws = seeded("naps")

    async def nap(heard: Heard) -> None:
        for _ in range(sized(3, 60)):
            await heard(draws.randrange(10, 50))
            node = draws.choice(list(nodes))
            node.child.stop()
            # Some within the lease.
            await asyncio.sleep(draws.uniform(0.5 * LEASE_S, 2.5 * LEASE_S))
            node.child.go_on()

    customers = await _busy_while(nodes, counting, sized(12, 24), nap)
    await _nothing_was_ended(counting, len(customers))


# A rolling restart.


async def test_a_rolling_restart_costs_nobody_anything(nodes: Nodes, counting: NumbersChild) -> None:
    async def roll(heard: Heard) -> None:
        for node in (*nodes, *(list(nodes) if sized(False, True) else [])):
            await heard(25)
            await node.end()
            await node.start()

    customers = await _busy_while(nodes, counting, sized(20, 100), roll)
    assert [customer.unknown for customer in customers] == [0] * len(customers)
    assert [customer.unheard for customer in customers] == [0] * len(customers)
    calls = sum(sum(customer.kinds.values()) for customer in customers)
    assert await counting.counted("tools/call") == calls
    await _nothing_was_ended(counting, len(customers))


# 31: the store is killed under both.


async def test_redis_is_killed_under_both_nodes(
    nodes: Nodes, counting: NumbersChild, redis: RedisServer
) -> None:
    async def kill(heard: Heard) -> None:
        for _ in range(sized(2, 20)):
            await heard(25)
            async with outages.killed(redis):
                await asyncio.sleep(0.5)
            await nodes.written()

    customers = await _busy_while(nodes, counting, sized(12, 24), kill)
    await _nothing_was_ended(counting, len(customers))


async def _status(sending: Awaitable[Hearing]) -> int:
    hearing = await sending
    async with soon():
        await hearing.head()
    hearing.close()
    return hearing.status

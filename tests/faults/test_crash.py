"""The proxy is killed, again and again, and the next one goes on: nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest

from shadowcat.clock import SystemClock
from shadowcat.core.stream import EventId
from shadowcat.proxy.reader import HELD_BACK_S
from shadowcat.stores.urls import store_of
from tests.faults.caller import Caller, Hearing, Tally, caller, callers, seeded
from tests.faults.child import NumbersChild
from tests.faults.customers import Customer, answer
from tests.faults.filling import EPOCH, fill, filled_id
from tests.faults.numbers import CallPlan
from tests.faults.restarts import Restarting, kept_proxy_before
from tests.rig.wait import soon
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 1800))

UPGRADE: dict[str, Any] = {"session": {"upgrade_after_s": 0.05}}
UNPRIMED = "2025-06-18"
"""Here a stream begins with its first event: what breaks before it has nothing to be resumed from."""
BACK_S = 2.0
END_S = 15.0
SESSIONS, EVENTS = 1_000, 100_000
RESUMED_S = 5.0
"""The bar is 2 s on a machine of its own."""
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "caller", "version": "1"},
}

both_durabilities = pytest.mark.parametrize("strict", [False, True], ids=["async", "strict"])


@pytest.fixture
async def proxy(counting: NumbersChild, store: str) -> AsyncIterator[Restarting]:
    async with kept_proxy_before(counting.url, store, **UPGRADE) as found:
        yield found


# 10: killed at random points.


@both_durabilities
async def test_whatever_the_moment_every_client_goes_on(
    counting: NumbersChild, store: str, strict: bool
) -> None:
    draws = seeded(f"kills {strict}")
    is_over = asyncio.Event()
    emitted = 0

    async def emit() -> None:
        nonlocal emitted
        while not is_over.is_set():
            emitted += 1
            await counting.control("emit", count=1)
            await asyncio.sleep(0.02)

    async def kill() -> None:
        for _ in range(sized(6, 100)):
            await asyncio.sleep(draws.uniform(0.0, 0.6))
            heard = [(one.client.session_id, tally) for one in customers for tally in one.tallies]
            await proxy.kill()
            if strict:
                await _store_has_all_that_was_heard(proxy, heard)
            await proxy.start()
        is_over.set()

    async with (
        kept_proxy_before(counting.url, store, durability={"strict": strict}, **UPGRADE) as proxy,
        callers(proxy.port, 16) as newer,
        callers(proxy.port, 8, UNPRIMED) as older,
    ):
        clients = newer + older
        sessions = (await counting.control("tell"))["sessions"]
        customers = [
            Customer(client, upstream_id, seeded(f"calls {upstream_id}"), strict=strict)
            for client, upstream_id in zip(clients, sessions, strict=True)
        ]
        for customer in customers:
            await customer.listens()
        # A stream on which nothing was said has nothing to be resumed from.
        emitted += 1
        await counting.control("emit", count=1)
        await proxy.written()
        async with soon(sized(60.0, 1_200.0)), asyncio.TaskGroup() as tasks:
            for customer in customers:
                tasks.create_task(customer.hears(lambda: emitted, is_over))
                tasks.create_task(customer.calls(is_over))
            tasks.create_task(emit())
            tasks.create_task(kill())
        assert {customer.standalone.number for customer in customers} == {emitted}
        assert [customer.standalone.others for customer in customers] == [[]] * len(customers)
        assert sum(sum(customer.kinds.values()) for customer in customers) > len(customers)
        assert min(proxy.starts_s) <= BACK_S
        assert await counting.counted("initialize") == len(customers)
        for never in ("DELETE", "notifications/cancelled"):
            assert await counting.counted(never) == 0


async def _store_has_all_that_was_heard(proxy: Restarting, heard: list[tuple[str, Tally]]) -> None:
    for session_id, tally in heard:
        if tally.last_id is None or tally.is_complete:
            continue
        cursor = EventId.decode(tally.last_id.encode())
        held = await proxy.kept(session_id)
        assert cursor is not None
        assert held is not None
        (stream,) = (stream for stream in held.streams if stream.id == cursor.stream)
        assert cursor.seq < stream.first_seq + len(stream.events)


# 10 and 37: killed right after a promise.


async def test_a_session_that_the_client_was_told_of_is_known(proxy: Restarting) -> None:
    for _ in range(sized(3, 30)):
        async with Caller(proxy.port) as client:
            opening = await client.post(client.request("initialize", INITIALIZE))
            answered = await client.answered(opening)
            await proxy.kill()
            client.session_id = opening.headers["mcp-session-id"]
            client.version = answered["result"]["protocolVersion"]
            await proxy.start()
            await client.accepted({"jsonrpc": "2.0", "method": "notifications/initialized"})
            plan = CallPlan(label=client.session_id, count=3)
            tally = Tally(plan.label)
            await client.gather(await client.call(plan), tally)
            tally.check_result(plan)


async def test_a_session_that_was_ended_stays_so(proxy: Restarting, counting: NumbersChild) -> None:
    for number in range(1, sized(3, 30) + 1):
        async with caller(proxy.port) as client:
            plan = CallPlan(label=client.session_id, count=3, hold_after=1)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 1)
            assert await client.end() == 200
            await proxy.restart()
            assert await _status(client.listen(tally.last_id)) == 404
            assert await _status(client.post(client.request("tools/list"))) == 404
        assert await counting.counted("DELETE") == number


async def test_an_answer_that_was_accepted_has_been_delivered(
    proxy: Restarting, counting: NumbersChild
) -> None:
    async with caller(proxy.port) as client:
        for number in range(sized(3, 30)):
            plan = CallPlan(label=f"call-{number}", count=6, ask_after=3, hold_after=5)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: bool(tally.asked))
            # Whoever hears of a question may answer it, whatever happens in between.
            if number % 2:
                await proxy.restart()
            await answer(client, tally.asked[0])
            await proxy.kill()
            assert (await counting.control("tell"))["answers"][plan.label] == 1
            await proxy.start()
            await counting.control("release", label=plan.label)
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)
            assert len(tally.asked) == 1


# 11: nothing outlives it.


async def test_without_a_store_the_sessions_are_gone_and_nobody_waits(counting: NumbersChild) -> None:
    async with (
        kept_proxy_before(counting.url, "memory:") as proxy,
        callers(proxy.port, sized(5, 50)) as clients,
    ):
        tallies: list[Tally] = []
        for client in clients:
            plan = CallPlan(label=client.session_id, count=3, hold_after=1)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 1)
            tallies.append(tally)
        await proxy.restart()
        for client, tally in zip(clients, tallies, strict=True):
            assert await _status(client.listen(tally.last_id)) == 404
            assert await _status(client.listen()) == 404
            assert await _status(client.post(client.request("tools/list"))) == 404
            assert await client.end() == 404
            client.session_id = ""
            await client.initialize()


# 12: told to end.


async def test_an_orderly_end_leaves_every_stream_to_the_next_process(
    counting: NumbersChild, sqlite_url: str
) -> None:
    async with (
        kept_proxy_before(counting.url, sqlite_url, drain_s=sized(1.0, 10.0)) as proxy,
        callers(proxy.port, 200) as clients,
    ):
        open_streams: list[tuple[Caller, CallPlan, Tally]] = []
        for client in clients:
            plan = CallPlan(label=client.session_id, count=20, hold_after=10)
            tally = Tally(plan.label)
            hearing = await client.begun(await client.call(plan))
            await client.follow(hearing, tally, lambda tally=tally: tally.number == 5)
            open_streams.append((client, plan, tally))
        assert await proxy.end() <= END_S
        await proxy.start()
        for _, plan, _ in open_streams:
            await counting.control("release", label=plan.label)

        async def resume(client: Caller, plan: CallPlan, tally: Tally) -> None:
            await client.gather(await client.listen(tally.last_id), tally)
            tally.check_result(plan)

        await asyncio.gather(*(resume(*stream) for stream in open_streams))
        for never in ("DELETE", "notifications/cancelled"):
            assert await counting.counted(never) == 0


# 13: stopped for a while.


async def test_a_proxy_that_stood_still_goes_on(proxy: Restarting, counting: NumbersChild) -> None:
    async with callers(proxy.port, 10) as clients:

        async def call(client: Caller) -> None:
            plan = CallPlan(label=client.session_id, count=300, size=100, pause_s=0.002)
            tally = Tally(plan.label, plan.size)
            await client.gather(await client.call(plan), tally)
            tally.check_result(plan)

        calling = asyncio.gather(*(call(client) for client in clients))
        await counting.says(lambda told: all(told["ready"].get(client.session_id) for client in clients))
        proxy.child.stop()
        # Time that passes is the fault itself: longer than anybody waits for the store.
        await asyncio.sleep(HELD_BACK_S + 0.5)
        proxy.child.go_on()
        await calling
        await proxy.written()
        assert (await proxy.child.statistics())["sessions_lost"] == 0


# 7 of the promise: back soon, however much there is.


async def test_the_first_resume_does_not_wait_for_what_others_have_in_the_store(
    counting: NumbersChild, store: str
) -> None:
    filled = store_of(store, SystemClock())
    assert filled is not None
    await fill(filled, SESSIONS, EVENTS // SESSIONS)
    await filled.aclose()
    began = time.monotonic()
    async with kept_proxy_before(counting.url, store) as proxy, Caller(proxy.port) as client:
        client.session_id, client.version = filled_id(SESSIONS // 2), "2025-11-25"
        tally = Tally("filled", 100, last_id=f"{EPOCH}.1.0")
        await client.gather(await client.listen(tally.last_id), tally)
        assert tally.number == EVENTS // SESSIONS - 1
        assert time.monotonic() - began <= RESUMED_S


async def _status(sending: Awaitable[Hearing]) -> int:
    hearing = await sending
    async with soon():
        await hearing.head()
    hearing.close()
    return hearing.status

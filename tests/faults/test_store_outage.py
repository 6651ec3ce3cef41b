"""The store goes away, stalls, fills up, forgets or breaks under a running proxy, and comes back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.faults import outages
from tests.faults.caller import Broken, Caller, Hearing, Tally, caller
from tests.faults.child import Child, NumbersChild
from tests.faults.customers import insist
from tests.faults.numbers import CallPlan
from tests.faults.restarts import Restarting, kept_proxy_before
from tests.rig.redis_server import RedisServer, redis_server
from tests.rig.wait import soon
from tests.size import sized

pytestmark = pytest.mark.timeout(sized(120, 600))

ANSWER_S = 5.0
PAUSE_S = 5.0
REST_S = 5.0
"""From the end of the grace to the end of the process."""
SPARE_S = 3.0
"""What the machine may take longer than the proxy."""
STORE_UNAVAILABLE = -31002
STRICT = {"strict": True}

RedisOutage = Callable[[RedisServer], AbstractAsyncContextManager[None]]
FileOutage = Callable[[Path, Child], AbstractAsyncContextManager[None]]


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path, appendonly="yes") as server:
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "store"
    directory.mkdir()
    return directory / "sessions.db"


class Running:
    """A call that stands in its middle, and was heard up to there."""

    def __init__(self, client: Caller, counting: NumbersChild) -> None:
        self.client = client
        self.plan = CallPlan(label=client.session_id, count=60, size=200, hold_after=20)
        self.tally = Tally(self.plan.label, self.plan.size)
        self.before: str | None = None
        """An event that was heard while all was well."""
        self._counting = counting
        self.hearing: Hearing

    async def begin(self) -> None:
        self.hearing = await self.client.begun(await self.client.call(self.plan))
        await self.client.follow(self.hearing, self.tally, lambda: self.tally.number == 10)
        self.before = self.tally.last_id
        await self.client.follow(self.hearing, self.tally, lambda: self.tally.number == 20)

    async def goes_on(self) -> None:
        await self._counting.control("release", label=self.plan.label)

    async def ends(self) -> None:
        await self.client.gather(self.hearing, self.tally)
        self.tally.check_result(self.plan)

    async def is_all_there(self) -> None:
        """From where all was well to the end, out of the log."""
        again = Tally(self.plan.label, self.plan.size, number=10, last_id=self.before)
        await self.client.gather(await insist(lambda: self.client.listen(self.before)), again)
        again.check_result(self.plan)


async def _a_new_call(client: Caller, label: str) -> None:
    began = time.monotonic()
    plan = CallPlan(label=label, count=5)
    tally = Tally(plan.label)
    await client.gather(await client.call(plan), tally)
    tally.check_result(plan)
    assert time.monotonic() - began <= ANSWER_S + SPARE_S


# The usual durability: traffic goes on, and what was missed is written.


async def _goes_on_without_it(
    proxy: Restarting,
    counting: NumbersChild,
    outage: AbstractAsyncContextManager[None],
    *,
    is_noticed: bool = True,
) -> None:
    async with caller(proxy.port) as client, caller(proxy.port) as other, Caller(proxy.port) as newcomer:
        running = Running(client, counting)
        await running.begin()
        await proxy.written()
        async with outage:
            await running.goes_on()
            await running.ends()
            await _a_new_call(other, "a-new-call")
            await newcomer.initialize()
            await _a_new_call(newcomer, "a-call-of-a-new-session")
            assert (await proxy.child.statistics())["store_failing"] == is_noticed
        await proxy.written()
        await proxy.kill()
        upstream_calls = await counting.counted("GET")
        await proxy.start()
        await running.is_all_there()
        assert await counting.counted("GET") <= upstream_calls + 1, "a call was not wholly in the store"
        await _a_new_call(newcomer, "after-the-crash")


@pytest.mark.parametrize("outage", [outages.killed, outages.stalled, outages.out_of_memory])
async def test_traffic_goes_on_without_redis(
    counting: NumbersChild, redis: RedisServer, outage: RedisOutage
) -> None:
    async with kept_proxy_before(counting.url, redis.url) as proxy:
        await _goes_on_without_it(proxy, counting, outage(redis))


async def test_redis_that_forgets_everything_is_told_it_again(
    counting: NumbersChild, redis: RedisServer
) -> None:
    async with kept_proxy_before(counting.url, redis.url) as proxy:
        await _goes_on_without_it(proxy, counting, outages.emptied(redis), is_noticed=False)


@pytest.mark.parametrize("outage", [outages.out_of_disk, outages.locked])
async def test_traffic_goes_on_without_the_file(
    counting: NumbersChild, path: Path, outage: FileOutage
) -> None:
    async with kept_proxy_before(counting.url, f"sqlite:///{path}") as proxy:
        await _goes_on_without_it(proxy, counting, outage(path, proxy.child))


async def test_a_file_that_breaks_is_written_anew(counting: NumbersChild, path: Path) -> None:
    async with kept_proxy_before(counting.url, f"sqlite:///{path}") as proxy:
        await _goes_on_without_it(proxy, counting, outages.broken(path), is_noticed=False)
    assert path.with_name("sessions.db.corrupt-1").exists()


async def test_a_crash_while_redis_is_away_costs_nothing_that_a_server_would_repeat(
    counting: NumbersChild, redis: RedisServer
) -> None:
    async with kept_proxy_before(counting.url, redis.url) as proxy, caller(proxy.port) as client:
        running = Running(client, counting)
        await running.begin()
        await proxy.written()
        await redis.kill()
        await running.goes_on()
        await client.follow(running.hearing, running.tally, lambda: running.tally.number == 50)
        await proxy.kill()
        await redis.start()
        await proxy.start()
        await running.ends()


async def test_the_end_waits_long_for_neither_the_store_nor_the_server(
    counting: NumbersChild, redis: RedisServer
) -> None:
    """One deadline for all of it: what each may take would come to more together."""
    drain_s = sized(1.0, 10.0)
    async with (
        kept_proxy_before(counting.url, redis.url, drain_s=drain_s) as proxy,
        caller(proxy.port) as client,
    ):
        running = Running(client, counting)
        await running.begin()
        await proxy.written()
        await running.goes_on()
        redis.stop()
        counting.stop()
        try:
            took_s = await proxy.end()
        finally:
            redis.go_on()
            counting.go_on()
        assert took_s <= drain_s + REST_S + SPARE_S


# Strict: nothing is said that a crash could undo.


async def _pauses(
    proxy: Restarting, counting: NumbersChild, outage: AbstractAsyncContextManager[None]
) -> None:
    async with caller(proxy.port) as client, Caller(proxy.port) as newcomer:
        running = Running(client, counting)
        await running.begin()
        await proxy.written()
        async with outage:
            await running.goes_on()
            began = time.monotonic()
            assert await _rest(running) == []
            assert time.monotonic() - began <= PAUSE_S + SPARE_S
            await proxy.child.says(lambda told: told["store_failing"])
            refused = await newcomer.post(newcomer.request("initialize", {"protocolVersion": "2025-11-25"}))
            await newcomer.answered(refused)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) > 0
            answer = await client.ask("tools/list")
            assert answer["error"]["code"] == STORE_UNAVAILABLE, answer
        await proxy.written()
        running.hearing = await client.listen(running.tally.last_id)
        await running.ends()
        await proxy.restart()
        await running.is_all_there()


async def _rest(running: Running) -> list[Any]:
    """What comes on the stream until it is closed."""
    rest: list[Any] = []
    async with soon():
        try:
            while (event := await running.hearing.event()) is not None:
                rest.append(event)
        except Broken:
            pass
    return rest


@pytest.mark.parametrize(
    "outage", sized([outages.killed], [outages.killed, outages.stalled, outages.out_of_memory])
)
async def test_strict_streams_pause_without_redis(
    counting: NumbersChild, redis: RedisServer, outage: RedisOutage
) -> None:
    async with kept_proxy_before(counting.url, redis.url, durability=STRICT) as proxy:
        await _pauses(proxy, counting, outage(redis))


@pytest.mark.parametrize("outage", sized([outages.out_of_disk], [outages.out_of_disk, outages.locked]))
async def test_strict_streams_pause_without_the_file(
    counting: NumbersChild, path: Path, outage: FileOutage
) -> None:
    async with kept_proxy_before(counting.url, f"sqlite:///{path}", durability=STRICT) as proxy:
        await _pauses(proxy, counting, outage(path, proxy.child))


# Broken before a restart.


async def test_a_file_that_broke_meanwhile_is_set_aside(counting: NumbersChild, path: Path) -> None:
    async with kept_proxy_before(counting.url, f"sqlite:///{path}") as proxy, caller(proxy.port) as client:
        running = Running(client, counting)
        await running.begin()
        await proxy.written()
        await proxy.kill()
        outages.wreck(path)
        await proxy.start()
        hearing = await client.listen(running.tally.last_id)
        async with soon():
            await hearing.head()
        assert hearing.status == 404
        assert path.with_name("sessions.db.corrupt-1").exists()
        client.session_id = ""
        await client.initialize()
        await _a_new_call(client, "a-new-session")
        await proxy.written()
        await proxy.restart()
        await _a_new_call(client, "and-a-crash-later")

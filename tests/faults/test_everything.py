"""Everything at once, for as long as one likes: what a client hears stays whole, and the proxy does not grow.

The time is cut into rounds. In each, clients of several kinds are at it while one thing after another goes wrong on
either side; at its end everybody comes to rest, and what the proxy holds then is compared between rounds. In the
first rounds the proxy itself is killed and restarted, too; after that one process lives to the end.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.caller import Broken, Caller, Tally, callers, seeded
from tests.faults.child import NumbersChild
from tests.faults.customers import UNAVAILABLE, Customer, insist, resumed
from tests.faults.numbers import CallPlan
from tests.faults.restarts import Restarting, kept_proxy_before
from tests.faults.wire import Wire, wire_to
from tests.rig.wait import soon
from tests.size import sized

LENGTH_S = float(os.environ.get("SHADOWCAT_SOAK_S", sized("9", "600")))
"""The bar of growth is for an hour: SHADOWCAT_SOAK_S=3600."""
ROUND_S = sized(3.0, 10.0)
SPARE_S = 60.0
"""For everybody to come to rest after a round, on a machine that has other things to do."""
pytestmark = pytest.mark.timeout(120 + 5 * LENGTH_S)

MIB = 1024 * 1024
MAX_GROWTH = 1 * MIB
"""An hour."""
NOISE = 2 * MIB
"""What the allocator does from one round to the next, whatever the length."""
OPTIONS: dict[str, Any] = {
    # A server that went silent is asked on a new connection after this, and a call that only waits ends after that.
    "call": {"gap_s": 2.0, "head_s": 5.0},
    # Short enough for all of it to be let go of between two rounds.
    "session": {"upgrade_after_s": 0.05, "idle_s": 8.0, "linger_s": 2.0, "server_request_s": 8.0},
    "log": {"age_s": 8.0},
    "server": {"stall_s": 1.0},
    "endpoint": {"retry_ms": 500},
}
AT_REST = (
    "Task-",
    "http/exchange",
    "proxy/listen",
    "proxy/expire idle sessions",
    "proxy/expire stored sessions",
    "proxy/hear of removed sessions",
    "proxy/write to the store",
)
"""The tasks that run when nobody wants anything."""
LOST = frozenset({-31004, -31005, -31007, -32603})
"""What a call may end with whose server was away: unknown, not sent, out of time, or its session gone."""


@dataclass
class Rest:
    """What the proxy holds when nobody wants anything of it."""

    rss_bytes: int
    open_files: int
    tasks: int
    held_bytes: int


@dataclass(eq=False)
class Stage:
    counting: NumbersChild
    behind: Wire
    """Between proxy and server."""
    proxy: Restarting
    before: Wire
    """Between clients and proxy."""
    customers: list[Customer]
    draws: random.Random
    emitted: int = 0
    troubles: dict[str, int] = field(default_factory=dict[str, int])
    rests: list[Rest] = field(default_factory=list[Rest])

    async def emit(self) -> None:
        self.emitted += 1
        await self.counting.control("emit", count=1)

    # A round.

    async def round(self, *, restarts: bool) -> None:
        is_over, last_is_said = asyncio.Event(), asyncio.Event()
        async with soon(ROUND_S + SPARE_S), asyncio.TaskGroup() as tasks:
            for customer in self.customers:
                tasks.create_task(customer.hears(lambda: self.emitted, last_is_said))
                tasks.create_task(customer.calls(is_over))
            for number in range(2):
                tasks.create_task(self._dawdle(number, is_over))
                tasks.create_task(self._come_and_go(number, is_over))
            tasks.create_task(self._speak(is_over, last_is_said))
            await self._make_trouble(restarts)
            is_over.set()

    async def _speak(self, is_over: asyncio.Event, last_is_said: asyncio.Event) -> None:
        while not is_over.is_set():
            await self.emit()
            await asyncio.sleep(0.05)
        # One that everybody still waits for.
        self.emitted += 1
        last_is_said.set()
        await self.counting.control("emit", count=1)

    async def _make_trouble(self, restarts: bool) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._cut_clients,
            self._cut_server,
            self._leave_clients_half_open,
            self._swallow_what_the_server_says,
            self._refuse_the_server,
            self._freeze_the_server,
        ]
        if restarts:
            kinds += [self._kill, self._end]
        until = time.monotonic() + ROUND_S
        while time.monotonic() < until:
            kind = self.draws.choice(kinds)
            self.troubles[kind.__name__.strip("_")] = self.troubles.get(kind.__name__.strip("_"), 0) + 1
            await kind()
            await asyncio.sleep(self.draws.uniform(0.1, 0.5))

    async def _cut_clients(self) -> None:
        self.before.reset_all()

    async def _cut_server(self) -> None:
        self.behind.reset_all()

    async def _leave_clients_half_open(self) -> None:
        self.before.half_open()
        await asyncio.sleep(self.draws.uniform(0.1, 0.5))
        # The clients notice, and come back before the proxy has.
        self.before.heal()
        self.before.reset_all()

    async def _swallow_what_the_server_says(self) -> None:
        self.behind.black_hole()
        await asyncio.sleep(self.draws.uniform(0.1, 0.5))
        self.behind.heal()
        self.behind.reset_all()

    async def _refuse_the_server(self) -> None:
        await self.behind.refuse()
        self.behind.reset_all()
        await asyncio.sleep(self.draws.uniform(0.1, 0.5))
        await self.behind.accept()

    async def _freeze_the_server(self) -> None:
        self.counting.stop()
        await asyncio.sleep(self.draws.uniform(0.1, 0.5))
        self.counting.go_on()

    async def _kill(self) -> None:
        await self.proxy.restart()

    async def _end(self) -> None:
        await self.proxy.end()
        await self.proxy.start()

    # Those who do not stay.

    async def _dawdle(self, number: int, is_over: asyncio.Event) -> None:
        """Stops reading in the middle of a flood, and comes back for the rest."""
        while not is_over.is_set():
            async with Caller(self.before.port) as client:
                if await _opened(client):
                    await self._be_flooded(client, f"flood-{number}-{client.session_id}")
                    await _ended(client)

    async def _be_flooded(self, client: Caller, label: str) -> None:
        plan = CallPlan(label=label, count=1_000, size=2_000)
        tally = Tally(plan.label, plan.size)
        try:
            hearing = await client.begun(await client.call(plan, receive_buffer=16 * 1024))
            await client.follow(hearing, tally, lambda: tally.number >= 10)
            hearing.deafen()
            await asyncio.sleep(self.draws.uniform(0.0, 1.5))
            hearing.reset()
        except (Broken, OSError, AssertionError):
            if tally.last_id is None:
                return
        while not tally.is_complete:
            # It may end before the answer: a proxy that stops sends its clients away, to come back for the rest.
            hearing = await resumed(client, tally)
            with suppress(Broken):
                await client.follow(hearing, tally)
            hearing.reset()
        assert tally.response.get("result") or tally.response["error"]["code"] in LOST

    async def _come_and_go(self, number: int, is_over: asyncio.Event) -> None:
        """One session after another: of some the server forgets the half, some end, and some are left lying."""
        draws = seeded(f"comes and goes {number} {len(self.rests)}")
        while not is_over.is_set():
            async with Caller(self.before.port) as client:
                if not await _opened(client):
                    continue
                if draws.random() < 0.5:
                    upstream = (await self.counting.control("tell"))["sessions"][-1]
                    await self.counting.control("forget", session=upstream)
                await self._ask_a_little(client)
                if draws.random() < 0.7:
                    await _ended(client)

    async def _ask_a_little(self, client: Caller) -> None:
        for _ in range(3):
            try:
                answer = await client.ask("tools/list")
            except (Broken, OSError, ValueError):
                continue
            assert answer is None or "result" in answer or answer["error"]["code"] in LOST, answer

    # Between rounds.

    async def rest(self) -> None:
        """Waits for all that has its time to be over, and looks."""
        child, customers = self.proxy.child, len(self.customers)

        def is_at_rest(told: dict[str, Any]) -> bool:
            # A connection for each that listens, and one upstream; in between nothing runs.
            return (
                told["sessions"] == told["connections"] == customers
                and all(name.startswith(AT_REST) for name in told["names"])
                and not told["store_waiting"]
                and not told["idle_upstream"]
            )

        told = await child.says(is_at_rest, within_s=SPARE_S)
        self.rests.append(Rest(child.rss_bytes, child.open_files, told["tasks"], told["held_bytes"]))


async def _opened(client: Caller) -> bool:
    """Whether a session could be opened; there are times when it cannot."""
    client.session_id = ""
    try:
        await client.initialize()
    except (Broken, OSError, AssertionError, ValueError, KeyError, TypeError):
        await asyncio.sleep(0.05)
        return False
    return True


async def _ended(client: Caller) -> None:
    async def end() -> None:
        status = await client.end()
        if status == UNAVAILABLE:
            raise Broken
        assert status in (200, 404)

    await insist(end)


@pytest.fixture
async def stage(counting: NumbersChild, sqlite_url: str) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(wire_to(counting.port))
        proxy = await stack.enter_async_context(
            kept_proxy_before(behind.url, sqlite_url, drain_s=1.0, **OPTIONS)
        )
        before = await stack.enter_async_context(wire_to(proxy.port))
        clients = [
            *await stack.enter_async_context(callers(before.port, 8)),
            *await stack.enter_async_context(callers(before.port, 4, "2025-06-18")),
        ]
        sessions = (await counting.control("tell"))["sessions"]
        customers = [
            Customer(client, upstream_id, seeded(upstream_id), strict=False, lost=LOST)
            for client, upstream_id in zip(clients, sessions, strict=True)
        ]
        for customer in customers:
            await customer.listens()
        found = Stage(counting, behind, proxy, before, customers, seeded("trouble"))
        # A stream on which nothing was said has nothing to be resumed from.
        await found.emit()
        everybody_heard = asyncio.Event()
        everybody_heard.set()
        for customer in customers:
            await customer.hears(lambda: found.emitted, everybody_heard)
        await proxy.written()
        yield found


async def test_everything_at_once_for_as_long_as_one_likes(stage: Stage) -> None:
    rounds = max(2, round(LENGTH_S / ROUND_S))
    restarting = max(1, rounds // 4)
    for _ in range(restarting):
        await stage.round(restarts=True)
    for _ in range(rounds - restarting):
        await stage.round(restarts=False)
        await stage.rest()
        print(stage.rests[-1], stage.troubles)
    for customer in stage.customers:
        assert customer.standalone.number == stage.emitted
        assert sum(customer.kinds.values()) > 0
    assert len({rest.tasks for rest in stage.rests}) == 1, stage.rests
    assert len({rest.open_files for rest in stage.rests}) == 1, stage.rests
    _does_not_grow(stage.rests)


def _does_not_grow(rests: list[Rest]) -> None:
    """The last third beside the middle one: in the first, caches fill."""
    third = len(rests) // 3
    if third < 3:
        return
    middle = statistics.median(rest.rss_bytes for rest in rests[third : 2 * third])
    last = statistics.median(rest.rss_bytes for rest in rests[-third:])
    assert last - middle < NOISE + MAX_GROWTH * LENGTH_S / 3_600 / 3, [rest.rss_bytes for rest in rests]

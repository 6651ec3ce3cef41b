"""Starts: one while nothing is known, several afterwards, none for who waited too long."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.core.breaker import RestartPolicy
from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.starter import Starter, StartLimits
from tests.rig.wait import until


class Starts:
    """Each goes on until the test lets it."""

    def __init__(self) -> None:
        self.running = 0
        self.go = asyncio.Event()
        self.fails = False

    async def start(self) -> str:
        self.running += 1
        try:
            await self.go.wait()
        finally:
            self.running -= 1
        if self.fails:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE)
        return "started"


async def test_one_is_tried_and_then_several() -> None:
    starts, starter = Starts(), Starter("s", StartLimits(at_once=3))
    first = [asyncio.create_task(starter.run(starts.start)) for _ in range(5)]
    await until(lambda: starts.running)
    await asyncio.sleep(0)
    assert starts.running == 1
    starts.go.set()
    assert await asyncio.gather(*first) == ["started"] * 5
    starts.go.clear()
    later = [asyncio.create_task(starter.run(starts.start)) for _ in range(5)]
    await until(lambda: starts.running == 3)
    starts.go.set()
    await asyncio.gather(*later)


async def test_a_turn_that_does_not_come() -> None:
    starts, starter = Starts(), Starter("s", StartLimits(at_once=1, queue_s=0.05))
    first = asyncio.create_task(starter.run(starts.start))
    await until(lambda: starts.running)
    with pytest.raises(Fault) as caught:
        await starter.run(starts.start)
    assert (caught.value.kind, caught.value.reason) == (FaultKind.OVER_CAPACITY, "too_many_starting")
    starts.go.set()
    assert await first == "started"


async def test_a_long_wait_is_told_and_a_short_one_sat_out() -> None:
    policy = RestartPolicy(first_s=0.001, cap_s=0.001, failures=3, window_s=60, open_s=60)
    starts, starter = Starts(), Starter("s", StartLimits(restart=policy))
    starts.go.set()
    starts.fails = True
    reasons: list[str] = []
    for _ in range(4):
        with pytest.raises(Fault) as caught:
            await starter.run(starts.start)
        reasons.append(caught.value.reason)
    assert reasons == ["upstream_unavailable"] * 3 + ["command_keeps_failing"]


async def test_one_that_ends_early_has_failed() -> None:
    policy = RestartPolicy(failures=2, window_s=60, open_s=60)
    starts, starter = Starts(), Starter("s", StartLimits(restart=policy, steady_s=10))
    starts.go.set()
    for age_s in (11, 1, 11, 1):
        await starter.run(starts.start)
        starter.ended(age_s)
    with pytest.raises(Fault, match="keeps failing"):
        await starter.run(starts.start)

from __future__ import annotations

import asyncio

import pytest

from shadowcat.http.flow import Sweeper, WriteGate, interval_for
from tests.http.kit import happens, soon


def gate() -> WriteGate:
    return WriteGate(asyncio.get_running_loop())


async def test_an_open_gate_lets_through() -> None:
    async with soon():
        await gate().wait_open()


async def test_a_closed_gate_holds_until_it_opens() -> None:
    held = gate()
    held.close(100)
    assert held.is_closed
    waiting = asyncio.create_task(held.wait_open())
    await asyncio.sleep(0)
    assert not waiting.done()
    held.open()
    async with soon():
        await waiting
    assert not held.is_closed


async def test_a_gate_that_closes_again_before_the_waiter_runs_still_holds_it() -> None:
    held = gate()
    held.close(100)
    waiting = asyncio.create_task(held.wait_open())
    await asyncio.sleep(0)
    held.open()
    held.close(100)
    await asyncio.sleep(0)
    assert not waiting.done()
    held.open()
    async with soon():
        await waiting


async def test_a_cancelled_waiter_leaves_the_gate_usable() -> None:
    held = gate()
    held.close(100)
    waiting = asyncio.create_task(held.wait_open())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.open()
    async with soon():
        await held.wait_open()


async def test_stalled_is_accepting_nothing_for_the_limit() -> None:
    held = gate()
    assert not held.has_stalled(0, float("inf"), 5.0), "an open gate never stalls"
    held.close(100)
    start = held.stalled_since
    assert not held.has_stalled(100, start + 4.9, 5.0)
    assert not held.has_stalled(99, start + 5.0, 5.0), "a byte was accepted"
    assert not held.has_stalled(99, start + 9.9, 5.0)
    assert held.has_stalled(99, start + 10.0, 5.0)


async def test_the_sweeper_calls_until_it_is_closed() -> None:
    thrice = asyncio.Event()
    times: list[float] = []

    def sweep(now: float) -> None:
        times.append(now)
        if len(times) == 3:
            sweeper.close()
            thrice.set()

    sweeper = Sweeper(sweep, 0.01)
    await happens(thrice)
    after = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, after.set)
    await happens(after)
    assert len(times) == 3
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("deadlines", "interval"),
    [((10.0, 2.0), 0.2), ((100.0, None), 1.0), ((0.001,), 0.01), ((), 1.0), ((None,), 1.0)],
)
def test_interval(deadlines: tuple[float | None, ...], interval: float) -> None:
    assert interval_for(*deadlines) == pytest.approx(interval)

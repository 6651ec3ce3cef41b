from __future__ import annotations

from collections.abc import Callable

import pytest

from shadowcat.clock import ManualClock
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.stores.memory import ENDED_S, MAX_ENDED, MemoryStore
from shadowcat.testing import StoreContract


class TestMemoryStore(StoreContract):
    is_shared = False

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def make_store(self, clock: ManualClock) -> Callable[[], MemoryStore]:
        self.clock_of_store = clock
        store = MemoryStore(clock, is_shared=self.is_shared)
        return lambda: store

    async def pass_time(self, seconds: float) -> None:
        self.clock_of_store.advance(seconds)


class TestSharedMemoryStore(TestMemoryStore):
    is_shared = True


OPENING = SessionChange("a", 1, is_whole=True, record=b"record")


async def test_an_end_is_remembered_for_an_hour() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.write([OPENING, SessionChange("a", 1, ends=True)])
    clock.advance(ENDED_S - 1)
    clock.jump_wall(7_200)
    assert await store.write([OPENING]) == {"a": Refusal.ENDED}
    clock.advance(1)
    assert not await store.write([OPENING])


async def test_so_many_ends_are_remembered() -> None:
    store = MemoryStore(ManualClock())
    await store.write([SessionChange(f"{number}", 1, ends=True) for number in range(MAX_ENDED + 1)])
    refused = await store.write([SessionChange(name, 1, is_whole=True) for name in ("0", "1")])
    assert refused == {"1": Refusal.ENDED}


async def test_a_jump_of_the_wall_clock_expires_nothing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.write([OPENING])
    for jump in (7_200, -14_400):
        clock.jump_wall(jump)
        await store.expire(1_800.0)
    assert await store.read("a") is not None
    clock.advance(1_800)
    await store.expire(1_800.0)
    assert await store.read("a") is None

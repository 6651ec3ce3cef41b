from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from shadowcat.aio import Tasks
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.proxy.news import News
from shadowcat.proxy.writer import Durability, StoreWriter
from tests.rig.wait import soon

NOT_SOON_S = 60.0


class Slow:
    """A store that takes what it is given when it is let."""

    def __init__(self) -> None:
        self.written: list[list[str]] = []
        self.begun = asyncio.Event()
        self.may = asyncio.Event()

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        self.written.append([change.session_id for change in changes])
        self.begun.set()
        await self.may.wait()
        return {}


class Told:
    """A session that has something to be written whenever it is marked."""

    def __init__(self, name: str) -> None:
        self.session_id = name
        self.is_written = asyncio.Event()

    def change(self) -> SessionChange:
        return SessionChange(self.session_id, 1)

    def written(self) -> None:
        self.is_written.set()

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of {self.session_id}")


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@pytest.fixture
async def writer(slow: Slow) -> AsyncIterator[StoreWriter]:
    store: Any = slow
    tasks = Tasks("test")
    writer = StoreWriter(store, tasks, Durability(gather_s=NOT_SOON_S), News())
    tasks.spawn(writer.run(), "write")
    yield writer
    await tasks.aclose()


def told(*names: str) -> list[Any]:
    return [Told(name) for name in names]


async def test_what_comes_during_a_write_waits_for_company(writer: StoreWriter, slow: Slow) -> None:
    first, second, third = told("a", "b", "c")
    writer.mark(first)
    writer.hurry()
    async with soon():
        await slow.begun.wait()
    writer.mark(second)
    slow.may.set()
    async with soon():
        await first.is_written.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert slow.written == [["a"]]
    writer.mark(third)
    writer.hurry()
    async with soon():
        await third.is_written.wait()
    assert slow.written == [["a"], ["b", "c"]]


async def test_somebody_may_wait_for_what_came_during_a_write(writer: StoreWriter, slow: Slow) -> None:
    first, second = told("a", "b")
    writer.mark(first)
    writer.hurry()
    async with soon():
        await slow.begun.wait()
    writer.mark(second)
    writer.hurry()
    slow.may.set()
    async with soon():
        await second.is_written.wait()


async def test_what_does_not_fit_into_a_write_follows_at_once(writer: StoreWriter, slow: Slow) -> None:
    many = told(*(str(number) for number in range(450)))
    for one in many:
        writer.mark(one)
    slow.may.set()
    assert await writer.flush(5.0)
    assert [len(batch) for batch in slow.written] == [200, 200, 50]
    assert all(one.is_written.is_set() for one in many)

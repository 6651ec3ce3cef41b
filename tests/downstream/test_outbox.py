from __future__ import annotations

import asyncio

import pytest

from shadowcat.downstream.outbox import Outbox
from tests.rig.wait import soon


async def test_pieces_come_as_they_were_put() -> None:
    outbox = Outbox()
    for piece in (b"a", b"b"):
        await outbox.put(piece)
    outbox.end()
    await outbox.put(b"too late")
    assert [piece async for piece in outbox] == [b"a", b"b"]


async def test_a_reader_waits_for_the_next_piece_and_for_the_end() -> None:
    outbox = Outbox()
    reading = asyncio.create_task(anext(outbox))
    await asyncio.sleep(0)
    assert not reading.done()
    await outbox.put(b"a")
    async with soon():
        assert await reading == b"a"
    reading = asyncio.create_task(anext(outbox))
    await asyncio.sleep(0)
    outbox.end()
    async with soon():
        with pytest.raises(StopAsyncIteration):
            await reading


async def test_whoever_puts_waits_for_room() -> None:
    outbox = Outbox(max_bytes=10)
    putting = [asyncio.create_task(outbox.put(b"%05d" % number)) for number in range(100)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in putting) == 2
    async with soon():
        assert [await anext(outbox) for _ in range(100)] == [b"%05d" % number for number in range(100)]
        await asyncio.gather(*putting)


async def test_the_end_lets_go_of_whoever_waits() -> None:
    outbox = Outbox(max_bytes=1)
    await outbox.put(b"a")
    putting = asyncio.create_task(outbox.put(b"b"))
    await asyncio.sleep(0)
    outbox.end()
    async with soon():
        await putting
    assert [piece async for piece in outbox] == [b"a"]

"""The streams of a session: who waits for whom, and what is left of them."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.core.stream import Budget, LogLimits
from shadowcat.proxy.book import StreamBook
from shadowcat.wire import jsonrpc
from tests.rig.stand import Stand, unkept
from tests.rig.wait import soon

NOTE = jsonrpc.notification("notifications/vendor", {"text": "x" * 200})


class Now:
    """A clock to be set."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def book_of(total: Budget, now: Now | None = None, room: int = 1 << 20, *, asked: bool = True) -> StreamBook:
    return StreamBook(
        "e", LogLimits(bytes=room), total, unkept(), now or Now(), primed=False, is_current=lambda _: asked
    )


async def test_all_writers_of_a_stream_go_on_when_there_is_room() -> None:
    """The calls of a batch share one."""
    book = book_of(Budget(1 << 30), room=2_000)
    stream = book.new()
    for _ in range(10):
        stream.append(NOTE)
    waiting = [asyncio.create_task(book.wait_for_room(stream)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await anext(stream.read())
    async with soon():
        await asyncio.gather(*waiting)


async def test_a_stream_whose_rest_was_answered_ends() -> None:
    book = book_of(Budget(1 << 30), asked=False)
    stream = book.new()
    stream.append(NOTE)
    stream.append(jsonrpc.request(1, "roots/list"))
    book.finish(stream)
    async with soon():
        with pytest.raises(StopAsyncIteration):
            await anext(stream.read(after=1))


def test_a_stream_that_is_read_keeps_no_other() -> None:
    now = Now()
    book = book_of(Budget(1 << 30), now)
    read, old = book.new(), book.new()
    for stream in (read, old):
        stream.append(NOTE)
        book.finish(stream)
    reader = read.read(after=0)
    now.at = 601.0
    book.prune()
    assert len(book) == 1
    read.detach(reader)
    book.prune()
    assert len(book) == 0


def test_what_comes_after_the_end_is_not_counted() -> None:
    total = Budget(1 << 30)
    book = book_of(total)
    running = book.new(1)
    running.append(NOTE)
    book.close_all()
    assert total.used == 0
    running.append(NOTE)
    book.finish(running)
    book.standalone.append(NOTE)
    late = book.new(2)
    late.append(NOTE)
    book.finish(late)
    book.prune()
    assert total.used == 0


async def test_looking_after_a_session_costs_it_nothing(session: Stand) -> None:
    found = session.session()
    await found.look_after()
    assert session.proxy.shared.log_budget.used == 0
    await session.client.delete()
    await found.look_after()
    assert session.proxy.shared.log_budget.used == 0

"""The streams of a session: who waits for whom, and what is left of them."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.aio import Tasks
from shadowcat.core.stream import MAX_AHEAD_BYTES, Budget, LogLimits
from shadowcat.proxy.book import StreamBook
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.news import News
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.writer import Durability, StoreWriter
from shadowcat.stores.memory import MemoryStore
from shadowcat.wire import jsonrpc
from tests.rig.server import Call
from tests.rig.stand import Stand, stand, unkept
from tests.rig.wait import soon, until

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


async def test_a_stream_that_is_read_goes_on_beside_one_that_holds_all_the_room() -> None:
    book = book_of(Budget(1 << 30), room=4_000)
    unread, read = book.new(), book.new()
    for _ in range(12):
        unread.append(NOTE)
    reader = read.read()
    for _ in range(3):
        read.append(NOTE)
        waiting = asyncio.create_task(book.wait_for_room(read))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await _heard(reader) == 1
        async with soon():
            await waiting


async def test_the_store_wakes_a_reader_only_for_what_was_held_back() -> None:
    writer = StoreWriter(MemoryStore(), Tasks("test"), Durability(), News())
    ledger = SessionLedger(
        writer, "s", node="", fence=0, describe=bytes, streams=lambda: (), on_refused=lambda _: None
    )
    book = StreamBook(
        "e", LogLimits(), Budget(1 << 30), ledger, Now(), primed=False, is_current=lambda _: True
    )
    stream = book.new()
    reader = stream.read()
    for cursor in (b"1", b"2", b"3"):
        stream.append(NOTE)
        stream.mark(cursor)
        was_held_back = stream.is_held_back
        assert was_held_back == (cursor == b"1")
        stream.take(reader)
        arrival = stream.arrival()
        ledger.change()
        ledger.written()
        assert arrival.done() == was_held_back
        stream.take(reader)


async def test_a_writer_goes_on_when_another_stream_gives_its_room_back() -> None:
    """Also while its own client is away."""
    book = book_of(Budget(1 << 30), room=4_000)
    full, away = book.new(), book.new()
    for _ in range(12):
        full.append(NOTE)
    away.append(NOTE)
    waiting = asyncio.create_task(book.wait_for_room(away))
    await asyncio.sleep(0)
    assert not waiting.done()
    book.finish(full)
    async with soon():
        await waiting


async def _heard(reader: Reader) -> int:
    """How many events there are for it now."""
    async with soon():
        return len((await anext(reader)).data)


async def test_what_was_heard_long_ago_leaves_room_for_an_answer_that_was_not() -> None:
    """A standalone stream has no end: in time it has been given more than the whole budget."""
    book = book_of(Budget(1 << 30), room=64_000)
    listening = book.standalone.read()
    for _ in range(300):
        book.standalone.append(NOTE)
        await _heard(listening)
    answer = book.new(1)
    answer.append(NOTE)
    book.finish(answer)
    for _ in range(300):
        book.standalone.append(NOTE)
        await _heard(listening)
    assert await _heard(answer.read(after=0)) == 1
    assert book.held_bytes <= 64_000 + 1_000


async def test_what_was_heard_long_ago_leaves_room_for_what_may_be_on_its_way() -> None:
    book = book_of(Budget(1 << 30), room=64_000)
    for stream in (book.standalone, book.new(1)):
        reader = stream.read()
        for _ in range(300):
            stream.append(NOTE)
            await _heard(reader)
    call = book.new(2)
    reader = call.read()
    for _ in range(50):
        call.append(NOTE)
        await _heard(reader)
    assert await _heard(call.read(after=0)) == 50
    assert book.held_bytes <= 64_000 + 1_000


async def test_what_a_client_that_does_not_read_was_given_is_left_to_it() -> None:
    """It may be in the buffers between, and is asked for again when the connection breaks."""
    large = jsonrpc.notification("notifications/vendor", {"text": "x" * 10_000})
    book = book_of(Budget(1 << 30), room=MAX_AHEAD_BYTES + 100_000)
    deaf = book.new(1)
    reader = deaf.read()
    for _ in range(5):
        deaf.append(large)
        await _heard(reader)
    while not deaf.log.must_wait:
        deaf.append(large)
    book.make_room()
    book.new(2).append(large)
    assert deaf.log.first_seq == 1


async def test_what_was_given_to_who_listens_on_is_let_go_of_when_it_is_old() -> None:
    now = Now()
    book = book_of(Budget(1 << 30), now)
    stream = book.standalone
    reader = stream.read()
    for age in range(4):
        stream.append(NOTE)
        await _heard(reader)
        now.at = 600.0 * (age + 1)
        book.prune()
    assert (stream.log.first_seq, stream.log.last_seq) == (4, 4)


async def test_what_was_given_to_who_is_away_waits_for_it() -> None:
    """A call may be longer than that, and its client in a tunnel."""
    now = Now()
    book = book_of(Budget(1 << 30), now)
    stream = book.new(1)
    reader = stream.read()
    stream.append(NOTE)
    await _heard(reader)
    for age in range(3):
        now.at = 600.0 * (age + 1) - 1.0
        book.prune()
        await reader.aclose()
        book.prune()
        reader = stream.read(after=0)
        assert await _heard(reader) == 1


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


async def test_a_call_goes_on_beside_one_whose_client_is_away() -> None:
    async with stand(session_limits=SessionLimits(log=LogLimits(bytes=100_000))) as rig:
        await rig.client.initialize()
        is_alone = asyncio.Event()

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/vendor", {"n": 0})
            await is_alone.wait()
            for number in range(1, 400):
                await stream.notify("notifications/vendor", {"n": number, "text": "x" * 2_000})
            await stream.send(call.response({"content": []}))
            await stream.end()

        book = rig.session().core.book
        away = await rig.client.begin("tools/call", {"name": "t"}, 1)
        await away.message()
        unread = book.find(1)
        assert unread is not None
        away.cut()
        await until(lambda: not unread.is_read)
        is_alone.set()
        await until(lambda: unread.log.must_wait)
        reply = await rig.client.begin("tools/call", {"name": "t"}, 2)
        async with soon():
            *notes, answer = await reply.messages()
        assert [note["params"]["n"] for note in notes] == list(range(400))
        assert answer["id"] == 2
        *notes, answer = await (await rig.client.listen(away.last_id)).messages()
        assert [note["params"]["n"] for note in notes] == list(range(1, 400))
        assert answer["id"] == 1

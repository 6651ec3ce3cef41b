from __future__ import annotations

import asyncio
import gc
import logging
import time
import weakref

import pytest

from shadowcat import aio
from shadowcat.aio import Tasks, cancel_and_join


async def forever() -> None:
    await asyncio.Event().wait()


async def stubborn(may_end: asyncio.Event) -> None:
    """Ends when told, whatever is cancelled."""
    while not may_end.is_set():
        try:
            await may_end.wait()
        except asyncio.CancelledError:
            pass


async def test_a_task_has_its_owners_name_and_gives_its_result() -> None:
    async def answer() -> int:
        return 42

    tasks = Tasks("owner")
    task = tasks.spawn(answer(), "answer")
    assert task.get_name() == "owner/answer"
    assert len(tasks) == 1
    assert await task == 42
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_a_failed_task_is_reported_and_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("why")

    tasks = Tasks("owner")
    task = tasks.spawn(fail(), "fail")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert caplog.messages == ["task owner/fail failed"]
    assert caplog.records[0].exc_info is not None
    assert str(caplog.records[0].exc_info[1]) == "why"
    assert len(tasks) == 0


class Thing:
    task: object = None


async def test_a_cancelled_task_keeps_nothing_that_it_worked_on() -> None:
    async def work(on: Thing) -> None:
        on.task = asyncio.current_task()
        await forever()

    tasks = Tasks("owner")
    thing = Thing()
    left = weakref.ref(thing)
    task = tasks.spawn(work(thing), "work")
    del thing
    await asyncio.sleep(0)
    gc.disable()
    try:
        task.cancel()
        await asyncio.wait([task])
        del task
        await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()


async def test_a_cancelled_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks("owner")
    task = tasks.spawn(forever(), "forever")
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert caplog.messages == []


async def test_aclose_ends_what_runs() -> None:
    tasks = Tasks("owner")
    running = [tasks.spawn(forever(), str(number)) for number in range(3)]
    await asyncio.sleep(0)
    await tasks.aclose()
    assert all(task.cancelled() for task in running)


async def test_aclose_of_nothing() -> None:
    tasks = Tasks("owner")
    await tasks.aclose()
    assert len(tasks) == 0


async def test_finish_lets_tasks_end_and_cancels_the_rest() -> None:
    tasks = Tasks("owner")
    may_end = asyncio.Event()
    quick, slow = tasks.spawn(may_end.wait(), "quick"), tasks.spawn(forever(), "slow")
    may_end.set()
    await tasks.finish(0.05)
    assert not quick.cancelled()
    assert slow.cancelled()
    await tasks.finish(60.0)


async def test_a_task_may_close_its_owner() -> None:
    tasks = Tasks("owner")
    other = tasks.spawn(forever(), "other")
    closer = tasks.spawn(tasks.aclose(), "closer")
    await asyncio.wait_for(closer, 20)
    assert other.cancelled()


async def test_a_task_that_will_not_end_is_named_and_left(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    may_end = asyncio.Event()
    task = asyncio.create_task(stubborn(may_end), name="stubborn")
    await asyncio.sleep(0)
    await cancel_and_join([task], grace_s=0.01)
    assert caplog.messages == ["task stubborn did not end within 0.0 s of its cancellation"]
    may_end.set()
    await task


async def test_a_finished_task_is_not_waited_for() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await cancel_and_join([task], grace_s=60.0)
    assert not task.cancelled()


async def test_who_was_stopped_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "STEP_S", 0.05)
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    # The loop stands still for longer than the whole wait; what was waited for comes right after that.
    loop.call_soon(time.sleep, 0.3)
    loop.call_later(0.31, waiter.set_result, None)
    assert await aio.wait_awake(waiter, 0.2)


async def test_a_wait_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "STEP_S", 0.01)
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await aio.wait_awake(waiter, 0.05)
    waiter.set_result(None)
    assert await aio.wait_awake(waiter, 0.0)

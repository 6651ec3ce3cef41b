"""Messages that wait for a person: released, edited, dropped, forgotten about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowcat.core.exchange import PASS, Reject, Replace, Verdict
from shadowcat.errors import Fault
from shadowcat.plugins.hold import Held, HoldDesk, HoldOptions
from shadowcat.wire import jsonrpc
from tests.proxy.test_pipeline import CONTEXT
from tests.rig.wait import soon

CALL = jsonrpc.request("x", "tools/call", {"name": "t"})


async def held_by(desk: HoldDesk) -> tuple[asyncio.Task[Verdict], Held]:
    task = asyncio.create_task(desk.hold(CALL, CONTEXT, "because"))
    await asyncio.sleep(0)  # it begins
    return task, desk.held()[-1]


async def outcome(task: asyncio.Task[Verdict]) -> Verdict:
    async with soon():
        return await task


async def test_what_is_held_can_be_looked_at_and_released() -> None:
    desk = HoldDesk()
    task, held = await held_by(desk)
    assert (held.message, held.context, held.reason) == (CALL, CONTEXT, "because")
    assert desk.release(held.id)
    assert not desk.release(held.id)
    assert await outcome(task) is PASS
    assert desk.held() == []


async def test_that_nobody_can_decide_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    desk = HoldDesk(HoldOptions(timeout_s=0.01))
    await desk.hold(CALL, CONTEXT, "look at it")
    assert caplog.text == ""
    desk.is_attended = False
    for _ in range(2):
        await desk.hold(CALL, CONTEXT, "look at it")
    [told] = caplog.messages
    assert "'look at it' holds messages, and nobody can release them" in told
    assert told.endswith("each is refused after 0.01 s")


async def test_edited() -> None:
    desk = HoldDesk()
    task, held = await held_by(desk)
    with pytest.raises(Fault):
        desk.release(held.id, b"{")
    with pytest.raises(Fault, match="has to stay one"):
        desk.release(held.id, jsonrpc.notification("notifications/x").raw)
    assert len(desk.held()) == 1
    assert desk.release(held.id, CALL.with_params({"name": "u"}).raw)
    verdict = await outcome(task)
    assert isinstance(verdict, Replace)
    assert verdict.message.params() == {"name": "u"}


async def test_dropped() -> None:
    desk = HoldDesk()
    task, held = await held_by(desk)
    assert desk.drop(held.id)
    verdict = await outcome(task)
    assert isinstance(verdict, Reject)
    assert verdict.fault.reason == "dropped_by_hand"
    assert not desk.drop(held.id)


@pytest.mark.parametrize("on_timeout", ["refuse", "release"])
async def test_nobody_decides(on_timeout: Any) -> None:
    desk = HoldDesk(HoldOptions(timeout_s=0.01, on_timeout=on_timeout))
    async with soon():
        verdict = await desk.hold(CALL, CONTEXT)
    if on_timeout == "release":
        assert verdict is PASS
    else:
        assert isinstance(verdict, Reject)
        assert verdict.fault.reason == "held_too_long"
    assert desk.held() == []


async def test_too_many() -> None:
    desk = HoldDesk(HoldOptions(max_held=1))
    task, held = await held_by(desk)
    verdict = await desk.hold(CALL, CONTEXT)
    assert isinstance(verdict, Reject)
    assert verdict.fault.reason == "too_many_held"
    desk.drop(held.id)
    await outcome(task)


async def test_whose_client_has_gone_is_held_no_longer() -> None:
    desk = HoldDesk()
    task, _ = await held_by(desk)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outcome(task)
    assert desk.held() == []

"""A call ends in time, also where its server keeps it open without saying anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from shadowcat.clock import ManualClock
from shadowcat.http.limits import Timeouts
from shadowcat.proxy.shared import SessionLimits
from tests.protocol.test_resume import Tool
from tests.rig.client import Reply
from tests.rig.server import Call, Stream
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, until


@dataclass(eq=False)
class Running:
    """A call whose server has said a word, and a clock to be moved."""

    stand: Stand
    clock: ManualClock
    stream: Stream
    reply: Reply

    async def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.stand.session().look_after()

    async def says(self, number: int) -> None:
        await self.stream.notify("notifications/vendor", {"n": number})
        assert (await self.reply.message())["params"] == {"n": number}

    async def ends(self) -> Any:
        return (await self.reply.messages())[-1]


@pytest.fixture
async def call() -> AsyncIterator[Running]:
    streams: list[Stream] = []

    async def on_call(call: Call) -> None:
        streams.append(await call.stream())
        await streams[0].over.wait()

    async with stand(script={"answers_json": False}) as rig:
        clock = ManualClock()
        rig.proxy.shared.clock = clock
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = on_call
        asking = asyncio.create_task(rig.client.begin("tools/call", {"name": "t"}, 1))
        await until(lambda: streams)
        running = Running(rig, clock, streams[0], await asking)
        await running.says(0)
        yield running
        streams[0].over.set()


async def test_comments_keep_no_call_open(call: Running) -> None:
    await call.stream.raw(b": still here\n\n")
    await call.after(299.0)
    await call.stream.raw(b": still here\n\n")
    await call.after(2.0)
    error = (await call.ends())["error"]
    assert (error["code"], error["data"]["reason"]) == (-31007, "no_progress")
    cancelled = await call.stand.server.gets("notifications/cancelled")
    assert cancelled.json["params"]["requestId"] == call.stream.seen.json["id"]


async def test_messages_do(call: Running) -> None:
    for number in range(1, 5):
        await call.after(200.0)
        await call.says(number)
    await call.stream.send({"jsonrpc": "2.0", "id": call.stream.seen.json["id"], "result": {}})
    assert "result" in await call.ends()


async def test_so_does_a_question_until_it_is_answered(call: Running) -> None:
    await call.stream.request("q", "elicitation/create", {})
    question = await call.reply.message()
    await call.after(400.0)
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await call.stand.client.send(answer)).status == 202
    await call.after(299.0)
    await call.says(1)
    await call.after(299.0)
    await call.after(2.0)
    assert (await call.ends())["error"]["data"]["reason"] == "no_progress"


async def test_a_question_outlasts_what_a_connection_may_be_silent() -> None:
    """Not every server writes comments while its client's user thinks."""
    async with stand(call_timeouts=Timeouts(gap_s=0.3)) as rig:
        await rig.client.initialize()
        tool = Tool(rig)
        reply, call, stream = await tool.begin(1)
        await stream.request("q", "elicitation/create", {})
        question = await reply.message()
        silent, _, _ = await tool.begin(2)
        (failed,) = await silent.messages()
        assert failed["error"]["data"]["reason"] == "gap"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
        assert (await rig.client.send(answer)).status == 202
        await stream.send(call.response({"content": []}))
        (last,) = await reply.messages()
        assert (last["id"], last["result"]) == (1, {"content": []})


async def test_comments_keep_no_modern_call_open() -> None:
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        while not call.seen.dropped.is_set():
            await stream.raw(b": still here\n\n")
            with contextlib.suppress(TimeoutError):
                await happens(call.seen.dropped, within_s=0.02)

    async with stand(session_limits=SessionLimits(call_s=0.5)) as rig:
        rig.server.handlers["tools/call"] = on_call
        reply = await rig.client.ask("tools/call", {"name": "t", "arguments": {}}, id=7)
        (last,) = await reply.messages()
        assert (last["id"], last["error"]["code"], last["error"]["data"]["reason"]) == (
            7,
            -31007,
            "no_progress",
        )
        await happens(rig.server.got("tools/call")[0].dropped)

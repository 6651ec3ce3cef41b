"""The proxy goes in form: what runs is finished, what would never end is ended, and nothing waits for it."""

from __future__ import annotations

import asyncio

from tests.rig.server import Call, holding
from tests.rig.stand import Stand
from tests.rig.wait import soon

TEXT = {"content": [{"type": "text", "text": "done"}]}


async def test_a_running_call_is_finished_and_a_standalone_stream_ended(session: Stand) -> None:
    released = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.result(TEXT)

    session.server.on("tools/call")(holding(released, answer))
    standalone = await session.client.listen()
    await session.server.listens()
    calling = asyncio.create_task(session.client.begin("tools/call", {"name": "t"}, 1))
    await session.server.gets("tools/call")
    draining = asyncio.create_task(session.proxy.drain(grace_s=10.0))
    assert await standalone.messages() == []
    assert not draining.done()
    released.set()
    reply = await calling
    assert (await reply.json())["result"] == TEXT
    async with soon():
        await draining


async def test_a_subscription_gets_its_result(session: Stand) -> None:
    begun = asyncio.Event()

    @session.server.on("subscriptions/listen")
    async def listen(call: Call) -> None:
        stream = await call.stream()
        meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": call.id}}
        await stream.notify("notifications/subscriptions/acknowledged", {**meta, "notifications": {}})
        begun.set()
        await asyncio.Event().wait()

    reply = await session.client.ask("subscriptions/listen", {"notifications": {}}, id="L")
    assert (await reply.message())["method"] == "notifications/subscriptions/acknowledged"
    async with soon():
        await session.proxy.drain(grace_s=10.0)
    (ended,) = await reply.messages()
    assert ended["id"] == "L"
    assert ended["result"] == {
        "resultType": "complete",
        "_meta": {"io.modelcontextprotocol/subscriptionId": "L"},
    }

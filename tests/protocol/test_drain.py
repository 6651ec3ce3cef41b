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


async def test_a_client_is_told_when_to_come_back_each_another_time(rig: Stand) -> None:
    clients = [await rig.another_client() for _ in range(8)]
    for client in clients:
        await client.initialize()
    streams = [await client.listen() for client in clients]
    await rig.server.listens(len(clients))
    async with soon():
        await rig.proxy.drain(grace_s=10.0)
    for stream in streams:
        assert await stream.rest() == []
    last = [stream.seen[-1] for stream in streams]
    assert [(event.data, event.id) for event in last] == [("", stream.seen[0].id) for stream in streams]
    waits = [event.retry or 0 for event in last]
    assert all(1_000 <= wait <= 5_000 for wait in waits)
    assert len(set(waits)) > 1


async def test_an_older_client_is_told_nothing(rig: Stand) -> None:
    await rig.client.initialize("2025-06-18")
    stream = await rig.client.listen()
    await rig.server.listens()
    async with soon():
        await rig.proxy.drain(grace_s=10.0)
    assert await stream.rest() == []
    assert stream.seen == []


async def test_a_call_that_takes_too_long_ends_with_when_to_come_back(session: Stand) -> None:
    @session.server.on("tools/call")
    async def never(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor", {"n": 1})
        await asyncio.Event().wait()

    reply = await session.client.begin("tools/call", {"name": "t"}, 1)
    assert (await reply.message())["params"] == {"n": 1}
    async with soon():
        await session.proxy.drain(grace_s=0.1)
    told = reply.last_id
    assert await reply.rest() == []
    assert (reply.seen[-1].data, reply.seen[-1].id) == ("", told)
    assert reply.seen[-1].retry is not None

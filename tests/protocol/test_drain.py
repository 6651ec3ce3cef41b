"""The proxy goes in form: what runs is finished, what would never end is ended, and nothing waits for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from shadowcat.proxy.shared import Phase, SessionLimits
from shadowcat.stores.sqlite import SqliteStore
from tests.http.kit import wire_to
from tests.rig.client import modern
from tests.rig.server import Call, Handler, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until

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


async def test_a_standalone_stream_that_is_asked_for_in_a_drain_does_not_keep_it_up(session: Stand) -> None:
    released = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.result(TEXT)

    session.server.on("tools/call")(holding(released, answer))
    standalone = await session.client.listen()
    calling = asyncio.create_task(session.client.begin("tools/call", {"name": "t"}, 1))
    await session.server.gets("tools/call")
    async with wire_to(session.proxy.server) as kept:
        draining = asyncio.create_task(session.proxy.drain(grace_s=60.0))
        assert await standalone.messages() == []
        await kept.send(b"GET /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n")
        fields = [f"{name}: {value}\r\n" for name, value in session.client.in_session()]
        await kept.send("".join(fields).encode() + b"\r\n")
        said = await kept.answer()
        assert said.status == 200
        # It is told where it is, too: the TypeScript SDK 1.x forgets that on a stream without an id.
        assert said.body.startswith(b"id: %s\nretry: " % (standalone.last_id or "").encode()), said.body
        assert await kept.rest() == b""
    assert not draining.done()
    released.set()
    assert (await (await calling).json())["result"] == TEXT
    async with soon():
        await draining


LISTEN = json.dumps(modern("subscriptions/listen", {"notifications": {}}, "L")).encode()
WITHOUT_END = [
    b"GET /sse HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n",
    b"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json, text/event-stream\r\n"
    b"content-type: application/json\r\nmcp-protocol-version: 2026-07-28\r\n"
    b"mcp-method: subscriptions/listen\r\ncontent-length: %d\r\n\r\n%b" % (len(LISTEN), LISTEN),
]


@pytest.mark.parametrize("request_", WITHOUT_END, ids=["old transport", "subscription"])
async def test_a_stream_without_end_is_not_begun_in_a_drain(session: Stand, request_: bytes) -> None:
    """Its client would wait on it, and the drain for it."""
    released = asyncio.Event()

    async def answer(call: Call) -> None:
        await call.result(TEXT)

    async def subscribed(call: Call) -> None:
        await call.stream()
        await happens(call.seen.dropped)

    session.server.on("tools/call")(holding(released, answer))
    session.server.on("subscriptions/listen")(subscribed)
    calling = asyncio.create_task(session.client.begin("tools/call", {"name": "t"}, 1))
    await session.server.gets("tools/call")
    async with wire_to(session.proxy.server) as kept:
        draining = asyncio.create_task(session.proxy.drain(grace_s=60.0))
        await until(lambda: session.proxy.shared.phase is Phase.DRAINING)
        await kept.send(request_)
        refused = await kept.head()
        assert (refused.status, refused.headers.get(b"retry-after")) == (503, b"5")
    released.set()
    assert (await (await calling).json())["result"] == TEXT
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


# What takes longer than there is time.


def beginning(number: int, *, id: str | None = None) -> Handler:
    """Says something, and then nothing more."""

    async def handle(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor", {"n": number}, id=id)
        await happens(stream.over)

    return handle


async def silent(call: Call) -> None:
    await happens(call.seen.dropped)


def is_given_up(answer: Any) -> bool:
    error = answer["error"]
    return (answer["id"], error["code"], error["data"]["reason"]) == (1, -31004, "proxy_stopped")


async def test_a_call_that_another_process_goes_on_with_ends_with_when_to_come_back(tmp_path: Path) -> None:
    async with stand(store=SqliteStore(tmp_path / "sessions.db")) as rig:
        await rig.client.initialize()
        rig.server.on("tools/call")(beginning(1, id="u1"))
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        assert (await reply.message())["params"] == {"n": 1}
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
        told = reply.last_id
        assert await reply.rest() == []
        assert (reply.seen[-1].data, reply.seen[-1].id) == ("", told)
        assert reply.seen[-1].retry is not None
        assert rig.server.got("notifications/cancelled") == []


@pytest.mark.parametrize(("id", "is_kept"), [(None, True), (None, False), ("u1", False)])
async def test_a_call_that_ends_with_the_proxy_is_told_so(
    tmp_path: Path, id: str | None, is_kept: bool
) -> None:
    store = SqliteStore(tmp_path / "sessions.db") if is_kept else None
    async with stand(store=store) as rig:
        await rig.client.initialize()
        rig.server.on("tools/call")(beginning(1, id=id))
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        assert (await reply.message())["params"] == {"n": 1}
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
        (last,) = await reply.messages()
        assert is_given_up(last)
        assert len(rig.server.got("notifications/cancelled")) == 1


async def test_so_is_one_that_was_not_begun_to_be_answered(session: Stand) -> None:
    session.server.on("tools/call")(silent)
    calling = asyncio.create_task(session.client.begin("tools/call", {"name": "t"}, 1))
    await session.server.gets("tools/call")
    async with soon():
        await session.proxy.drain(grace_s=0.1)
    reply = await calling
    assert reply.status == 200
    assert is_given_up(await reply.json())


async def test_so_is_one_that_was_given_a_stream_in_the_meantime() -> None:
    async with stand(session_limits=SessionLimits(upgrade_after_s=0.0)) as rig:
        await rig.client.initialize()
        rig.server.on("tools/call")(silent)
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        await rig.server.gets("tools/call")
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
        (last,) = await reply.messages()
        assert is_given_up(last)


@pytest.mark.parametrize("handler", [silent, beginning(1)])
async def test_so_is_a_modern_one(session: Stand, handler: Handler) -> None:
    session.server.on("tools/call")(handler)
    calling = asyncio.create_task(session.client.ask("tools/call", {"name": "t", "arguments": {}}, id=1))
    seen = await session.server.gets("tools/call")
    if handler is not silent:
        reply = await calling
        assert (await reply.message())["params"] == {"n": 1}
    async with soon():
        await session.proxy.drain(grace_s=0.1)
    reply = await calling
    assert is_given_up((await reply.messages())[-1] if reply.is_stream else await reply.json())
    await happens(seen.dropped)

"""Calls whose answer is all there is on their stream: nobody follows it, and clients can come back for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shadowcat.http.limits import ClientLimits
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.upstream.fallback import UrlUpstream
from shadowcat.upstream.streamable import StreamableUpstream, final_of
from shadowcat.wire import jsonrpc
from tests.http.kit import using
from tests.rig.client import Reply
from tests.rig.server import Call, Handler, event, mcp_server
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until
from tests.rig.wire import Seen

TEXT = {"content": [{"type": "text", "text": "done"}]}
CALL = {"name": "t"}
INITIALIZE = jsonrpc.request(0, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(params=[False, True], ids=["without a store", "with a store"])
async def streaming(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    """A server that answers with streams, as most do, and a client of its newest version in a session."""
    store = SqliteStore(tmp_path / "s.db") if request.param else None
    async with stand(script={"answers_json": False}, store=store) as rig:
        await rig.client.initialize("2025-11-25")
        yield rig


def _tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(message: Any) -> bytes:
    return b"event: message\r\ndata: %b\r\n\r\n" % json.dumps(message).encode()


async def _answer_of(reply: Reply) -> Any:
    [answer] = await reply.messages()
    return answer["result"]


async def test_no_task_follows_it(streaming: Stand) -> None:
    ends = asyncio.Event()

    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        await stream.send(call.response(TEXT))
        await happens(ends)
        await stream.end()

    reply = await streaming.client.begin("tools/call", CALL)
    assert not _tasks() & {"proxy/follow", "http/exchange"}
    ends.set()
    assert reply.is_stream
    assert "content-length" in reply.headers
    assert await _answer_of(reply) == TEXT
    priming, answer = reply.seen
    assert priming.data == ""
    assert answer.id is not None
    assert answer.id.endswith(".1")


async def test_one_that_takes_its_time_is_followed(streaming: Stand) -> None:
    """What the test above looks for is there to be found."""
    ends = asyncio.Event()
    streaming.server.handlers["tools/call"] = holding_its_stream(ends)
    reply = await streaming.client.begin("tools/call", CALL)
    assert _tasks() >= {"proxy/follow", "http/exchange"}
    ends.set()
    assert await _answer_of(reply) == TEXT


def holding_its_stream(released: asyncio.Event) -> Handler:
    async def handle(call: Call) -> None:
        stream = await call.stream()
        await happens(released)
        await stream.send(call.response(TEXT))
        await stream.end()

    return handle


async def test_the_client_can_come_back_for_it(streaming: Stand) -> None:
    reply = await streaming.client.begin("tools/call", CALL)
    await reply.messages()
    again = await streaming.client.listen(reply.seen[0].id)
    assert await again.messages() == [reply.seen[1].json]


async def test_wherever_it_is_cut_it_is_the_same(streaming: Stand) -> None:
    cut = 0

    def written(response: Any) -> bytes:
        return SSE_HEAD + _chunk(_event(response)) + b"0\r\n\r\n"

    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        data = written(call.response(TEXT))
        await call.seen.raw(data[:cut])
        for _ in range(3):
            await asyncio.sleep(0)
        await call.seen.raw(data[cut:])

    for cut in range(1, len(written({"jsonrpc": "2.0", "id": 11, "result": TEXT})), 7):
        assert (await streaming.client.call(params=CALL, id=cut))["result"] == TEXT


async def test_a_call_that_takes_its_time_has_its_stream_soon(streaming: Stand) -> None:
    released = asyncio.Event()
    streaming.server.handlers["tools/call"] = holding_its_stream(released)
    reply = await streaming.client.begin("tools/call", CALL)
    priming = await reply.event()
    assert priming is not None
    assert (priming.data, reply.headers["transfer-encoding"]) == ("", "chunked")
    released.set()
    assert await _answer_of(reply) == TEXT


async def test_an_event_without_data_may_come_first(streaming: Stand) -> None:
    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        await stream.raw(b"id: 1\r\nretry: 500\r\ndata:\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0)
        await stream.send(call.response(TEXT), id="2")
        await stream.end()

    reply = await streaming.client.begin("tools/call", CALL)
    assert "content-length" in reply.headers
    assert await _answer_of(reply) == TEXT


async def test_what_is_said_before_the_answer_comes_before_it(streaming: Stand) -> None:
    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/message", {"level": "info", "data": 1})
        await stream.send(call.response(TEXT))
        await stream.end()

    reply = await streaming.client.begin("tools/call", CALL)
    said, answer = await reply.messages()
    assert (said["params"]["data"], answer["result"]) == (1, TEXT)


@pytest.mark.parametrize(
    "said",
    [_event({"jsonrpc": "2.0", "id": 999, "result": TEXT}), b'data: {"jsonrpc"\n\n', b"", b": hello\n\n"],
)
async def test_a_stream_that_ends_without_an_answer(streaming: Stand, said: bytes) -> None:
    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        if said:
            await stream.raw(said)
        await stream.end()

    answer = await streaming.client.call(params=CALL)
    assert answer["error"]["code"] in (-31003, -31004)


async def test_one_whose_client_cancels_it_at_once(streaming: Stand) -> None:
    begun = asyncio.Event()

    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        await call.stream()
        begun.set()

    asking = asyncio.create_task(streaming.client.begin("tools/call", CALL, 5))
    await happens(begun)
    await streaming.client.notify("notifications/cancelled", {"requestId": 5})
    async with soon():
        assert await (await asking).messages() == []
    await streaming.server.gets("notifications/cancelled")
    await until(lambda: streaming.session().core.correlator.is_idle)


def _connections(rig: Stand) -> tuple[int, int]:
    [upstream] = rig.proxy.shared.upstreams
    assert isinstance(upstream, UrlUpstream)
    found = upstream.statistics()
    return found.connections_idle, found.connections_taken


@pytest.mark.parametrize("is_followed", [False, True], ids=["only the answer", "followed"])
@pytest.mark.parametrize("size", [4, 100_000], ids=["small", "more than is read ahead"])
async def test_the_connection_is_kept_when_the_stream_ends_a_little_later(
    streaming: Stand, size: int, is_followed: bool
) -> None:
    ends = asyncio.Event()
    text = {"content": [{"type": "text", "text": "x" * size}]}

    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        if is_followed:
            await stream.notify("notifications/message", {"level": "info", "data": 1})
        await stream.send(call.response(text))
        await happens(ends)
        await stream.end()

    assert (await streaming.client.call(params=CALL))["result"] == text
    idle, taken = _connections(streaming)
    assert taken == 1
    ends.set()
    await until(lambda: _connections(streaming) == (idle + 1, 0))


async def test_a_stream_that_never_ends_costs_its_connection(streaming: Stand) -> None:
    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        await stream.send(call.response(TEXT))

    assert (await streaming.client.call(params=CALL))["result"] == TEXT
    idle, _ = _connections(streaming)
    await until(lambda: _connections(streaming) == (idle, 0))


async def test_one_that_breaks_at_once_is_resumed(streaming: Stand) -> None:
    """As it is when it breaks later: the server has said where to go on."""
    answers: list[Any] = []

    @streaming.server.on("tools/call")
    async def on_call(call: Call) -> None:
        stream = await call.stream()
        await stream.raw(b"id: 1\nretry: 100\ndata:\n\n")
        answers.append(call.response(TEXT))
        stream.cut()

    async def on_get(seen: Seen) -> None:
        await seen.raw(SSE_HEAD + _chunk(event(answers[-1], id="2")) + b"0\r\n\r\n")

    streaming.server.on_get = on_get
    for id in range(3):
        assert (await streaming.client.call(params=CALL, id=id))["result"] == TEXT


async def test_who_waits_for_a_connection_gets_one_that_is_only_heard_out() -> None:
    """Each would cost a second else."""
    limits = ClientLimits(connections_per_origin=1)
    async with mcp_server(answers_json=False) as server, using(limits) as client:

        @server.on("tools/call")
        async def on_call(call: Call) -> None:
            stream = await call.stream()
            await stream.send(call.response(TEXT))

        link, _ = await StreamableUpstream("a", server.url, client).open(INITIALIZE)
        async with soon():
            for id in range(1, 40):
                call = jsonrpc.request(id, "tools/call", CALL)
                assert (await final_of(await link.exchange(call), call)).result() == TEXT

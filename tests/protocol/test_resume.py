"""Streams that outlive their connections, on both sides of the proxy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowcat.core.backoff import Backoff
from tests.rig.cases import case, refused
from tests.rig.client import Client, Reply
from tests.rig.server import Call, Stream
from tests.rig.stand import Stand
from tests.rig.wait import happens, until
from tests.rig.wire import Seen

TEXT = {"content": [{"type": "text", "text": "done"}]}
TOOL = {"name": "t", "arguments": {}}


class Tool:
    """A tool call whose stream the test writes."""

    def __init__(self, rig: Stand) -> None:
        self._rig = rig
        self.begun: list[tuple[Call, Stream]] = []
        rig.server.handlers["tools/call"] = self._handle

    async def _handle(self, call: Call) -> None:
        stream = await call.stream()
        self.begun.append((call, stream))
        await happens(stream.over)

    async def begin(self, id: Any = 1, client: Client | None = None) -> tuple[Reply, Call, Stream]:
        count = len(self.begun)
        reply = await (client or self._rig.client).begin("tools/call", TOOL, id)
        await until(lambda: len(self.begun) > count)
        return reply, *self.begun[count]


async def count_up(stream: Stream, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await stream.notify("notifications/vendor", {"n": number})


def numbers(messages: list[Any]) -> list[int]:
    return [message["params"]["n"] for message in messages]


@pytest.mark.case("R01")
async def test_a_stream_can_be_resumed_before_anything_was_said(session: Stand) -> None:
    tool = Tool(session)
    reply, call, stream = await tool.begin()
    first = await reply.event()
    assert first is not None
    assert (first.data, bool(first.id), first.retry) == ("", True, 3_000)
    reply.cut()
    await stream.send(call.response(TEXT))
    resumed = await session.client.listen(first.id)
    assert [message["id"] for message in await resumed.messages()] == [1]


@pytest.mark.case("R01")
async def test_a_standalone_stream_is_primed_too(session: Stand) -> None:
    first = await (await session.client.listen()).event()
    assert first is not None
    assert (first.data, bool(first.id)) == ("", True)


@pytest.mark.case("R02")
@pytest.mark.parametrize("version", ["2025-06-18", "2025-03-26", "2024-11-05"])
async def test_older_clients_get_no_empty_event_and_can_resume(rig: Stand, version: str) -> None:
    await rig.client.initialize(version)
    tool = Tool(rig)
    reply, call, stream = await tool.begin()
    await count_up(stream, 1, 1)
    first = await reply.event()
    assert first is not None
    assert first.json["params"] == {"n": 1}
    assert first.id
    reply.cut()
    await stream.send(call.response(TEXT))
    resumed = await rig.client.listen(first.id)
    assert [message["id"] for message in await resumed.messages()] == [1]
    assert all(event.data for event in (*reply.seen, *resumed.seen))


@pytest.mark.case("R03")
async def test_what_was_missed_comes_once_and_in_order(session: Stand) -> None:
    tool = Tool(session)
    reply, call, stream = await tool.begin()
    other, other_call, other_stream = await tool.begin(2)
    await count_up(stream, 1, 3)
    for number in (1, 2, 3):
        assert (await reply.message())["params"] == {"n": number}
    last_id = reply.last_id
    reply.cut()
    await count_up(other_stream, 100, 103)
    await count_up(stream, 4, 6)
    resumed = await session.client.listen(last_id)
    got = [await resumed.message() for _ in range(3)]
    await count_up(stream, 7, 8)
    await stream.send(call.response(TEXT))
    *rest, response = await resumed.messages()
    assert numbers([*got, *rest]) == [4, 5, 6, 7, 8]
    assert response == {"jsonrpc": "2.0", "id": 1, "result": TEXT}
    await other_stream.send(other_call.response(TEXT))
    *foreign, _ = await other.messages()
    assert numbers(foreign) == [100, 101, 102, 103]
    # Each event has an id of its own.
    ids = [event.id for event in (*reply.seen, *resumed.seen, *other.seen) if event.data]
    assert len(set(ids)) == len(ids)


@pytest.mark.case("R03")
async def test_a_finished_stream_is_replayed_and_ends(session: Stand) -> None:
    tool = Tool(session)
    reply, call, stream = await tool.begin()
    await count_up(stream, 1, 2)
    await stream.send(call.response(TEXT))
    await reply.rest()
    ids = [event.id for event in reply.seen]
    for index, id in enumerate(ids):
        again = await (await session.client.listen(id)).rest()
        assert [event.id for event in again] == ids[index + 1 :]


@pytest.mark.case("R04")
async def test_an_answered_question_is_not_asked_again(session: Stand) -> None:
    tool = Tool(session)
    reply, call, stream = await tool.begin()
    priming = await reply.event()
    assert priming is not None
    await stream.request("answered", "elicitation/create", {"message": "?", "requestedSchema": {}})
    asked = await reply.message()
    await session.client.send(
        {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {}}}
    )
    await call.answered("answered")
    await stream.request("open", "roots/list")
    assert (await reply.message())["method"] == "roots/list"
    reply.cut()
    resumed = await session.client.listen(priming.id)
    assert (await resumed.message())["method"] == "roots/list"
    await stream.send(call.response(TEXT))
    assert [message["id"] for message in await resumed.messages()] == [1]


UNKNOWN = [
    case("R05", "AAAAAAAAAAAA.1.1", note="another life"),
    case("R05", "1-1", note="another proxy's"),
    case("R05", "x", note="junk"),
    case("R05", "9" * 200, note="long"),
]


@pytest.mark.parametrize("id", UNKNOWN)
async def test_an_unknown_event_id(session: Stand, id: str) -> None:
    reply = await session.client.listen(id)
    answer = await reply.json()
    assert reply.status == 400
    assert answer["error"]["code"] in (-32600, -31001)
    assert "result" in await session.client.call()


@pytest.mark.case("R05")
async def test_an_event_that_never_was(session: Stand) -> None:
    first = await (await session.client.listen()).event()
    assert first is not None
    assert first.id is not None
    epoch, stream, _ = first.id.split(".")
    assert (await session.client.listen(f"{epoch}.{int(stream) + 9}.1")).status == 400
    assert "result" in await session.client.call()


@pytest.mark.case("R09")
async def test_an_event_id_of_another_session(session: Stand) -> None:
    other = await session.another_client()
    await other.initialize()
    tool = Tool(session)
    reply, _, stream = await tool.begin()
    await count_up(stream, 1, 2)
    await reply.message()
    stolen = await other.listen(reply.last_id)
    assert stolen.status == 400
    assert b'"n"' not in await stolen.body()
    assert (await reply.message())["params"] == {"n": 2}


@pytest.mark.case("R06")
@pytest.mark.parametrize("end", ["politely", "reset"])
async def test_a_server_that_wants_to_be_polled_is_polled(session: Stand, end: str) -> None:
    loop = asyncio.get_running_loop()
    tool = Tool(session)
    came_back: asyncio.Future[tuple[float, Seen]] = loop.create_future()
    goes_on = asyncio.Event()

    async def resume(seen: Seen) -> None:
        came_back.set_result((loop.time(), seen))
        await happens(goes_on)
        await seen.begin("text/event-stream")
        again = Stream(seen)
        # Servers repeat what they are not sure about.
        await again.send({"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"n": 1}}, id="e1")
        await again.send({"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"n": 2}}, id="e2")
        await again.send(call.response(TEXT), id="e3")
        # And some keep the connection open after the response.
        await happens(seen.dropped)

    session.server.on_get = resume
    reply, call, stream = await tool.begin()
    await stream.raw(b"id: e0\nretry: 500\ndata:\n\n")
    await stream.notify("notifications/vendor", {"n": 1}, id="e1")
    assert (await reply.message())["params"] == {"n": 1}
    left_at = loop.time()
    if end == "reset":
        stream.cut()
    else:
        await stream.end()
    async with asyncio.timeout(10):
        back_at, seen = await came_back
    assert back_at - left_at >= 0.499
    assert seen.get("last-event-id") == "e1"
    assert seen.get("mcp-session-id") == "up-a-1"
    goes_on.set()
    second, response = await reply.messages()
    assert second["params"] == {"n": 2}
    assert response == {"jsonrpc": "2.0", "id": 1, "result": TEXT}
    assert session.server.got("notifications/cancelled") == []
    await happens(seen.dropped)


async def test_a_stream_without_ids_that_breaks_ends_with_an_error(session: Stand) -> None:
    tool = Tool(session)
    reply, _, stream = await tool.begin()
    await count_up(stream, 1, 1)
    assert (await reply.message())["params"] == {"n": 1}
    stream.cut()
    [failed] = await reply.messages()
    assert (failed["id"], failed["error"]["code"]) == (1, -31004)
    assert session.server.got("tools/call") == [tool.begun[0][0].seen]


@pytest.mark.parametrize("status", [204, 400, 405])
async def test_a_server_that_refuses_to_go_on_is_not_asked_again(session: Stand, status: int) -> None:
    async def refuse(seen: Seen) -> None:
        await seen.respond(status)

    session.server.on_get = refuse
    tool = Tool(session)
    reply, _, stream = await tool.begin()
    await stream.notify("notifications/vendor", {"n": 1}, id="e1")
    assert (await reply.message())["params"] == {"n": 1}
    stream.cut()
    [failed] = await reply.messages()
    assert (failed["id"], failed["error"]["code"]) == (1, -31004)
    assert len(session.server.got("GET")) == 1


@pytest.mark.parametrize("end", ["politely", "reset", "garbage"])
async def test_a_modern_stream_that_breaks_ends_with_an_error(rig: Stand, end: str) -> None:
    """And is neither resumed nor asked for again, ids or not."""
    tool = Tool(rig)
    reply = await rig.client.ask("tools/call", {"name": "t"}, id="x")
    await until(lambda: tool.begun)
    _, stream = tool.begun[0]
    await stream.notify("notifications/vendor", {"n": 1}, id="e1")
    assert (await reply.message())["params"] == {"n": 1}
    assert reply.seen[0].id is None
    if end == "politely":
        await stream.end()
    elif end == "reset":
        stream.cut()
    else:
        await stream.send("{")
    [failed] = await reply.messages()
    assert failed["id"] == "x"
    assert failed["error"]["code"] == (-31003 if end == "garbage" else -31004)
    assert len(rig.server.requests) == 1


async def test_cancelling_does_not_wait_for_the_next_poll(session: Stand) -> None:
    tool = Tool(session)
    reply, _, stream = await tool.begin()
    await stream.raw(b"id: e0\nretry: 30000\ndata:\n\n")
    await stream.notify("notifications/vendor", {"n": 1}, id="e1")
    await reply.message()
    await stream.end()
    await until(lambda: session.proxy.shared.tasks)
    await session.client.notify("notifications/cancelled", {"requestId": 1})
    async with asyncio.timeout(5):
        assert await reply.messages() == []


@pytest.mark.case("R07")
async def test_each_message_is_on_one_stream(session: Stand) -> None:
    tool = Tool(session)
    listening = await session.client.listen()
    standalone = await session.server.listens()
    one, first_call, first = await tool.begin(1)
    two, second_call, second = await tool.begin(2)
    await standalone.notify("notifications/tools/list_changed")
    await first.notify("notifications/vendor", {"n": 1})
    await second.notify("notifications/vendor", {"n": 2})
    await first.send(first_call.response(TEXT))
    await second.send(second_call.response(TEXT))
    assert [m.get("method") for m in await one.messages()] == ["notifications/vendor", None]
    assert [m.get("method") for m in await two.messages()] == ["notifications/vendor", None]
    assert (await listening.message())["method"] == "notifications/tools/list_changed"
    await session.client.delete()
    assert await listening.messages() == []
    assert len(session.server.got("GET")) == 1


@pytest.mark.case("R08")
async def test_a_second_get_takes_over(session: Stand) -> None:
    first = await session.client.listen()
    standalone = await session.server.listens()
    await standalone.notify("notifications/vendor", {"n": 1})
    assert (await first.message())["params"] == {"n": 1}
    second = await session.client.listen()
    assert await first.messages() == []
    await standalone.notify("notifications/vendor", {"n": 2})
    assert (await second.message())["params"] == {"n": 2}
    assert len(session.server.got("GET")) == 1


@pytest.mark.case("R08")
async def test_a_second_resume_takes_over(session: Stand) -> None:
    tool = Tool(session)
    reply, call, stream = await tool.begin()
    priming = await reply.event()
    assert priming is not None
    first = await session.client.listen(priming.id)
    assert await reply.messages() == []
    second = await session.client.listen(priming.id)
    assert await first.messages() == []
    await stream.send(call.response(TEXT))
    assert [message["id"] for message in await second.messages()] == [1]


async def test_the_standalone_stream_is_kept_for_a_client_that_comes_back(session: Stand) -> None:
    listening = await session.client.listen()
    standalone = await session.server.listens()
    await standalone.notify("notifications/vendor", {"n": 1})
    await listening.message()
    last_id = listening.last_id
    listening.cut()
    await until(lambda: not session.session().core.book.has_readers)
    await standalone.notify("notifications/vendor", {"n": 2})
    resumed = await session.client.listen(last_id)
    assert (await resumed.message())["params"] == {"n": 2}
    await standalone.notify("notifications/vendor", {"n": 3})
    assert (await resumed.message())["params"] == {"n": 3}


async def test_a_client_may_listen_where_the_server_offers_nothing(session: Stand) -> None:
    session.server.offers_get = False
    listening = await session.client.listen()
    assert (listening.status, listening.kind) == (200, "text/event-stream")
    seen = await session.server.gets("GET")
    assert seen.get("mcp-session-id") == "up-a-1"
    await refused(await session.client.listen("x"), 400, -31001)
    assert "result" in await session.client.call()


@pytest.mark.parametrize("status", [409, 429, 502, 503])
async def test_a_server_that_cannot_be_listened_to_now_is_asked_again(session: Stand, status: int) -> None:
    async def not_now(seen: Seen) -> None:
        session.server.offers_get = True
        await seen.respond(status)

    session.server.offers_get = False
    session.server.on_get = not_now
    listening = await session.client.listen()
    standalone = await session.server.listens()
    await standalone.notify("notifications/vendor")
    assert (await listening.message())["method"] == "notifications/vendor"


async def test_a_server_that_ends_every_stream_is_asked_ever_less(
    session: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def at_once(backoff: Backoff, random: float) -> float:
        waits.append(next_s(backoff, 1.0))
        return 0.0

    async def end(seen: Seen) -> None:
        await seen.begin("text/event-stream")
        await seen.finish()

    next_s = Backoff.next_s
    monkeypatch.setattr(Backoff, "next_s", at_once)
    session.server.offers_get = False
    session.server.on_get = end
    await session.client.listen()
    await until(lambda: len(waits) >= 4)
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]


async def test_a_question_withdrawn_after_its_call_ended_is_withdrawn(session: Stand) -> None:
    tool = Tool(session)
    listening = await session.client.listen()
    standalone = await session.server.listens()
    reply, call, stream = await tool.begin()
    await stream.request("q", "roots/list")
    await stream.send(call.response(TEXT))
    asked, _ = await reply.messages()
    await standalone.notify("notifications/cancelled", {"requestId": "q"})
    withdrawn = await listening.message()
    assert (withdrawn["method"], withdrawn["params"]["requestId"]) == ("notifications/cancelled", asked["id"])

"""Calls that need no task: whatever happens to one, its client and its server see what they would see otherwise."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shadowcat.http.limits import Timeouts
from shadowcat.wire.jsonrpc import RESULT, Message, RequestId
from tests.protocol.test_taps import Tap
from tests.rig.cases import refused
from tests.rig.client import Reply
from tests.rig.server import Call, Handler, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until

TEXT = {"content": [{"type": "text", "text": "done"}]}
CALL = {"name": "t"}


@pytest.fixture
async def released(session: Stand) -> asyncio.Event:
    """What the calls of the session wait for at the server."""
    event = asyncio.Event()
    session.server.handlers["tools/call"] = holding(event, _answer)
    return event


async def _answer(call: Call) -> None:
    await call.result(TEXT)


async def _calling(rig: Stand, id: Any = 1) -> asyncio.Task[Reply]:
    """A call that has reached the server, without a task of the proxy's."""
    asking = asyncio.create_task(rig.client.begin("tools/call", CALL, id))
    await rig.server.gets("tools/call")
    assert not any(task.get_name() == "http/exchange" for task in asyncio.all_tasks())
    return asking


async def _is_over(rig: Stand) -> None:
    """Nothing is left of it."""
    await until(lambda: rig.session().core.correlator.is_idle)
    assert not rig.session().core.is_busy


def _raw(message: Any, *fields: str) -> bytes:
    body = json.dumps(message).encode()
    head = ["HTTP/1.1 200 OK", "Content-Type: application/json", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize("id", [7, "7", "a b", -1, 2**53 + 1, ""])
async def test_the_answer_bears_the_id_it_was_asked_under(
    session: Stand, released: asyncio.Event, id: Any
) -> None:
    asking = await _calling(session, id)
    released.set()
    answer = await (await asking).json()
    assert answer == {"jsonrpc": "2.0", "id": id, "result": TEXT}
    assert type(answer["id"]) is type(id)
    await _is_over(session)


async def test_an_answer_in_two_pieces_is_the_same_wherever_it_is_cut(session: Stand) -> None:
    cut = 0

    @session.server.on("tools/call")
    async def on_call(call: Call) -> None:
        data = _raw(call.response(TEXT))
        await call.seen.raw(data[:cut])
        for _ in range(3):
            await asyncio.sleep(0)
        await call.seen.raw(data[cut:])

    for cut in range(1, len(_raw({"jsonrpc": "2.0", "id": 11, "result": TEXT})), 5):
        assert (await session.client.call(params=CALL, id=cut))["result"] == TEXT


async def _error(call: Call) -> None:
    await call.error(-32602, "no such tool")


async def _stream(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/message", {"level": "info", "data": 1})
    await stream.send(call.response(TEXT))
    await stream.end()


async def _garbage(call: Call) -> None:
    await call.seen.respond(200, b'{"jsonrpc":"2.0","id":', "application/json")


async def _another_answer(call: Call) -> None:
    await call.json({"jsonrpc": "2.0", "id": 999, "result": TEXT})


async def _no_answer(call: Call) -> None:
    await call.seen.respond(202)


async def _failed(call: Call) -> None:
    await call.seen.respond(500, b"oops", "text/plain")


async def _cut(call: Call) -> None:
    call.seen.cut()


async def _cut_in_its_body(call: Call) -> None:
    await call.seen.raw(_raw(call.response(TEXT))[:-3])
    call.seen.cut()


async def _followed_by_more(call: Call) -> None:
    await call.seen.raw(_raw(call.response(TEXT)) + b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("handler", "code"),
    [
        (_answer, None),
        (_followed_by_more, None),
        (_stream, None),
        (_error, -32602),
        (_garbage, -31003),
        (_another_answer, -31003),
        (_no_answer, -32603),
        (_failed, -32603),
        (_cut, -31004),
        (_cut_in_its_body, -31004),
    ],
)
async def test_what_the_server_does_is_told_in_the_session(
    session: Stand, handler: Handler, code: int | None
) -> None:
    session.server.handlers["tools/call"] = handler
    for id in (1, 2):
        reply = await session.client.begin("tools/call", CALL, id)
        assert reply.status == 200
        last = (await reply.messages())[-1] if reply.is_stream else await reply.json()
        assert last["id"] == id
        assert last.get("error", {}).get("code") == code
        await _is_over(session)


async def test_a_server_that_lost_the_session_is_asked_again(session: Stand) -> None:
    assert (await session.client.call(params=CALL))["result"]
    session.server.restart()
    assert (await session.client.call(params=CALL, id=2))["result"]
    assert len(session.server.got("initialize")) == 1


async def test_calls_that_were_out_as_the_session_was_lost_open_it_once(session: Stand) -> None:
    session.server.restart()
    answers = await asyncio.gather(*(session.client.call(params=CALL, id=id) for id in range(20)))
    assert all("result" in answer for answer in answers)
    assert len(session.server.got("initialize")) == 1


async def test_a_call_that_its_client_cancels_is_given_up(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    call = session.server.got("tools/call")[0]
    await session.client.notify("notifications/cancelled", {"requestId": 1})
    reply = await asking
    assert (reply.status, await reply.messages()) == (200, [])
    await happens(call.dropped)
    told = await session.server.gets("notifications/cancelled")
    assert told.json["params"] == {"requestId": call.json["id"]}
    await _is_over(session)


async def test_a_client_that_goes_away_cancels_nothing(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    core = session.session().core
    asking.cancel()
    session.client.close()
    await until(lambda: session.proxy.server.statistics().connections == 1)
    assert core.is_busy
    assert not session.server.got("tools/call")[0].dropped.is_set()
    released.set()
    await until(lambda: session.proxy.server.statistics().connections == 0)
    await _is_over(session)
    assert session.server.got("notifications/cancelled") == []


async def test_the_end_of_the_session_ends_it(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    assert (await session.client.delete()).status == 200
    answer = await (await asking).json()
    assert answer["error"]["data"]["reason"] == "session_ended"
    await happens(session.server.got("tools/call")[0].dropped)


async def test_the_end_of_the_proxy_ends_it(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    async with soon():
        await session.proxy.aclose()
    await happens(session.server.got("tools/call")[0].dropped)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asking


async def test_when_no_time_is_left_the_server_and_the_taps_are_told_too() -> None:
    tap = Tap()
    async with stand(taps=[tap]) as rig:
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = holding(asyncio.Event(), _answer)
        asking = await _calling(rig)
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
        answer = await (await asking).json()
        assert answer["error"]["data"]["reason"] == "proxy_stopped"
        assert [fault.reason for _, fault in tap.failures] == ["proxy_stopped"]
        assert len(rig.server.got("notifications/cancelled")) == 1


async def test_a_proxy_that_drains_waits_for_it(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    draining = asyncio.create_task(session.proxy.drain(grace_s=20.0))
    await asyncio.sleep(0)
    released.set()
    assert (await (await asking).json())["result"] == TEXT
    async with soon():
        await draining


async def test_its_deadline_ends_it_and_the_server_is_told() -> None:
    async with stand(call_timeouts=Timeouts(head_s=0.2)) as rig:
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = holding(asyncio.Event(), _answer)
        asking = await _calling(rig)
        await refused(await asking, 200, -31007, 1)
        await rig.server.gets("notifications/cancelled")
        await _is_over(rig)


async def test_an_id_that_is_in_flight_is_refused(session: Stand, released: asyncio.Event) -> None:
    asking = await _calling(session)
    await refused(await session.client.begin("tools/call", CALL, 1), 400, -32600, 1)
    released.set()
    assert (await (await asking).json())["result"] == TEXT


async def test_what_breaks_in_its_callback_is_a_500_and_no_silence(
    session: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_id = Message.with_id

    def breaks(message: Message, id: RequestId | None) -> Message:
        if message.kind is RESULT:
            raise RuntimeError("on purpose")
        return with_id(message, id)

    monkeypatch.setattr(Message, "with_id", breaks)
    assert (await session.client.begin("tools/call", CALL, 1)).status == 500
    await _is_over(session)

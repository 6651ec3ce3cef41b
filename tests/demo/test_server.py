"""The demo server by itself, as the machinery sees it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowcat.core.exchange import Answer
from shadowcat.demo.call import MAX_QUESTIONS
from shadowcat.demo.offers import NOTE
from shadowcat.demo.server import DemoServer, DemoSession
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Meta
from tests.rig.wait import soon

ASKS = {"elicitation": {}, "sampling": {}}


async def session_of(server: DemoServer, **capabilities: Any) -> DemoSession:
    params = {"protocolVersion": "2025-06-18", "capabilities": capabilities}
    session, answer = await server.open(jsonrpc.request(0, "initialize", params))
    assert answer.result()["protocolVersion"] == "2025-06-18"
    return session


def call(tool: str, /, token: Any = None, **arguments: Any) -> Message:
    meta = {} if token is None else {"progressToken": token}
    return jsonrpc.request(7, "tools/call", {"name": tool, "arguments": arguments, "_meta": meta})


def modern(method: str, capabilities: Any = None, **params: Any) -> Message:
    return jsonrpc.request(7, method, {**params, "_meta": {Meta.CLIENT_CAPABILITIES: capabilities or {}}})


def said(answer: Answer) -> Any:
    assert answer.whole is not None
    return answer.whole.result()["content"][0]["text"]


def refused(answer: Answer) -> tuple[int, int]:
    assert answer.whole is not None
    return answer.status, answer.whole.error()["code"]


async def rest_of(stream: Any) -> list[Any]:
    async with soon():
        messages = [message async for batch in stream for message in batch]
    return [message.result() if message.is_response else message.params()["progress"] for message in messages]


async def test_a_count_goes_on_in_another_process_wherever_it_was() -> None:
    answer = await (await session_of(DemoServer())).exchange(call("count", "t", to=4, pause_ms=0))
    stream = answer.stream
    assert stream is not None
    cursors = [stream.cursor]
    async for _ in stream:
        cursors.append(stream.cursor)
    *numbers, result = await rest_after(cursors[0])
    assert numbers == [1, 2, 3, 4]
    for given, cursor in enumerate(cursors[:5]):
        assert await rest_after(cursor) == [*numbers[given:], result]


async def rest_after(cursor: bytes | None) -> list[Any]:
    assert cursor is not None
    return await rest_of(DemoServer().attach("x", "2025-06-18").resume(cursor, standalone=False))


async def test_no_other_stream_says_that_it_can_go_on() -> None:
    session = await session_of(DemoServer(), **ASKS)
    answer = await session.exchange(call("ask"))
    assert answer.stream is not None
    assert answer.stream.cursor is None
    await answer.stream.aclose()


@pytest.mark.parametrize(
    "cursor", [b"", b"{}", b"[1]", b'{"id":1,"token":1,"name":"x","arguments":{},"said":0}']
)
async def test_a_cursor_of_somebody_elses_is_refused(cursor: bytes) -> None:
    with pytest.raises(Fault):
        DemoServer().attach("x", "2025-06-18").resume(cursor, standalone=False)


@pytest.mark.parametrize(
    ("tool", "reply", "text"),
    [
        ("ask", {"action": "accept", "content": {"name": "Ada"}}, "You are Ada."),
        ("ask", {"action": "decline"}, "You would rather not say."),
        ("think", {"content": {"type": "text", "text": "hm"}}, "Your model says: hm"),
        (
            "think",
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            "Your model says: a b",
        ),
    ],
)
async def test_it_asks_in_both_eras(tool: str, reply: Any, text: str) -> None:
    server = DemoServer()
    session = await session_of(server, **ASKS)
    stream = (await session.exchange(call(tool))).stream
    assert stream is not None
    [question] = await anext(stream)
    waiting = asyncio.ensure_future(rest_of(stream))
    # Nothing says when it waits for the answer; that may come earlier or later.
    assert question.id is not None
    await session.send(jsonrpc.result(question.id, reply))
    [result] = await waiting
    assert result["content"][0]["text"] == text

    first = await server.exchange(modern("tools/call", ASKS, name=tool), ())
    assert first.whole is not None
    asked = first.whole.result()
    assert asked["resultType"] == "input_required"
    [key] = asked["inputRequests"]
    assert asked["inputRequests"][key]["method"] == question.method
    second = await server.exchange(modern("tools/call", ASKS, name=tool, inputResponses={key: reply}), ())
    assert said(second) == text


async def test_who_ends_calls_once_they_asked_may_go_on_asking() -> None:
    session = await session_of(DemoServer(), **ASKS)
    for _ in range(MAX_QUESTIONS + 1):
        answer = await session.exchange(call("ask"))
        assert answer.stream is not None
        await anext(answer.stream)
        await answer.stream.aclose()


async def test_a_client_that_cannot_be_asked_is_told() -> None:
    server = DemoServer()
    assert "no elicitation" in said(await (await session_of(server)).exchange(call("ask")))
    assert refused(await server.exchange(modern("tools/call", name="ask"), ())) == (400, -32021)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nothing", {}),
        ("count", {"to": 0}),
        ("count", {"to": "3"}),
        ("greet", {"name": "x" * 101}),
        ("sleep", {"seconds": 601}),
        ("note", {}),
    ],
)
async def test_what_no_tool_takes_is_refused(name: str, arguments: Any) -> None:
    server = DemoServer()
    refusal = await (await session_of(server)).exchange(call(name, **arguments))
    assert refusal.whole is not None
    assert refusal.whole.error()["code"] == -32602
    answer = await server.exchange(modern("tools/call", name=name, arguments=arguments), ())
    assert refused(answer) == (400, -32602)


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("resources/read", {"uri": "demo://nowhere"}, -32602),
        ("resources/read", {}, -32602),
        ("prompts/get", {"name": "other"}, -32602),
        ("prompts/get", {"name": "explain", "arguments": {"topic": 1}}, -32602),
        ("tools/unheard-of", {}, -32601),
    ],
)
async def test_what_there_is_not_is_refused(method: str, params: Any, code: int) -> None:
    server = DemoServer()
    answer = await (await session_of(server)).exchange(jsonrpc.request(1, method, params))
    assert refused(answer)[1] == code
    assert refused(await server.exchange(modern(method, **params), ()))[1] == code


async def test_who_watches_the_note_is_told_and_nobody_else() -> None:
    server = DemoServer()
    watching, other = await session_of(server), await session_of(server)
    await watching.exchange(jsonrpc.request(1, "resources/subscribe", {"uri": NOTE}))
    streams = [await session.listen() for session in (watching, other)]
    listening = await server.exchange(
        modern("subscriptions/listen", notifications={"resourceSubscriptions": [NOTE, "demo://about"]}), ()
    )
    assert listening.stream is not None
    [acknowledged] = await anext(listening.stream)
    assert acknowledged.params()["notifications"] == {"resourceSubscriptions": [NOTE]}
    told = [asyncio.ensure_future(anext(stream)) for stream in (*streams, listening.stream)]
    await other.exchange(call("note", text="new"))
    async with soon():
        [updated], [modern_update] = await asyncio.gather(told[0], told[2])
    assert updated.params() == {"uri": NOTE}
    assert modern_update.params() == {"uri": NOTE, "_meta": {Meta.SUBSCRIPTION_ID: 7}}
    assert not told[1].done()
    read = await other.exchange(jsonrpc.request(1, "resources/read", {"uri": NOTE}))
    assert read.whole is not None
    assert read.whole.result()["contents"][0]["text"] == "new"
    for stream in (*streams, listening.stream):
        await stream.aclose()
    with pytest.raises(Fault):
        await told[1]

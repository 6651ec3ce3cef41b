"""Ids, tokens, cancellations and batches: what goes where, and comes back to whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shadowcat.proxy.shared import SessionLimits
from tests.rig.cases import case, refused
from tests.rig.client import Reply, modern, routing, rpc
from tests.rig.server import SUB, Call, McpServer, Stream, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, until

TEXT = {"content": [{"type": "text", "text": "done"}]}


def tool(token: Any = None, **arguments: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": "t", "arguments": arguments}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return params


def progress(token: Any, amount: int) -> dict[str, Any]:
    return {"progressToken": token, "progress": amount}


class Waiting:
    """Calls of a tool that are answered when the test says so."""

    def __init__(self, rig: Stand, method: str = "tools/call") -> None:
        self.calls: list[tuple[Call, Stream]] = []
        self._arrived = asyncio.Event()
        rig.server.handlers[method] = self._handle

    async def _handle(self, call: Call) -> None:
        stream = await call.stream()
        self.calls.append((call, stream))
        self._arrived.set()
        await happens(stream.over)

    async def next(self, index: int = 0) -> tuple[Call, Stream]:
        await until(lambda: len(self.calls) > index)
        return self.calls[index]


@pytest.mark.case("J01")
@pytest.mark.parametrize("upstream_ids", [["same", "same"], ["one", "two"]])
async def test_two_clients_with_one_id_and_one_token(rig: Stand, upstream_ids: list[str]) -> None:
    rig.server.next_ids = upstream_ids
    other = await rig.another_client()
    await rig.client.initialize()
    await other.initialize()
    waiting = Waiting(rig)
    replies: list[Reply] = []
    for index, client in enumerate((rig.client, other)):
        replies.append(await _begun(waiting, index, client.begin("tools/call", tool(1, who=index), 1)))
    for index in (1, 0):
        call, stream = await waiting.next(index)
        who = call.params["arguments"]["who"]
        await stream.notify("notifications/progress", progress(call.token, 10 + who))
        await stream.send(call.response({"content": [], "who": who}))
        await stream.end()
    for who, reply in enumerate(replies):
        first, last = await reply.messages()
        assert first["params"] == progress(1, 10 + who)
        assert last == {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "who": who}}


async def _begun(waiting: Waiting, index: int, asking: Any) -> Reply:
    reply = await asking
    await waiting.next(index)
    return reply


@pytest.mark.case("J02")
@pytest.mark.parametrize("answers_json", [True, False])
async def test_ids_keep_their_type(session: Stand, answers_json: bool) -> None:
    session.server.answers_json = answers_json
    release = asyncio.Event()

    async def echo(call: Call) -> None:
        await call.result({"said": call.params["arguments"]["said"]})

    session.server.handlers["tools/call"] = holding(release, echo)
    ids: list[Any] = [1, "1", 0, "", "é", 2**53 + 1, -1]
    tasks = [asyncio.create_task(session.client.call(params=tool(said=repr(id)), id=id)) for id in ids]
    await session.server.gets("tools/call", len(ids))
    release.set()
    for id, answer in zip(ids, await asyncio.gather(*tasks), strict=True):
        assert (answer["id"], type(answer["id"])) == (id, type(id))
        assert answer["result"] == {"said": repr(id)}
    sent = [seen.json["id"] for seen in session.server.got("tools/call")]
    assert all(type(id) is int and id > 0 for id in sent)
    assert len(set(sent)) == len(ids)


@pytest.mark.case("J03")
async def test_a_server_request_with_the_id_of_a_client_request(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    call, stream = await waiting.next()
    await stream.request(call.id, "roots/list")
    asked = await reply.message()
    assert asked["method"] == "roots/list"
    answered = await session.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
    assert answered.status == 202
    seen = await call.answered(call.id)
    assert seen.json == {"jsonrpc": "2.0", "id": call.id, "result": {"roots": []}}
    await stream.send(call.response(TEXT))
    await stream.end()
    assert await reply.messages() == [{"jsonrpc": "2.0", "id": 1, "result": TEXT}]


@pytest.mark.parametrize("upstream_id", [0, "abc", "", 7])
async def test_a_server_requests_id_comes_back_with_its_type(session: Stand, upstream_id: Any) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    _, stream = await waiting.next()
    await stream.request(upstream_id, "sampling/createMessage", {"messages": [], "maxTokens": 1})
    asked = await reply.message()
    assert asked["params"] == {"messages": [], "maxTokens": 1}
    error = {"code": -1, "message": "User rejected"}
    await session.client.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})
    seen = await session.server.answer_to(upstream_id)
    assert type(seen.json["id"]) is type(upstream_id)
    assert seen.json["error"] == error


async def test_an_answer_counts_once(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    call, stream = await waiting.next()
    await stream.request("ask", "roots/list")
    asked = await reply.message()
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}
    assert (await session.client.send(answer)).status == 202
    await call.answered("ask")
    for late in (answer, answer | {"id": str(asked["id"])}, answer | {"id": 999}):
        assert (await session.client.send(late)).status == 202
    assert len([seen for seen in session.server.requests if "result" in seen.json]) == 1
    assert session.counters.dropped_messages == 3


async def test_a_server_withdraws_its_request(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    _, stream = await waiting.next()
    await stream.request("ask", "elicitation/create", {"message": "?", "requestedSchema": {}})
    asked = await reply.message()
    await stream.notify("notifications/cancelled", {"requestId": "other"})
    await stream.notify("notifications/cancelled", {"requestId": "ask", "reason": "never mind"})
    withdrawn = await reply.message()
    assert withdrawn["params"] == {"requestId": asked["id"], "reason": "never mind"}
    late = await session.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
    assert late.status == 202
    assert session.counters.dropped_messages == 2


@pytest.mark.case("J04")
async def test_progress_after_the_response_is_dropped(session: Stand) -> None:
    waiting = Waiting(session)
    one = await session.client.begin("tools/call", tool(5), 1)
    call, first = await waiting.next()
    two = await session.client.begin("tools/call", tool("6"), 2)
    other, second = await waiting.next(1)
    await first.send(call.response(TEXT))
    await second.notify("notifications/progress", progress(call.token, 1))
    await second.notify("notifications/progress", progress("nobody's", 1))
    await second.notify("notifications/progress", progress(other.token, 2))
    await second.send(other.response(TEXT))
    assert [message.get("id") for message in await one.messages()] == [1]
    first_of_two, last_of_two = await two.messages()
    assert first_of_two["params"] == progress("6", 2)
    assert last_of_two["id"] == 2
    assert session.counters.dropped_messages == 2
    for stream in (first, second):
        stream.over.set()


META = {
    "com.x/y": 1,
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "n": 9007199254740993,
}


@pytest.mark.case("J05")
@pytest.mark.parametrize("is_modern", [True, False])
async def test_meta_passes_both_ways(session: Stand, is_modern: bool) -> None:
    @session.server.on("tools/call")
    async def answer(call: Call) -> None:
        await call.result({"content": [], "_meta": META, "x": {"y": [1.0, 1e2]}})

    client = session.client
    if is_modern:
        reply = await client.ask("tools/call", {"name": "t", "more": True}, meta=META)
        result = (await reply.json())["result"]
    else:
        result = (await client.call(params=tool() | {"_meta": META, "more": True}))["result"]
    [seen] = session.server.requests
    params = seen.json["params"]
    assert META.items() <= params["_meta"].items()
    assert params["more"] is True
    assert result["_meta"] == META


@pytest.mark.parametrize("text", [b"9007199254740993", b"1.0", b"1e2", b"-0.0", b'"\\u00e9"', b"[ 1,2 ]"])
async def test_arguments_are_not_read_as_numbers_of_ours(session: Stand, text: bytes) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"x":%b}}}' % text
    reply = await session.client.send(body)
    assert reply.status == 200
    [seen] = session.server.requests
    assert b'"params":{"name":"t","arguments":{"x":%b}}' % text in seen.body


@pytest.mark.case("J06")
async def test_unknown_methods_are_the_servers_to_refuse(session: Stand) -> None:
    answer = await session.client.begin("vendor/x", {"a": 1}, 7)
    await refused(answer, 200, -32601, 7)
    await refused(await session.client.ask("vendor/x", {"a": 1}, id=8), 404, -32601, 8)
    assert [seen.rpc for seen in session.server.requests] == ["vendor/x", "vendor/x"]
    assert session.server.requests[0].json["params"] == {"a": 1}
    assert (await session.client.call())["result"]


async def test_unknown_notifications_pass_both_ways(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    _, stream = await waiting.next()
    assert (await session.client.notify("notifications/vendor", {"a": 1})).status == 202
    assert (await session.server.gets("notifications/vendor")).json["params"] == {"a": 1}
    await stream.notify("notifications/vendor", {"b": 2})
    assert (await reply.message())["params"] == {"b": 2}


# Batches.


@pytest.mark.case("J07")
@pytest.mark.parametrize("answers_json", [True, False])
async def test_a_batch_is_split_going_up_and_gathered_coming_down(answers_json: bool) -> None:
    async with stand(script={"answers_json": answers_json}) as rig:
        await rig.client.initialize("2025-03-26")
        rig.server.requests.clear()
        batch = [
            rpc("tools/call", tool(), "a"),
            rpc("notifications/vendor", {"n": 1}),
            rpc("tools/list", {}, 2),
        ]
        answers = await (await rig.client.send(batch)).messages()
        assert {answer["id"] for answer in answers} == {"a", 2}
        assert all("result" in answer for answer in answers)
        await rig.server.gets("notifications/vendor")
        assert sorted(seen.rpc for seen in rig.server.requests) == sorted(m["method"] for m in batch)


async def test_a_batch_of_answers_and_notifications_gets_202() -> None:
    async with stand() as rig:
        await rig.client.initialize("2025-03-26")
        waiting = Waiting(rig)
        reply = await rig.client.begin("tools/call", tool(), 1)
        _, stream = await waiting.next()
        await stream.request("x", "roots/list")
        await stream.request("y", "roots/list")
        ids = [(await reply.message())["id"] for _ in range(2)]
        batch: list[Any] = [{"jsonrpc": "2.0", "id": id, "result": {"roots": []}} for id in ids]
        answered = await rig.client.send([*batch, rpc("notifications/vendor")])
        assert (answered.status, await answered.body()) == (202, b"")
        for id in ("x", "y"):
            await rig.server.answer_to(id)
        await rig.server.gets("notifications/vendor")


async def test_a_batch_that_cancels_its_own_request() -> None:
    async with stand() as rig:
        await rig.client.initialize("2025-03-26")
        Waiting(rig)
        rig.server.requests.clear()
        cancellation = rpc("notifications/cancelled", {"requestId": "a"})
        batch = [rpc("tools/call", tool(), "a"), cancellation, rpc("tools/list", {}, 2)]
        answers = await (await rig.client.send(batch)).messages()
        assert [answer["id"] for answer in answers] == [2]
        await rig.server.gets("notifications/cancelled")
        _is_cancelled_after_it_was_asked(rig.server)
        assert rig.counters.dropped_messages == 0


@pytest.mark.parametrize("upgrade_after_s", [None, 60.0])
async def test_a_cancellation_right_behind_its_request(upgrade_after_s: float | None) -> None:
    async with stand(session_limits=SessionLimits(upgrade_after_s=upgrade_after_s)) as rig:
        await rig.client.initialize()
        Waiting(rig)
        cancellation = rpc("notifications/cancelled", {"requestId": 1})
        call, cancelled = await rig.client.post_together(rpc("tools/call", tool(), 1), cancellation)
        assert cancelled.status == 202
        assert await call.messages() == []
        _is_cancelled_after_it_was_asked(rig.server)


def _is_cancelled_after_it_was_asked(server: McpServer) -> None:
    """Or not at all: there is nothing to cancel at a server that has not heard of it."""
    heard = [seen.rpc for seen in server.requests]
    if "tools/call" in heard:
        assert heard.index("tools/call") < heard.index("notifications/cancelled")
        [asked], [cancelled] = server.got("tools/call"), server.got("notifications/cancelled")
        assert cancelled.json["params"]["requestId"] == asked.json["id"]


async def test_one_bad_element_spoils_only_itself() -> None:
    async with stand() as rig:
        await rig.client.initialize("2025-03-26")
        rig.server.requests.clear()
        batch = [rpc("tools/list", {}, 1), {"jsonrpc": "2.0", "id": 2}, 7, rpc("tools/list", {}, 1)]
        answers = await (await rig.client.send(batch)).messages()
        codes = sorted(answer["error"]["code"] for answer in answers if "error" in answer)
        assert codes == [-32600, -32600, -32600]
        assert [answer["id"] for answer in answers if "result" in answer] == [1]
        assert len(rig.server.requests) == 1


@pytest.mark.parametrize(
    ("version", "batch"),
    [
        case("J08", "2025-06-18", [rpc("tools/list", {}, 1)]),
        case("J08", "2025-11-25", [rpc("notifications/vendor")], note="newest"),
        case("J09", "2025-03-26", [rpc("initialize", {}, 1)], note="initialize"),
        case("J09", "2025-03-26", [rpc("tools/list", {}, 1), rpc("initialize", {}, 2)], note="behind"),
        case("J09", "2025-03-26", [], note="empty"),
        case("J09", "2025-03-26", [modern("tools/list")], note="modern"),
        pytest.param("2025-03-26", [rpc("notifications/x")] * 101, id="too many"),
    ],
)
async def test_batches_that_are_refused_whole(rig: Stand, version: str, batch: Any) -> None:
    await rig.client.initialize(version)
    rig.server.requests.clear()
    await refused(await rig.client.send(batch), 400, -32600)
    assert rig.server.requests == []


async def test_an_array_from_the_server_reaches_the_client_as_single_messages(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(3), 1)
    call, stream = await waiting.next()
    note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress(call.token, 1)}
    await stream.send([note, call.response(TEXT)])
    first, last = await reply.messages()
    assert first["params"] == progress(3, 1)
    assert last == {"jsonrpc": "2.0", "id": 1, "result": TEXT}


# Cancelling, ping.


@pytest.mark.parametrize(
    "params", [case("J10", {"requestId": 99}), {"requestId": "1"}, {}, None, {"requestId": None}]
)
async def test_a_cancellation_of_nothing_goes_nowhere(session: Stand, params: Any) -> None:
    waiting = Waiting(session)
    await session.client.begin("tools/call", tool(), 1)
    await waiting.next()
    session.server.requests.clear()
    assert (await session.client.notify("notifications/cancelled", params)).status == 202
    assert session.server.requests == []
    assert session.counters.dropped_messages == 1


@pytest.mark.case("J11")
async def test_ping_is_answered_by_the_proxy_both_ways(session: Stand) -> None:
    client = session.client
    assert await client.call("ping", {}, "p") == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert session.server.requests == []
    waiting = Waiting(session)
    reply = await client.begin("tools/call", tool(), 1)
    _, stream = await waiting.next()
    await stream.request("up", "ping")
    assert (await session.server.answer_to("up")).json == {"jsonrpc": "2.0", "id": "up", "result": {}}
    await client.listen()
    standalone = await session.server.listens()
    await standalone.request(12, "ping")
    assert (await session.server.answer_to(12)).json["result"] == {}
    await stream.notify("notifications/vendor")
    assert (await reply.message())["method"] == "notifications/vendor"


@pytest.mark.case("J12")
@pytest.mark.parametrize("begun", [True, False])
async def test_a_modern_client_cancels_by_going_away(session: Stand, begun: bool) -> None:
    arrived = asyncio.Event()

    @session.server.on("tools/call")
    async def hold(call: Call) -> None:
        if begun:
            stream = await call.stream()
            await stream.notify("notifications/progress", progress(call.token, 1))
        arrived.set()
        await happens(call.seen.dropped)

    client = session.client
    asking = asyncio.create_task(client.ask("tools/call", {"name": "t"}, meta={"progressToken": 1}))
    await happens(arrived)
    if begun:
        reply = await asking
        assert (await reply.message())["params"] == progress(1, 1)
        reply.cut()
    else:
        asking.cancel()
        client.close()
    [seen] = session.server.got("tools/call")
    await happens(seen.dropped, within_s=1.0)
    assert session.server.got("notifications/cancelled") == []


@pytest.mark.case("J13")
async def test_a_legacy_client_that_goes_away_cancels_nothing(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.begin("tools/call", tool(), 1)
    call, stream = await waiting.next()
    assert (await reply.event()) is not None
    reply.cut()
    await until(lambda: not session.session().core.book.has_readers)
    assert session.server.got("notifications/cancelled") == []
    assert not call.seen.dropped.is_set()
    await stream.notify("notifications/vendor", {"late": True})
    await stream.send(call.response(TEXT))
    resumed = await session.client.listen(reply.last_id)
    late, last = await resumed.messages()
    assert late["params"] == {"late": True}
    assert last == {"jsonrpc": "2.0", "id": 1, "result": TEXT}


@pytest.mark.parametrize("begun", [True, False])
async def test_a_legacy_client_cancels_by_saying_so(session: Stand, begun: bool) -> None:
    """The server hears of it under its own id; the client hears nothing more."""
    arrived = asyncio.Event()

    @session.server.on("tools/call")
    async def hold(call: Call) -> None:
        if begun:
            await (await call.stream()).notify("notifications/vendor")
        arrived.set()
        await happens(call.seen.dropped)

    client = session.client
    asking = asyncio.create_task(client.begin("tools/call", tool(), "mine"))
    await happens(arrived)
    if begun:
        assert (await (await asking).message())["method"] == "notifications/vendor"
    [seen] = session.server.got("tools/call")
    cancelled = await client.notify("notifications/cancelled", {"requestId": "mine", "reason": "enough"})
    assert cancelled.status == 202
    told = await session.server.gets("notifications/cancelled")
    assert told.json["params"] == {"requestId": seen.json["id"], "reason": "enough"}
    assert await (await asking).messages() == []
    await until(lambda: session.session().core.correlator.is_idle)
    again = await client.notify("notifications/cancelled", {"requestId": "mine"})
    assert again.status == 202
    assert len(session.server.got("notifications/cancelled")) == 1


async def test_a_late_answer_to_a_cancelled_request_is_for_nobody(session: Stand) -> None:
    session.server.answers_json = True
    release = asyncio.Event()

    async def late(call: Call) -> None:
        await call.error(-32800, "Request cancelled")

    session.server.handlers["tools/call"] = holding(release, late)
    asking = asyncio.create_task(session.client.begin("tools/call", tool(), 1))
    await session.server.gets("tools/call")
    await session.client.notify("notifications/cancelled", {"requestId": 1})
    release.set()
    assert await (await asking).messages() == []


async def test_a_modern_cancel_notification_means_nothing_over_http(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.ask("tools/call", {"name": "t"}, id=1)
    call, stream = await waiting.next()
    told = await session.client.post(
        modern("notifications/cancelled", {"requestId": 1}, None), *routing("notifications/cancelled")
    )
    assert told.status == 202
    await stream.send(call.response(TEXT))
    assert [message["id"] for message in await reply.messages()] == [1]


# Streams.

ODD = (
    b"\xef\xbb\xbf: a comment\r\n\r\n"
    b'event: message\r\nid: 1\r\ndata: {"jsonrpc":"2.0",\r\ndata: "method":"notifications/vendor"}\r\n\r\n'
    b"event: other\ndata: not JSON\n\n"
    b"retry: 700\r\rid:2\rdata\r\r"
    b"data:%b\n\n"
)


@pytest.mark.case("J14")
@pytest.mark.parametrize("cut_at", [None, 1, 5])
async def test_events_in_every_spelling(session: Stand, cut_at: int | None) -> None:
    @session.server.on("tools/call")
    async def answer(call: Call) -> None:
        stream = await call.stream()
        text = ODD % json.dumps(call.response(TEXT)).encode()
        for start in range(0, len(text), cut_at or len(text)):
            await stream.raw(text[start : start + (cut_at or len(text))])
        await stream.end()

    reply = await session.client.begin("tools/call", tool(), 1)
    first, last = await reply.messages()
    assert first == {"jsonrpc": "2.0", "method": "notifications/vendor"}
    assert last == {"jsonrpc": "2.0", "id": 1, "result": TEXT}
    assert [event.event for event in reply.seen] == ["message"] * 3


NO_ANSWER = {"jsonrpc": "2.0", "id": 999, "result": {}}


@pytest.mark.parametrize("is_modern", [True, False])
async def test_an_error_on_a_stream_that_names_no_request_is_the_answer(
    session: Stand, is_modern: bool
) -> None:
    """Some servers write null where they could not read the id; there is only one request that it can be."""
    waiting = Waiting(session)
    client = session.client
    asking = (
        client.ask("tools/call", {"name": "t"}, id="x")
        if is_modern
        else client.begin("tools/call", tool(), "x")
    )
    reply = await asking
    _, stream = await waiting.next()
    await stream.send(NO_ANSWER)
    await stream.send({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "no"}})
    await stream.end()
    assert await reply.messages() == [
        {"jsonrpc": "2.0", "id": "x", "error": {"code": -32000, "message": "no"}}
    ]


async def test_a_modern_stream_does_not_end_with_an_answer_to_something_else(session: Stand) -> None:
    waiting = Waiting(session)
    reply = await session.client.ask("tools/call", {"name": "t"}, id="x")
    call, stream = await waiting.next()
    await stream.send(NO_ANSWER)
    await stream.send(call.response(TEXT))
    assert [message["id"] for message in await reply.messages()] == ["x"]


@pytest.mark.case("J15")
async def test_a_subscription_is_known_by_the_clients_id(session: Stand) -> None:
    waiting = Waiting(session, "subscriptions/listen")
    wanted = {"notifications": {"toolsListChanged": True}}
    reply = await session.client.ask("subscriptions/listen", wanted, id="L")
    call, stream = await waiting.next()
    meta = {"_meta": {SUB: call.id}}
    await stream.notify("notifications/subscriptions/acknowledged", {**meta, **wanted})
    await stream.notify("notifications/tools/list_changed", meta)
    await stream.send(call.response({"resultType": "complete", **meta}))
    await stream.end()
    acknowledged, changed, ended = await reply.messages()
    assert acknowledged["params"] == {"_meta": {SUB: "L"}, **wanted}
    assert changed["params"]["_meta"] == {SUB: "L"}
    assert ended["id"] == "L"
    assert ended["result"]["_meta"] == {SUB: "L"}


@pytest.mark.case("J16")
async def test_an_answered_input_request_passes_to_the_byte(session: Stand) -> None:
    body = (
        b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"t","inputResponses": {"n":'
        b'{"action":"accept","content":{"x":1.0}}},"requestState":"Z\\u00e9/\\/=","_meta":%b}}'
        % json.dumps(modern("x")["params"]["_meta"]).encode()
    )
    for _ in range(2):
        reply = await session.client.post(body, *routing("tools/call", "t"))
        assert reply.status == 200
    assert [seen.body for seen in session.server.got("tools/call")] == [body, body]

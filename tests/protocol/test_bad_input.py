"""What no decent client sends: refused at the door, by its first mistake, and not a byte goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shadowcat.http.limits import ServerLimits
from tests.rig.cases import refused
from tests.rig.client import ACCEPT, JSON, envelope, modern, routing, rpc
from tests.rig.server import Call, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens

LIST = rpc("tools/list", {}, 7)


@pytest.fixture
async def quiet(session: Stand) -> AsyncIterator[Stand]:
    """A session whose upstream must hear nothing."""
    yield session
    assert session.server.requests == []


def row(id: str, *values: Any) -> Any:
    return pytest.param(*values, id=id)


# Headers.

KINDS = [
    row("text", "text/plain"),
    row("jsonx", "application/jsonx"),
    row("suffix", "application/problem+json"),
    row("form", "application/x-www-form-urlencoded"),
    row("two", "application/json, text/plain"),
    row("empty", ""),
    row("none", None),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_content_type(quiet: Stand, kind: str | None) -> None:
    plain = [ACCEPT] if kind is None else [ACCEPT, ("Content-Type", kind)]
    reply = await quiet.client.post(LIST, *quiet.client.in_session(), plain=plain)
    await refused(reply, 415, -32600, 7)


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_content_type_modern(quiet: Stand, kind: str | None) -> None:
    plain = [ACCEPT] if kind is None else [ACCEPT, ("Content-Type", kind)]
    reply = await quiet.client.post(modern("tools/list", id="x"), *routing("tools/list"), plain=plain)
    await refused(reply, 415, -32600, "x")


@pytest.mark.parametrize("accept", ["application/json", "text/html", "", None])
async def test_wrong_accept_of_a_get(quiet: Stand, accept: str | None) -> None:
    fields = [] if accept is None else [("Accept", accept)]
    reply = await quiet.client.request("GET", [*fields, *quiet.client.in_session()])
    await refused(reply, 406, -32600)


@pytest.mark.parametrize(
    "id", [row("empty", ""), row("space", "a b"), row("umlaut", "ä"), row("long", "x" * 257)]
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_malformed_session_id(quiet: Stand, method: str, id: str) -> None:
    fields = [("Mcp-Session-Id", id)]
    if method == "POST":
        await refused(await quiet.client.post(LIST, *fields), 400, -32600, 7)
    else:
        reply = await quiet.client.request(method, [("Accept", "text/event-stream"), *fields])
        await refused(reply, 400, -32600)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_doubled_session_id(quiet: Stand, method: str) -> None:
    assert quiet.client.session_id is not None
    fields = [("Mcp-Session-Id", quiet.client.session_id)] * 2
    if method == "POST":
        await refused(await quiet.client.post(LIST, *fields), 400, -32600, 7)
    else:
        reply = await quiet.client.request(method, [("Accept", "text/event-stream"), *fields])
        await refused(reply, 400, -32600)


async def test_doubled_session_id_on_initialize(quiet: Stand) -> None:
    fields = [("Mcp-Session-Id", "a"), ("mcp-session-id", "b")]
    await refused(await quiet.client.post(rpc("initialize", {}, 7), *fields), 400, -32600, 7)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_doubled_version(quiet: Stand, method: str) -> None:
    fields = [*quiet.client.in_session(), ("MCP-Protocol-Version", "2025-11-25")]
    if method == "POST":
        await refused(await quiet.client.post(LIST, *fields), 400, -32600, 7)
    else:
        reply = await quiet.client.request(method, [("Accept", "text/event-stream"), *fields])
        await refused(reply, 400, -32600)


LAST_EVENT_IDS = [
    row("empty", ""),
    row("long", "x" * 257),
    row("space", "a b"),
    row("umlaut", "ä"),
    row("path", "../../etc/passwd"),
    row("glob", "*"),
    row("huge", "AAAAAAAAAAAA." + "9" * 16 + ".1"),
]


@pytest.mark.parametrize("id", LAST_EVENT_IDS)
async def test_odd_last_event_id(session: Stand, id: str) -> None:
    reply = await session.client.listen(id)
    answer = await reply.json()
    assert (reply.status, answer["error"]["code"] in (-32600, -31001)) == (400, True)
    assert session.server.got("initialize") == []
    assert "result" in await session.client.call()


async def test_doubled_last_event_id(quiet: Stand) -> None:
    fields = [("Accept", "text/event-stream"), *quiet.client.in_session()]
    fields += [("Last-Event-ID", "a"), ("Last-Event-ID", "b")]
    await refused(await quiet.client.request("GET", fields), 400, -32600)


# Messages.

SHAPES = [
    row("id null", b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', None),
    row("id float", b'{"jsonrpc":"2.0","id":1.5,"method":"tools/list"}', None),
    row("id 1.0", b'{"jsonrpc":"2.0","id":1.0,"method":"tools/list"}', None),
    row("id object", b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}', None),
    row("id bool", b'{"jsonrpc":"2.0","id":true,"method":"tools/list"}', None),
    row("id array", b'{"jsonrpc":"2.0","id":[1],"method":"tools/list"}', None),
    row("id long", b'{"jsonrpc":"2.0","id":"%b","method":"tools/list"}' % (b"x" * 257), None),
    row("id twice", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list"}', None),
    row("jsonrpc missing", b'{"id":7,"method":"tools/list"}', 7),
    row("jsonrpc 1.0", b'{"jsonrpc":"1.0","id":7,"method":"tools/list"}', 7),
    row("jsonrpc number", b'{"jsonrpc":2.0,"id":7,"method":"tools/list"}', 7),
    row("method twice", b'{"jsonrpc":"2.0","id":7,"method":"a","method":"tools/list"}', 7),
    row("method escaped", b'{"jsonrpc":"2.0","id":7,"method":"a","meth\\u006fd":"tools/list"}', 7),
    row("method cased", b'{"jsonrpc":"2.0","id":7,"Method":"a","method":"tools/list"}', 7),
    row("method number", b'{"jsonrpc":"2.0","id":7,"method":7}', 7),
    row("method empty", b'{"jsonrpc":"2.0","id":7,"method":""}', 7),
    row("params twice", b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{},"params":{}}', 7),
    row("params array", b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":[]}', 7),
    row("params null", b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":null}', 7),
    row("unknown member", b'{"jsonrpc":"2.0","id":7,"method":"tools/list","extra":1}', 7),
    row("result too", b'{"jsonrpc":"2.0","id":7,"method":"tools/list","result":{}}', 7),
    row("nothing", b'{"jsonrpc":"2.0","id":7}', 7),
    row("both", b'{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}', 7),
    row("scalar", b"7", None),
    row("null", b"null", None),
    row("string", b'"tools/list"', None),
]


@pytest.mark.parametrize(("body", "id"), SHAPES)
async def test_a_body_that_is_no_message(quiet: Stand, body: bytes, id: Any) -> None:
    await refused(await quiet.client.send(body), 400, -32600, id)


@pytest.mark.parametrize("digits", [19, 20, 4_000])
async def test_a_huge_id(quiet: Stand, digits: int) -> None:
    body = b'{"jsonrpc":"2.0","id":%b,"method":"tools/list"}' % (b"9" * digits)
    reply = await quiet.client.send(body)
    answer = await reply.json()
    assert reply.status == 400
    assert answer["error"]["code"] in (-32600, -32700)


TEXTS = [
    row("NaN", b"NaN"),
    row("Infinity", b"-Infinity"),
    row("1e400", b"1e400"),
    row("lone surrogate", b'"\\ud800"'),
    row("bad utf-8", b'"\xff"'),
    row("overlong", b'"\xc0\xaf"'),
    row("control", b'"\x01"'),
    row("deep", b"[" * 65 + b"]" * 65),
    row("very deep", b"[" * 100_000 + b"]" * 100_000),
    row("5000 digits", b"9" * 5_000),
    row("comment", b"1/*x*/"),
    row("single quotes", b"'x'"),
    row("trailing comma", b"[1,]"),
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("is_modern", [True, False])
async def test_json_that_two_readers_may_read_differently(quiet: Stand, text: bytes, is_modern: bool) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","arguments":{"x":%b}}}' % text
    fields = routing("tools/call", "t") if is_modern else quiet.client.in_session()
    reply = await quiet.client.post(body, *fields)
    answer = await reply.json()
    assert (reply.status, answer["error"]["code"]) == (400, -32700)


@pytest.mark.parametrize(
    "body",
    [
        row("BOM", b"\xef\xbb\xbf{}"),
        row("UTF-16", '{"jsonrpc":"2.0","id":7,"method":"ping"}'.encode("utf-16")),
        row("trailing", b'{"jsonrpc":"2.0","id":7,"method":"tools/list"} x'),
        row("two", b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}{}'),
        row("vertical tab", b'\x0b[{"jsonrpc":"2.0","id":7,"method":"tools/list"}]'),
    ],
)
async def test_a_body_around_which_something_stands(quiet: Stand, body: bytes) -> None:
    reply = await quiet.client.send(body)
    answer = await reply.json()
    assert (reply.status, answer["error"]["code"]) == (400, -32700)


async def test_a_body_that_is_too_large(quiet: Stand) -> None:
    body = b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"x":"%b"}}' % (b"x" * 4 * 1024 * 1024)
    client = quiet.client
    fields = [ACCEPT, JSON, *client.in_session(), ("Content-Length", str(len(body)))]
    reply = await client.request("POST", fields)
    assert reply.status == 413
    assert (await reply.json())["error"] == {
        "code": -32600,
        "message": "The body is too large: 4194304 bytes at most",
        "data": {"reason": "body_too_large"},
    }


async def test_bodies_that_are_too_much_together() -> None:
    size = 100_000
    # Four such bodies, of which one's room is kept for small ones.
    limits = ServerLimits(body_bytes=size, bodies_bytes=1)
    async with stand(server_limits=limits) as rig:
        await rig.client.initialize()
        ended = asyncio.Event()
        rig.server.on("tools/call")(holding(ended, lambda call: call.result({})))
        params = {"name": "t", "arguments": {"x": "x" * (size - 1_000)}}
        asking = [asyncio.create_task(rig.client.call("tools/call", params, id)) for id in range(3)]
        await rig.server.gets("tools/call", 3)
        reply = await rig.client.begin("tools/call", params, 7)
        error = await refused(reply, 503, -31002)
        assert error["data"] == {"reason": "over_capacity"}
        assert reply.headers["retry-after"] == "5"
        ended.set()
        assert all("result" in answer for answer in await asyncio.gather(*asking))


# Sessions and their requests.


async def test_a_second_initialize(quiet: Stand) -> None:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}}
    await refused(await quiet.client.send(rpc("initialize", params, 7)), 400, -32600, 7)


async def test_an_id_in_flight(session: Stand) -> None:
    @session.server.on("tools/call")
    async def hold(call: Call) -> None:
        await happens(call.seen.dropped)

    asking = [asyncio.create_task(session.client.begin("tools/call", {"name": "t"}, 7))]
    await session.server.gets("tools/call")
    await refused(await session.client.begin("tools/list", {}, 7), 400, -32600, 7)
    assert len(session.server.requests) == 1
    # The same digits as a string are another id.
    assert "result" in await session.client.call("tools/list", {}, "7")
    await session.client.delete()
    await asyncio.gather(*asking)


@pytest.mark.parametrize("id", [1, "1", 0, -1, 10**15, "x"])
@pytest.mark.parametrize("member", ["result", "error"])
async def test_an_answer_to_a_request_never_asked(quiet: Stand, id: Any, member: str) -> None:
    value: Any = {} if member == "result" else {"code": 1, "message": "no"}
    reply = await quiet.client.send({"jsonrpc": "2.0", "id": id, member: value})
    assert (reply.status, await reply.body()) == (202, b"")
    assert quiet.counters.dropped_messages == 1


async def test_an_error_that_answers_nobody(quiet: Stand) -> None:
    reply = await quiet.client.send({"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": ""}})
    assert reply.status == 202


async def test_cancelling_another_sessions_request(session: Stand) -> None:
    @session.server.on("tools/call")
    async def hold(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor")
        await happens(stream.over)

    other = await session.another_client()
    await other.initialize()
    running = await session.client.begin("tools/call", {"name": "t"}, 7)
    assert (await running.message())["method"] == "notifications/vendor"
    theirs = session.server.got("tools/call")[0].json["id"]
    for id in (7, theirs):
        assert (await other.notify("notifications/cancelled", {"requestId": id})).status == 202
    assert session.server.got("notifications/cancelled") == []


async def test_answering_another_sessions_question(session: Stand) -> None:
    @session.server.on("tools/call")
    async def ask(call: Call) -> None:
        stream = await call.stream()
        await stream.request("q", "roots/list")
        await happens(stream.over)

    other = await session.another_client()
    await other.initialize()
    running = await session.client.begin("tools/call", {"name": "t"}, 7)
    asked = await running.message()
    session.server.requests.clear()
    reply = await other.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
    assert reply.status == 202
    assert session.server.requests == []


async def test_progress_of_another_sessions_request(session: Stand) -> None:
    """Tokens of one session mean nothing in another, whatever an upstream that mixes them up says."""

    @session.server.on("tools/call")
    async def hold(call: Call) -> None:
        stream = await call.stream()
        who = call.params["arguments"]["who"]
        if who == "b":
            await stream.notify("notifications/progress", {"progressToken": "a's", "progress": 1})
            await stream.send(call.response({"content": []}))
            await stream.end()
        else:
            await happens(stream.over)

    other = await session.another_client()
    await other.initialize()
    meta = {"_meta": {"progressToken": "a's"}}
    await session.client.begin("tools/call", {"name": "t", "arguments": {"who": "a"}, **meta}, 1)
    reply = await other.begin("tools/call", {"name": "t", "arguments": {"who": "b"}}, 1)
    assert [message.get("id") for message in await reply.messages()] == [1]


@pytest.mark.parametrize("version", ["1999-01-01", "2025-11-26", "latest", ""])
async def test_an_unsupported_version(quiet: Stand, version: str) -> None:
    assert quiet.client.session_id is not None
    fields = [("Mcp-Session-Id", quiet.client.session_id), ("MCP-Protocol-Version", version)]
    await refused(await quiet.client.post(LIST, *fields), 400, -32022, 7)
    message = rpc("tools/list", {"_meta": envelope(version)}, 7)
    await refused(await quiet.client.post(message, *routing("tools/list", version=version)), 400, -32022, 7)


async def test_an_unknown_path(quiet: Stand) -> None:
    for path in ("/", "/mcp/", "/mcp/x", "/MCP", "//mcp", "/%6dcp"):
        reply = await quiet.client.request("POST", [ACCEPT, JSON], b"{}", path=path)
        assert reply.status == 404


async def test_a_query_is_no_other_endpoint(session: Stand) -> None:
    client = session.client
    body = b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}'
    reply = await client.request("POST", [ACCEPT, JSON, *client.in_session()], body, path="/mcp?x=1")
    assert reply.status == 200
    assert session.server.requests[0].target == "/mcp"


async def test_a_path_that_is_none_of_ours_is_told_so_that_clients_show_it(quiet: Stand) -> None:
    """The official Python client says "Not Found" to its user for whatever is no JSON-RPC error."""
    from mcp import Client
    from mcp.shared.exceptions import MCPError

    url = f"http://127.0.0.1:{quiet.proxy.port}/"
    for mode in ("legacy", "auto"):
        with pytest.raises(BaseExceptionGroup) as caught:
            async with Client(url, mode=mode):
                pass
        told = caught.value.subgroup(MCPError)
        assert told is not None
        assert "HTTP path not found: the MCP endpoint is /mcp" in repr(told.exceptions)
    reply = await quiet.client.request("GET", [ACCEPT], path="/")
    assert await reply.body() == b"not found: the MCP endpoint is /mcp\n"

"""What headers a modern request needs, and which headers pass the proxy."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.rig.cases import case, refused
from tests.rig.client import modern, routing
from tests.rig.server import MODERN, Call
from tests.rig.stand import Stand

Fields = list[tuple[str, str]]

LIST = modern("tools/list", id=7)
VERSION: Fields = [("MCP-Protocol-Version", MODERN)]


def call(name: Any = "bar", **arguments: Any) -> dict[str, Any]:
    return modern("tools/call", {"name": name, "arguments": arguments}, 7)


def sentinel(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


CALL = routing("tools/call", "bar")

REFUSED = [
    case("H02", LIST, routing("TOOLS/LIST")),
    case("H03", LIST, VERSION),
    case("H04", call(), routing("tools/call", "foo")),
    case("H04", call(), routing("tools/call", "Bar"), note="case"),
    case("H04", modern("prompts/get", {"name": "bar"}, 7), routing("prompts/get", "foo"), note="prompt"),
    case("H04", modern("resources/read", {"uri": "x:a"}, 7), routing("resources/read", "x:b"), note="uri"),
    case("H06", call(), routing("tools/call")),
    case("H06", modern("resources/read", {"uri": "x:a"}, 7), routing("resources/read"), note="resource"),
    case("H08", call(X="Hello"), [*CALL, ("Mcp-Param-X", "=?base64?SGVsbG8?=")]),
    case("H08", call(X="Hello"), [*CALL, ("Mcp-Param-X", "=?base64?SGVsb$8=?=")], note="alphabet"),
    case("H08", call(X="Hello"), [*CALL, ("Mcp-Param-X", "=?base64?/w==?=")], note="utf-8"),
    case("H08", call(), routing("tools/call", "=?base64?YmFy=?="), note="name"),
    case("H13", LIST, [*VERSION, ("Mcp-Method", "tools/list"), ("Mcp-Method", "tools/list")]),
    case("H13", call(), [*CALL, ("Mcp-Name", "bar")], note="name"),
    case("H13", call(), [*CALL, ("Mcp-Param-X", "1"), ("mcp-param-x", "1")], note="parameter"),
    *[
        case("H15", modern(method, {"taskId": "t1"}, 7), routing(method, "t2"), note=method)
        for method in ("tasks/get", "tasks/update", "tasks/cancel")
    ],
]


@pytest.mark.parametrize(("message", "fields"), REFUSED)
async def test_headers_that_do_not_repeat_the_body_are_refused(
    rig: Stand, message: Any, fields: Fields
) -> None:
    await refused(await rig.client.post(message, *fields), 400, -32020, 7)
    assert rig.server.requests == []


ACCEPTED = [
    case("H01", LIST, [*VERSION, ("mcp-method", "tools/list")]),
    case("H05", call("foo"), [*VERSION, ("Mcp-Method", "  tools/call "), ("Mcp-Name", "   foo  ")]),
    case("H07", call("工具"), routing("tools/call", sentinel("工具"))),
    case("H07", call("bar"), routing("tools/call", sentinel("bar")), note="needless"),
    case("H07", call("=?base64?x?="), routing("tools/call", sentinel("=?base64?x?=")), note="marker"),
    case("H09", call(X="SGVsbG8="), [*CALL, ("Mcp-Param-X", "SGVsbG8=")]),
    case("H09", call("=?base64?"), routing("tools/call", "=?base64?"), note="half a marker"),
    case("H11", call(X=42), [*CALL, ("Mcp-Param-X", "42.0")]),
    case("H12", call(X=None), CALL),
    case("H15", modern("tasks/get", {"taskId": "t1"}, 7), routing("tasks/get", "t1"), note="equal"),
    pytest.param(call(""), routing("tools/call", ""), id="empty name"),
]


@pytest.mark.parametrize(("message", "fields"), ACCEPTED)
async def test_headers_that_repeat_the_body_are_accepted(rig: Stand, message: Any, fields: Fields) -> None:
    """And reach the server as they came, beside a body that is the same to the byte."""
    method = message["method"]

    @rig.server.on(method)
    async def answer(call: Call) -> None:
        await call.result({})

    reply = await rig.client.post(message, *fields)
    assert reply.status == 200, await reply.json()
    [seen] = rig.server.requests
    assert seen.json == message
    for name, value in fields:
        assert seen.all(name) == [value.strip()]


@pytest.mark.case("H10")
async def test_unknown_parameter_headers_are_forwarded(rig: Stand) -> None:
    fields = [("Mcp-Param-Foo", "a, b"), ("Mcp-Param-Bar", sentinel(" x"))]
    reply = await rig.client.ask("tools/list", {}, *fields)
    assert reply.status == 200
    [seen] = rig.server.requests
    for name, value in fields:
        assert seen.all(name) == [value]


@pytest.mark.case("H12")
async def test_a_server_that_finds_a_header_without_its_argument_is_heard(rig: Stand) -> None:
    """Which arguments are annotated only the server knows; its refusal reaches the client as it is."""

    @rig.server.on("tools/call")
    async def check(call: Call) -> None:
        assert call.seen.get("mcp-param-x") == "42"
        await call.error(-32020, "Header mismatch: Mcp-Param-X", status=400)

    reply = await rig.client.post(call(X=None), *CALL, ("Mcp-Param-X", "42"))
    await refused(reply, 400, -32020, 7)


CLIENTS_OWN = [
    ("Authorization", "Bearer secret"),
    ("Cookie", "a=b"),
    ("Origin", "http://localhost:1234"),
    ("Referer", "http://localhost:1234/page"),
    ("Sec-Fetch-Mode", "cors"),
    ("Proxy-Authorization", "Basic secret"),
    ("X-Forwarded-For", "10.0.0.1"),
    ("X-Secret", "secret"),
    ("Accept-Encoding", "gzip"),
    ("TE", "trailers"),
    ("Keep-Alive", "timeout=5"),
]


@pytest.mark.case("H16")
@pytest.mark.parametrize("is_modern", [True, False])
async def test_the_clients_own_headers_stay_at_the_proxy(session: Stand, is_modern: bool) -> None:
    client = session.client
    if is_modern:
        reply = await client.ask("tools/list", {}, *CLIENTS_OWN)
    else:
        reply = await client.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, *CLIENTS_OWN)
    assert reply.status == 200
    [seen] = session.server.requests
    for name, value in CLIENTS_OWN:
        if name != "Accept-Encoding":
            assert seen.get(name) is None
        assert value not in [sent for _, sent in seen.headers]
    assert seen.all("accept") == ["application/json, text/event-stream"]
    assert seen.all("accept-encoding") == ["identity"]
    assert seen.all("content-type") == ["application/json"]
    assert seen.all("host") == [session.server.url.split("/")[2]]


@pytest.mark.case("H16")
async def test_a_get_asks_for_events_alone(session: Stand) -> None:
    await session.client.listen()
    seen = await session.server.gets("GET")
    assert seen.all("accept") == ["text/event-stream"]
    assert seen.all("accept-encoding") == ["identity"]


@pytest.mark.parametrize("is_modern", [True, False])
async def test_the_servers_own_headers_stay_at_the_proxy(session: Stand, is_modern: bool) -> None:
    @session.server.on("tools/list")
    async def answer(call: Call) -> None:
        call.headers.update(
            {
                "Set-Cookie": "a=b",
                "Mcp-Session-Id": "theirs",
                "WWW-Authenticate": "Bearer",
                "X-Powered-By": "x",
                "Server": "x",
            }
        )
        await call.result({"tools": []})

    client = session.client
    reply = await (client.ask("tools/list") if is_modern else client.begin("tools/list"))
    assert reply.status == 200
    for name in ("set-cookie", "www-authenticate", "x-powered-by", "server"):
        assert name not in reply.headers
    assert reply.headers.get("mcp-session-id") == (None if is_modern else client.session_id)


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])
async def test_the_version_header_of_the_upstream_hop(rig: Stand, version: str) -> None:
    """Never on initialize, and after it where the negotiated version has that header."""
    await rig.client.initialize(version)
    await rig.client.call()
    await rig.client.delete()
    first, *later = rig.server.requests
    assert first.get("mcp-protocol-version") is None
    assert first.get("mcp-session-id") is None
    has_header = version in ("2025-11-25", "2025-06-18")
    for seen in later:
        assert seen.get("mcp-protocol-version") == (version if has_header else None)
        assert seen.get("mcp-session-id") == "up-a-1"


@pytest.mark.parametrize("answers_json", [True, False])
async def test_event_streams_are_marked_not_to_be_held_back(rig: Stand, answers_json: bool) -> None:
    rig.server.answers_json = answers_json
    await rig.client.initialize()
    reply = await rig.client.begin("tools/list")
    assert reply.is_stream is not answers_json
    if reply.is_stream:
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"

"""Which era a message belongs to, and the refusal of what belongs to none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig.cases import case, refused
from tests.rig.client import ACCEPT, JSON, Client, envelope, modern, routing, rpc
from tests.rig.server import CC, LEGACY, MODERN, PV, Call
from tests.rig.stand import Stand

VERSION = "MCP-Protocol-Version"
OTHER = "2025-11-25"
NAMELESS: dict[str, Any] = {PV: MODERN}


def listing(meta: Any = None, id: Any = 7) -> dict[str, Any]:
    return rpc("tools/list", {} if meta is None else {"_meta": meta}, id)


REFUSED = [
    case("C02", listing(), [(VERSION, MODERN)], 400, -32602),
    case("C02", rpc("initialize", {}, 7), [(VERSION, MODERN)], 400, -32602, note="initialize"),
    case("C03", listing({PV: MODERN}), routing("tools/list"), 400, -32602),
    case("C04", listing(envelope()), [], 400, -32020),
    case("C04", listing(envelope(OTHER)), [], 400, -32020, note="legacy version"),
    case("C05", listing(envelope(OTHER)), [(VERSION, MODERN)], 400, -32020),
    case("C05", listing(envelope()), [(VERSION, OTHER)], 400, -32020, note="the other way"),
    case("C05", listing({PV: 7, CC: {}}), [(VERSION, MODERN)], 400, -32020, note="no string"),
    case("C06", listing(envelope("v999.0.0")), routing("tools/list", version="v999.0.0"), 400, -32022),
    case("C06", listing(), [(VERSION, "v999.0.0")], 400, -32022, note="header alone"),
    case("C07", listing(envelope(OTHER)), routing("tools/list", version=OTHER), 400, -32022),
]


@pytest.mark.parametrize(("message", "fields", "status", "code"), REFUSED)
async def test_a_request_of_no_era_is_refused(
    rig: Stand, message: Any, fields: list[tuple[str, str]], status: int, code: int
) -> None:
    await refused(await rig.client.post(message, *fields), status, code, 7)
    assert rig.server.requests == []


@pytest.mark.case("C02")
async def test_what_is_missing_of_the_envelope_is_named(rig: Stand) -> None:
    error = await refused(await rig.client.post(listing(), (VERSION, MODERN)), 400, -32602, 7)
    assert PV in error["message"]
    assert CC in error["message"]
    error = await refused(await rig.client.post(listing({CC: {}}), (VERSION, MODERN)), 400, -32602, 7)
    assert PV in error["message"]
    assert CC not in error["message"]


@pytest.mark.case("C06")
async def test_an_unsupported_version_is_told_which_are_served(rig: Stand) -> None:
    message = listing(envelope("v999.0.0"))
    reply = await rig.client.post(message, *routing("tools/list", version="v999.0.0"))
    error = await refused(reply, 400, -32022, 7)
    assert error["data"]["requested"] == "v999.0.0"
    discovered = await (await rig.client.ask("server/discover")).json()
    assert set(error["data"]["supported"]) <= set(discovered["result"]["supportedVersions"])


@pytest.mark.case("C01")
@pytest.mark.parametrize("version", LEGACY)
async def test_initialize_opens_a_session(rig: Stand, version: str) -> None:
    result = await rig.client.initialize(version)
    assert result["protocolVersion"] == version
    assert rig.client.session_id is not None
    assert all(0x21 <= ord(letter) <= 0x7E for letter in rig.client.session_id)
    assert len(rig.client.session_id) * 4 >= 128
    assert rig.client.session_id not in rig.server.sessions


@pytest.mark.case("C08")
@pytest.mark.parametrize(
    "method", ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"]
)
async def test_what_the_modern_era_no_longer_has(rig: Stand, method: str) -> None:
    await refused(await rig.client.ask(method, id="x"), 404, -32601, "x")
    assert rig.server.requests == []


@pytest.mark.case("C09")
async def test_client_info_is_optional(rig: Stand) -> None:
    reply = await rig.client.ask("tools/list", id=7)
    assert reply.status == 200
    assert (await reply.json())["id"] == 7


@pytest.mark.case("C10")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_modern_era_is_post_only(rig: Stand, method: str) -> None:
    reply = await rig.client.request(method, [("Accept", "text/event-stream"), (VERSION, MODERN)])
    assert reply.status == 405
    assert reply.headers["allow"] == "POST"
    assert rig.server.requests == []


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_other_methods_are_not_allowed(rig: Stand, method: str) -> None:
    reply = await rig.client.request(method, [ACCEPT, JSON], b"{}")
    assert reply.status == 405
    assert {"GET", "POST", "DELETE"} <= set(reply.headers["allow"].split(", "))
    assert rig.server.requests == []


@pytest.mark.case("C11")
async def test_a_modern_request_has_no_session(rig: Stand) -> None:
    more = (("Mcp-Session-Id", "x"), ("Last-Event-ID", "y"))
    reply = await rig.client.ask("tools/list", {}, *more)
    assert reply.status == 200
    assert "mcp-session-id" not in reply.headers
    [seen] = rig.server.requests
    assert seen.get("mcp-session-id") is None
    assert seen.get("last-event-id") is None


@pytest.mark.parametrize(
    "message",
    [
        case("C12", {"jsonrpc": "2.0", "id": 7, "result": {}}, note="result"),
        case("C12", {"jsonrpc": "2.0", "id": 7, "error": {"code": 1, "message": ""}}, note="error"),
        case("C12", [modern("tools/list")], note="array"),
    ],
)
async def test_a_modern_body_is_one_request_or_notification(rig: Stand, message: Any) -> None:
    await refused(await rig.client.post(message, *routing("tools/list")), 400, -32600)
    assert rig.server.requests == []


@pytest.mark.case("C12")
async def test_a_modern_message_in_an_array_is_refused_without_its_header_too(session: Stand) -> None:
    await refused(await session.client.send([modern("tools/list")]), 400, -32600)
    assert session.server.requests == []


@pytest.mark.case("C13")
@pytest.mark.parametrize("meta", [None, envelope()])
async def test_a_modern_notification_is_accepted_and_goes_nowhere(rig: Stand, meta: Any) -> None:
    message = rpc("notifications/cancelled", {"requestId": 1} | ({"_meta": meta} if meta else {}))
    reply = await rig.client.post(message, (VERSION, MODERN))
    assert (reply.status, await reply.body()) == (202, b"")
    assert rig.server.requests == []


@pytest.mark.case("C13")
async def test_a_modern_notification_of_an_unknown_version_is_refused(rig: Stand) -> None:
    message = rpc("notifications/cancelled", {"requestId": 1, "_meta": envelope("v999.0.0")})
    await refused(await rig.client.post(message, (VERSION, "v999.0.0")), 400, -32022)
    assert rig.server.requests == []


@pytest.mark.case("C14")
async def test_initialize_cannot_agree_on_a_modern_version(rig: Stand) -> None:
    result = await rig.client.initialize(MODERN)
    assert result["protocolVersion"] == "2025-11-25"
    [opened, _] = rig.server.requests
    assert opened.json["params"]["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        case("C15", b"{", [], note="cut off"),
        case("C15", b"", [], note="empty"),
        case("C15", b"hello", [], note="text"),
        case("C15", b"[", [], note="array"),
        case("C15", b"[", [(VERSION, MODERN)], note="modern array"),
        case("C15", b"{}}", [(VERSION, MODERN)], note="modern"),
    ],
)
async def test_a_body_that_is_no_json(rig: Stand, body: bytes, fields: list[tuple[str, str]]) -> None:
    await refused(await rig.client.post(body, *fields), 400, -32700)
    assert rig.server.requests == []


@pytest.mark.parametrize(
    "accept",
    [
        case("C16", "application/json", note="json"),
        case("C16", "text/event-stream", note="events"),
        case("C16", "text/html", note="html"),
        case("C16", "application/jsonx, text/event-stream", note="jsonx"),
        case("C16", None, note="none"),
    ],
)
@pytest.mark.parametrize("is_modern", [True, False])
async def test_both_kinds_of_answer_must_be_acceptable(
    session: Stand, accept: str | None, is_modern: bool
) -> None:
    plain = [JSON] if accept is None else [JSON, ("Accept", accept)]
    message = modern("tools/list", id=7) if is_modern else rpc("tools/list", {}, 7)
    fields = routing("tools/list") if is_modern else session.client.in_session()
    await refused(await session.client.post(message, *fields, plain=plain), 406, -32600, 7)
    assert session.server.requests == []


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*, text/*", "text/event-stream;q=0.5, application/json"]
)
async def test_ranges_and_parameters_of_accept_count(session: Stand, accept: str) -> None:
    plain = [("Content-Type", "Application/JSON; charset=utf-8"), ("Accept", accept)]
    client = session.client
    reply = await client.post(rpc("tools/list", {}, 7), *client.in_session(), plain=plain)
    assert reply.status == 200


def _with_version(client: Client, version: str) -> list[tuple[str, str]]:
    assert client.session_id is not None
    return [("Mcp-Session-Id", client.session_id), (VERSION, version)]


@pytest.mark.case("C17")
async def test_a_session_is_not_served_in_an_unknown_version(session: Stand) -> None:
    client = session.client
    fields = _with_version(client, "1999-01-01")
    error = await refused(await client.post(rpc("tools/list", {}, 7), *fields), 400, -32022, 7)
    assert error["data"]["requested"] == "1999-01-01"
    for message in (rpc("notifications/initialized"), {"jsonrpc": "2.0", "id": 1, "result": {}}):
        await refused(await client.post(message, *fields), 400, -32600)
    for method in ("GET", "DELETE"):
        reply = await client.request(method, [("Accept", "text/event-stream"), *fields])
        await refused(reply, 400, -32600)
    assert session.server.requests == []
    assert (await client.call())["id"] == 1


@pytest.mark.parametrize("version", [case("C18", None, note="none"), "2025-03-26"])
async def test_the_session_knows_its_version(session: Stand, version: str | None) -> None:
    """The header may be missing, or name another legacy version: what counts was negotiated."""
    client = session.client
    assert client.session_id is not None
    fields = [("Mcp-Session-Id", client.session_id)]
    if version is not None:
        fields.append((VERSION, version))
    reply = await client.post(rpc("tools/list", {}, 7), *fields)
    assert (reply.status, (await reply.json())["id"]) == (200, 7)
    [seen] = session.server.requests
    assert seen.get(VERSION) == "2025-11-25"


@pytest.mark.case("LL07")
async def test_each_era_reaches_a_server_of_both_in_its_own(rig: Stand) -> None:
    await rig.client.initialize()
    await rig.client.call()
    await (await rig.client.ask("tools/call", {"name": "t"})).json()
    opened, _, legacy, stateless = rig.server.requests
    assert opened.rpc == "initialize"
    assert "_meta" not in legacy.json["params"]
    assert stateless.json["params"]["_meta"][PV] == MODERN
    assert [seen.rpc for seen in rig.server.requests].count("server/discover") == 0


@pytest.mark.case("MS05")
async def test_a_modern_refusal_without_an_id_gets_the_requests(rig: Stand) -> None:
    @rig.server.on("tools/list")
    async def refuse(call: Call) -> None:
        error = {"code": -32020, "message": "Header mismatch"}
        await call.json({"jsonrpc": "2.0", "id": None, "error": error}, 400)

    reply = await rig.client.ask("tools/list", id="mine")
    await refused(reply, 400, -32020, "mine")

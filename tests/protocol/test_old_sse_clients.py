"""Clients of the 2024-11-05 transport, HTTP+SSE, before servers that speak Streamable HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.app import proxy as app
from shadowcat.downstream import sse_stream
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.http.limits import ServerLimits
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.registry import LEAST_S
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import Phase, SessionLimits
from shadowcat.stores.sqlite import SqliteStore
from tests.rig.cases import refused
from tests.rig.children import text, tool
from tests.rig.client import JSON, client_of, modern, rpc
from tests.rig.old_client import ACCEPT_STREAM, OldClient, old_client_of
from tests.rig.server import Call, McpServer, holding, mcp_server
from tests.rig.wait import happens, soon, until


@dataclass(eq=False)
class Rig:
    server: McpServer
    proxy: ReverseProxy
    client: OldClient


@asynccontextmanager
async def before(script: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Rig]:
    async with (
        mcp_server(**(script or {})) as server,
        ReverseProxy({"a": server.url}, port=0, **options) as proxy,
        old_client_of(proxy.port) as client,
    ):
        yield Rig(server, proxy, client)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with before() as found:
        yield found


@pytest.fixture
async def session(rig: Rig) -> Rig:
    await rig.client.initialize()
    await rig.server.listens()
    return rig


# A session.


@pytest.mark.case("LL01")
async def test_a_client_reaches_a_streamable_server(rig: Rig) -> None:
    assert rig.client.endpoint.startswith("/sse/messages?sessionId=")
    result = await rig.client.initialize()
    assert result["protocolVersion"] == "2024-11-05"
    [upstream_id] = rig.server.sessions
    assert upstream_id not in rig.client.endpoint
    answer = await rig.client.call("tools/call", tool("t"), "mine")
    assert text(answer) == "fixture"
    assert [seen.get("mcp-session-id") for seen in rig.server.got("tools/call")] == [upstream_id]
    assert (await rig.server.gets("GET")).get("mcp-session-id") == upstream_id
    rig.client.stream.close()
    deleted = await rig.server.gets("DELETE")
    assert deleted.get("mcp-session-id") == upstream_id
    await until(lambda: not len(rig.proxy.relay.sessions) and not len(rig.proxy.old_clients))


@pytest.mark.parametrize("answers_json", [True, False], ids=["json", "stream"])
@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_version_with_sessions(version: str, answers_json: bool) -> None:
    async with before({"answers_json": answers_json}) as rig:
        assert (await rig.client.initialize(version))["protocolVersion"] == version
        for id in (1, "1", "x"):
            answer = await rig.client.call("tools/call", tool("t"), id)
            assert type(answer["id"]) is type(id)
            assert text(answer) == "fixture"


async def test_what_comes_before_the_answer_comes_before_it(session: Rig) -> None:
    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        stream = await call.stream()
        for step in range(50):
            await stream.notify("notifications/progress", {"progressToken": call.token, "progress": step})
        await stream.send(call.response({"content": []}))
        await stream.end()

    await session.client.ask("tools/call", tool("t", token="mine"), 7)
    got = [await session.client.message() for _ in range(51)]
    assert [message["params"]["progress"] for message in got[:-1]] == list(range(50))
    assert {message["params"]["progressToken"] for message in got[:-1]} == {"mine"}
    assert (got[-1]["id"], got[-1]["result"]) == (7, {"content": []})


async def test_a_question_is_answered(session: Rig) -> None:
    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        stream = await call.stream()
        await stream.request("q", "roots/list")
        answer = (await call.answered("q")).json
        await stream.send(call.response({"content": [], "roots": answer["result"]["roots"]}))
        await stream.end()

    await session.client.ask("tools/call", tool("t"))
    question = await session.client.message()
    assert question["method"] == "roots/list"
    await session.client.accepted({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
    assert (await session.client.message())["result"]["roots"] == []


async def test_what_answers_nothing_comes_on_the_same_stream(session: Rig) -> None:
    upstream = await session.server.listens()
    await upstream.notify("notifications/tools/list_changed")
    assert (await session.client.message())["method"] == "notifications/tools/list_changed"
    assert "result" in await session.client.call("tools/list")
    # Said twice, it changes nothing.
    await session.client.notify("notifications/initialized")
    await upstream.notify("notifications/prompts/list_changed")
    assert (await session.client.message())["method"] == "notifications/prompts/list_changed"


async def test_a_long_call_holds_up_nothing(session: Rig) -> None:
    release = asyncio.Event()

    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        await release.wait()
        await call.result({"content": []})

    await session.client.ask("tools/call", tool("t"), "long")
    assert (await session.client.call("tools/list", id="short"))["id"] == "short"
    release.set()
    assert (await session.client.message())["id"] == "long"


async def test_a_cancelled_request_is_not_answered(session: Rig) -> None:
    release = asyncio.Event()

    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        await release.wait()
        await call.result({"content": []})

    await session.client.ask("tools/call", tool("t"), 1)
    await session.client.notify("notifications/cancelled", {"requestId": 1})
    await session.server.gets("notifications/cancelled")
    release.set()
    assert (await session.client.call("tools/list", id=2))["id"] == 2


@pytest.mark.parametrize("version", ["2024-11-05", "2025-11-25"])
async def test_a_cancellation_right_behind_its_request(version: str) -> None:
    limits = SessionLimits(upgrade_after_s=60.0)
    async with before(session_limits=limits) as rig:
        await rig.client.initialize(version)

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            await happens(call.seen.dropped)

        cancellation = rpc("notifications/cancelled", {"requestId": 1})
        replies = await rig.client.http.post_together(
            rpc("tools/call", tool("t"), 1), cancellation, path=rig.client.endpoint
        )
        assert [reply.status for reply in replies] == [202, 202]
        assert (await rig.client.call("tools/list", id=2))["id"] == 2
        [session] = rig.proxy.relay.sessions
        await until(lambda: session.core.correlator.is_idle, within_s=5.0)
        heard = [seen.rpc for seen in rig.server.requests]
        assert "tools/call" not in heard or "notifications/cancelled" in heard[heard.index("tools/call") :]


async def test_two_clients_hear_their_own(session: Rig) -> None:
    async with old_client_of(session.proxy.port) as other:
        await other.initialize()
        assert other.endpoint != session.client.endpoint
        first, second = await session.server.listens(1), await session.server.listens(2)
        await second.notify("notifications/message", {"level": "info", "data": "other"})
        await first.notify("notifications/message", {"level": "info", "data": "mine"})
        assert (await session.client.message())["params"]["data"] == "mine"
        assert (await other.message())["params"]["data"] == "other"


async def test_a_batch_is_answered_on_the_stream(rig: Rig) -> None:
    await rig.client.initialize("2025-03-26")
    await rig.client.accepted([rpc("tools/list", {}, 1), rpc("notifications/x"), rpc("tools/list", {}, 2), 5])
    got = [await rig.client.message() for _ in range(3)]
    assert sorted(str(message.get("id")) for message in got) == ["1", "2", "None"]
    await rig.client.accepted([rpc("notifications/x"), rpc("notifications/x")])
    await rig.server.gets("notifications/x", 3)
    assert (await rig.client.call("tools/list", id=3))["id"] == 3


async def test_a_lost_upstream_session_is_opened_again(session: Rig) -> None:
    session.server.restart()
    await session.client.ask("tools/call", tool("t"), 5)
    async with soon():
        while (message := await session.client.message()).get("id") != 5:
            assert message["method"].endswith("list_changed")
    assert text(message) == "fixture"


async def test_errors_are_told_on_the_stream(session: Rig) -> None:
    await session.server.listener.close()
    error = (await session.client.call("tools/call", tool("t"), 9))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31005, "connection_refused")


async def test_initialize_may_be_tried_again(rig: Rig) -> None:
    @rig.server.on("initialize")
    async def _(call: Call) -> None:
        await call.error(-32602, "Unsupported protocol version")

    assert (await rig.client.call("initialize", {}, 1))["error"]["code"] == -32602
    assert (await rig.client.post(rpc("tools/list", {}, 2))).status == 400
    del rig.server.handlers["initialize"]
    await rig.client.initialize()
    await refused(await rig.client.post(rpc("initialize", {}, 3)), 400, -32600, 3)


async def test_messages_may_be_posted_before_the_answer_to_initialize(rig: Rig) -> None:
    params = {
        "protocolVersion": "2024-11-05",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(rig.client.accepted(rpc("initialize", params, 0)))
        await until(lambda: rig.server.got("initialize"))
        tasks.create_task(rig.client.accepted(rpc("notifications/initialized")))
    assert (await rig.client.message())["id"] == 0
    await rig.server.gets("notifications/initialized")


# Bad input.


@pytest.mark.parametrize(
    ("body", "code", "id"),
    [
        (b"{", -32700, None),
        (b"", -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', -32600, 7),
        (b"[]", -32600, None),
        (b"[1", -32700, None),
        (json.dumps([rpc("tools/list", {}, 1)]).encode(), -32600, None),
        (json.dumps(modern("tools/list", id=4)).encode(), -32020, 4),
    ],
)
async def test_what_is_no_message_is_refused(session: Rig, body: bytes, code: int, id: Any) -> None:
    await refused(await session.client.post(body), 400, code, id)
    assert "result" in await session.client.call("tools/list")


async def test_modern_messages_have_no_place(session: Rig) -> None:
    version = ("MCP-Protocol-Version", "2026-07-28")
    await refused(await session.client.post(modern("tools/list", id=4), version), 400, -32600, 4)
    legacy = ("MCP-Protocol-Version", "2025-06-18")
    assert (await session.client.post(rpc("tools/list", {}, 5), legacy)).status == 202


async def test_nothing_comes_before_initialize(rig: Rig) -> None:
    for message, id in ((rpc("tools/list", {}, 1), 1), (rpc("notifications/initialized"), None)):
        await refused(await rig.client.post(message), 400, -32600, id)
    assert rig.server.requests == []


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("", 400, "session_id_missing"),
        ("?session_id=x", 400, "session_id_missing"),
        ("?sessionId=", 400, "session_id_malformed"),
        ("?sessionId=x", 400, "session_id_malformed"),
        (f"?sessionId={32 * 'a'}&sessionId={32 * 'a'}", 400, "session_id_malformed"),
        ("?" + 20 * "a=1&", 400, "session_id_malformed"),
        (f"?sessionId={32 * 'a'}", 404, "session_unknown"),
    ],
)
async def test_a_message_names_its_session(session: Rig, query: str, status: int, reason: str) -> None:
    session.client.endpoint = f"/sse/messages{query}"
    error = await refused(await session.client.post(rpc("tools/list", {}, 1)), status, -32600, 1)
    assert error["data"]["reason"] == reason


async def test_a_session_of_the_other_endpoint_is_none_here(session: Rig) -> None:
    """Neither knows the ids of the other."""
    async with client_of(session.proxy.port) as client:
        await client.initialize()
        session.client.endpoint = f"/sse/messages?sessionId={client.session_id}"
        await refused(await session.client.post(rpc("tools/list", {}, 1)), 404, -32600, 1)
        [old] = [one for one in session.proxy.relay.sessions if one.id != client.session_id]
        client.session_id = old.id
        assert (await client.begin("tools/list", {})).status == 404


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "/sse", [("Accept", "application/json")], 406),
        ("GET", "/sse", [], 406),
        ("POST", "/sse", [JSON], 405),
        ("DELETE", "/sse", [], 405),
        ("GET", "/sse/messages", [ACCEPT_STREAM], 405),
        ("GET", "/sse/", [ACCEPT_STREAM], 404),
        ("GET", "/sse/other", [ACCEPT_STREAM], 404),
        ("GET", "/sse", [ACCEPT_STREAM, ("Origin", "https://evil.example")], 403),
        ("GET", "/sse", [ACCEPT_STREAM, ("Host", "evil.example")], 403),
        ("POST", "/sse/messages", [JSON, ("Origin", "https://evil.example")], 403),
        ("POST", "/sse/messages", [("Content-Type", "text/plain")], 415),
        ("OPTIONS", "/sse", [], 405),
    ],
)
async def test_what_http_asks_of_it(
    rig: Rig, method: str, path: str, fields: list[tuple[str, str]], status: int
) -> None:
    body = b"{}" if method == "POST" else None
    reply = await rig.client.http.request(method, fields, body, path)
    assert reply.status == status
    if status == 405:
        assert ("POST" if "messages" in path else "GET") in reply.headers["allow"]


async def test_a_page_of_this_machine_may_use_it(rig: Rig) -> None:
    page = ("Origin", "http://localhost:5173")
    for path, allowed in (("/sse", "GET"), ("/sse/messages", "POST")):
        reply = await rig.client.http.request("OPTIONS", [page], path=path)
        assert reply.status == 204
        assert allowed in reply.headers["access-control-allow-methods"]
        assert reply.headers["access-control-allow-origin"] == page[1]
    reply = await rig.client.http.request("GET", [ACCEPT_STREAM, page])
    assert reply.headers["access-control-allow-origin"] == page[1]


async def test_a_large_message_is_refused() -> None:
    async with before(server_limits=ServerLimits(body_bytes=1000)) as rig:
        await rig.client.initialize()
        assert (await rig.client.post(rpc("tools/call", tool("t", x=2000 * "x"), 1))).status == 413
        assert "result" in await rig.client.call("tools/list")


async def test_the_path_can_be_chosen() -> None:
    async with (
        mcp_server() as server,
        ReverseProxy({"a": server.url}, port=0, endpoint=EndpointOptions(sse_path="/a/b/")) as proxy,
        old_client_of(proxy.port, "/a/b/") as client,
    ):
        assert client.endpoint.startswith("/a/b/messages?")
        await client.initialize()
    with pytest.raises(ValueError, match="get in each other's way"):
        EndpointOptions(sse_path="/mcp")


# Limits.


async def test_streams_are_bounded_in_number() -> None:
    async with before(session_limits=SessionLimits(max_sessions=2)) as rig:
        async with old_client_of(rig.proxy.port), old_client_of(rig.proxy.port, connected=False) as third:
            reply = await third.http.request("GET", [ACCEPT_STREAM])
            error = await refused(reply, 503, -31002)
            assert error["data"]["reason"] == "too_many_sessions"
        await until(lambda: len(rig.proxy.old_clients) == 1)
        async with old_client_of(rig.proxy.port) as third:
            await third.initialize()


async def test_a_stream_without_a_session_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_stream, "OPEN_S", 0.05)
    async with before() as rig:
        await rig.client.ends()
        async with old_client_of(rig.proxy.port) as other:
            await other.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}}, 0)
            assert (await other.message())["id"] == 0
            assert "result" in await other.call("tools/list")


async def test_requests_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_stream, "MAX_RUNNING", 2)
    async with before() as rig:
        release = asyncio.Event()

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            await release.wait()
            await call.result({"content": []})

        await rig.client.initialize()
        for id in (1, 2):
            await rig.client.ask("tools/call", tool("t"), id)
        error = await refused(await rig.client.post(rpc("tools/call", tool("t"), 3)), 503, -31002, 3)
        assert error["data"]["reason"] == "too_many_requests_in_flight"
        release.set()
        assert {(await rig.client.message())["id"] for _ in range(2)} == {1, 2}


async def test_a_silent_stream_is_kept_alive() -> None:
    async with before(
        endpoint=EndpointOptions(keepalive_s=0.05), server_limits=ServerLimits(idle_s=0.2)
    ) as rig:
        piece = b""
        async with soon():
            while b": keepalive" not in piece:
                piece = await rig.client.stream._piece()


async def test_a_client_that_does_not_read_is_closed_and_its_session_ended() -> None:
    async with before(server_limits=ServerLimits(stall_s=0.3)) as rig:
        flooding = asyncio.Event()

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            flooding.set()
            while not call.seen.dropped.is_set():
                await stream.notify("notifications/message", {"level": "info", "data": 60_000 * "x"})

        await rig.client.initialize()
        rig.client.stream._writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        await rig.client.ask("tools/call", tool("t"))
        await rig.server.gets("DELETE")
        assert flooding.is_set()
        assert rig.proxy.server.statistics().slow_closed == 1
        await until(lambda: not len(rig.proxy.relay.sessions))


# The end.


async def test_a_client_that_goes_away_cancels_what_runs(session: Rig) -> None:
    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/message", {"level": "info", "data": "begun"})
        await call.seen.dropped.wait()

    await session.client.ask("tools/call", tool("t"))
    assert (await session.client.message())["params"]["data"] == "begun"
    asked = session.server.got("tools/call")[0].json
    session.client.stream.cut()
    cancelled = await session.server.gets("notifications/cancelled")
    assert cancelled.json["params"]["requestId"] == asked["id"]
    await session.server.gets("DELETE")
    reply = await session.client.post(rpc("tools/list", {}, 1))
    assert reply.status == 404


async def test_a_client_that_goes_away_while_it_opens_leaves_nothing(rig: Rig) -> None:
    release = asyncio.Event()

    @rig.server.on("initialize")
    async def _(call: Call) -> None:
        await release.wait()
        await rig.server.initialize(call)

    await rig.client.ask("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}}, 0)
    await rig.server.gets("initialize")
    rig.client.stream.cut()
    await until(lambda: not len(rig.proxy.old_clients))
    release.set()
    await rig.server.gets("DELETE")
    await until(lambda: not len(rig.proxy.relay.sessions))


async def test_a_session_that_is_ended_elsewhere_ends_the_stream(session: Rig) -> None:
    [live] = session.proxy.relay.sessions
    await session.proxy.relay.end(live)
    await session.client.ends()


@pytest.mark.parametrize("begins", [True, False])
async def test_who_calls_in_a_session_that_is_ended_elsewhere_is_told_first(
    session: Rig, begins: bool
) -> None:
    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        if begins:
            await (await call.stream()).notify("notifications/message", {"level": "info", "data": 1})
        await call.seen.dropped.wait()

    await session.client.ask("tools/call", tool("t"), 1)
    await session.server.gets("tools/call")
    if begins:
        assert (await session.client.message())["params"]["data"] == 1
    [live] = session.proxy.relay.sessions
    await session.proxy.relay.end(live)
    told = await session.client.message()
    assert (told["id"], told["error"]["data"]["reason"]) == (1, "session_ended")
    await session.client.ends()


async def test_a_session_that_cannot_go_on_ends_the_stream(session: Rig) -> None:
    session.server.restart()
    session.server.capabilities = {}
    await session.client.ask("tools/call", tool("t"), 1)
    assert (await session.client.message())["error"]["data"]["reason"] == "session_unknown"
    await session.client.ends()


async def test_a_drain_lets_a_call_finish_and_then_ends_the_stream(session: Rig) -> None:
    release = asyncio.Event()

    @session.server.on("tools/call")
    async def _(call: Call) -> None:
        await release.wait()
        await call.result({"content": []})

    async with old_client_of(session.proxy.port) as idle:
        await idle.initialize()
        await session.client.ask("tools/call", tool("t"), 1)
        await session.server.gets("tools/call")
        draining = asyncio.create_task(session.proxy.drain(20))
        await idle.ends()
        release.set()
        assert (await session.client.message())["id"] == 1
        await session.client.ends()
        async with soon(10):
            await draining
    assert len(session.server.got("DELETE")) == 2


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_drain_lets_an_initialize_finish_too(rig: Rig, is_answered: bool) -> None:
    released = asyncio.Event()
    if is_answered:
        rig.server.handlers["initialize"] = holding(released, rig.server.initialize)
    else:
        rig.server.handlers["initialize"] = lambda call: happens(call.seen.dropped)
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
    await rig.client.ask("initialize", params, 1)
    await rig.server.gets("initialize")
    draining = asyncio.create_task(rig.proxy.drain(20 if is_answered else 0.1))
    await until(lambda: rig.proxy.shared.phase is Phase.DRAINING)
    released.set()
    answer = await rig.client.message()
    assert answer["id"] == 1
    if is_answered:
        assert answer["result"]["protocolVersion"] == "2024-11-05"
    else:
        assert answer["error"]["data"]["reason"] == "proxy_stopped"
    await rig.client.ends()
    async with soon(10):
        await draining


async def test_who_begins_to_listen_as_the_proxy_closes_is_not_listened_for_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, listened = Session.listen, 0

    async def counted(session: Session, last_event_id: bytes | None) -> Reader | None:
        nonlocal listened
        listened += 1
        # In one turn of the loop it would go on for ever.
        assert listened < 10
        return await listen(session, last_event_id)

    monkeypatch.setattr(Session, "listen", counted)
    params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
    await rig.client.call("initialize", params)
    rig.proxy.shared.phase = Phase.DRAINING
    await rig.client.notify("notifications/initialized")
    async with soon(10):
        await rig.proxy.aclose()
    assert listened == 1


async def test_a_client_whose_server_hangs_leaves_the_store_its_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_REST_S", LEAST_S + 0.1)
    async with (
        before(store=SqliteStore(tmp_path / "store")) as rig,
        client_of(rig.proxy.port) as other,
    ):
        await other.initialize()
        rig.server.handlers["initialize"] = lambda call: happens(call.seen.dropped)
        params = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
        await rig.client.ask("initialize", params)
        await rig.server.gets("initialize", 2)
        async with soon():
            await rig.proxy.drain(0)
    assert not [record.message for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("turns", range(8))
async def test_a_drain_may_begin_while_a_client_goes_away(session: Rig, turns: int) -> None:
    """In whichever turn of the loop: its stream is none of those that are told of the drain then."""
    session.client.stream.close()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with soon(10):
        await session.proxy.drain(5)
    assert len(session.server.got("DELETE")) == 1

"""Servers of the 2024-11-05 transport, HTTP+SSE, behind the proxy's endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.upstream.fallback import UrlUpstream
from tests.rig.children import text, tool
from tests.rig.client import Client, client_of, rpc
from tests.rig.old_server import OldCall, OldServer, old_server
from tests.rig.server import mcp_server
from tests.rig.wait import soon, until
from tests.rig.wire import Seen


@dataclass(eq=False)
class Rig:
    server: OldServer
    proxy: ReverseProxy
    client: Client

    @property
    def upstream(self) -> UrlUpstream:
        found = self.proxy.shared.upstreams.named("old")
        assert isinstance(found, UrlUpstream)
        return found


@asynccontextmanager
async def behind(**script: Any) -> AsyncIterator[Rig]:
    options = script.pop("options", {})
    async with (
        old_server(**script) as server,
        ReverseProxy({"old": server.url}, port=0, **options) as proxy,
        client_of(proxy.port) as client,
    ):
        yield Rig(server, proxy, client)
        left = list(server.sessions.values())
    for session in left:
        await server.is_left_by(session)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with behind() as found:
        yield found


@pytest.fixture
async def session(rig: Rig) -> Rig:
    await rig.client.initialize()
    return rig


async def test_no_two_sessions_share_the_id_of_a_request(rig: Rig) -> None:
    async with client_of(rig.proxy.port) as other:
        for client in (rig.client, other):
            await client.initialize()
            await client.call()
    assert len({message["id"] for message in rig.server.got("tools/call")}) == 2


async def answers(client: Client) -> None:
    """A session that was lost is not opened again within a second of the last time."""
    async with soon():
        while "result" not in await client.call(params=tool("t")):  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.05)


# A session.


@pytest.mark.case("LL02")
async def test_a_streamable_client_reaches_it(rig: Rig) -> None:
    @rig.server.on("tools/call")
    async def _(call: OldCall) -> None:
        for step in (1, 2):
            await call.session.notify(
                "notifications/progress", {"progressToken": call.token, "progress": step}
            )
        await call.result({"content": []})

    result = await rig.client.initialize()
    assert result["serverInfo"]["name"] == "old"
    assert rig.client.session_id
    assert rig.server.last.id not in rig.client.session_id
    reply = await rig.client.begin("tools/call", tool("t", token="mine"), 7)
    assert reply.is_stream
    *steps, answer = await reply.messages()
    assert [step["params"] for step in steps] == [
        {"progressToken": "mine", "progress": 1},
        {"progressToken": "mine", "progress": 2},
    ]
    assert (answer["id"], answer["result"]) == (7, {"content": []})


async def test_the_server_is_asked_in_its_own_way_from_then_on(session: Rig) -> None:
    async with client_of(session.proxy.port) as other:
        await other.initialize()
    posts = [seen for seen in session.server.requests if seen.method == "POST" and seen.target == "/sse"]
    assert len(posts) == 1


async def test_each_session_has_a_stream_which_ends_with_it(session: Rig) -> None:
    async with client_of(session.proxy.port) as other:
        await other.initialize()
        first, second = session.server.opened
        assert (await other.delete()).status == 200
        await session.server.is_left_by(second)
        assert not first.over.is_set()
        assert text(await session.client.call(params=tool("t")))
    await until(lambda: session.upstream.sse.sessions == 1)


async def test_answers_find_their_askers(session: Rig) -> None:
    waiting: list[OldCall] = []

    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        waiting.append(call)
        if len(waiting) == 20:
            for one in reversed(waiting):
                await one.result({"content": [{"type": "text", "text": one.params["name"]}]})

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(session.client.call(params=tool(str(n)), id=n)) for n in range(20)]
    assert [(answer.result()["id"], text(answer.result())) for answer in asked] == [
        (n, str(n)) for n in range(20)
    ]


async def test_a_question_comes_on_the_stream_of_the_one_call_that_runs(session: Rig) -> None:
    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        await call.session.request("q", "roots/list")
        answer = await session.server.answer_to("q")
        await call.result({"content": [{"type": "text", "text": answer["result"]["roots"][0]["uri"]}]})

    reply = await session.client.begin("tools/call", tool("t"), 1)
    question = await reply.message()
    assert question["method"] == "roots/list"
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": [{"uri": "file:///x"}]}}
    assert (await session.client.send(answer)).status == 202
    assert text(await reply.message()) == "file:///x"


async def test_an_answer_that_was_not_taken_is_given_again(session: Rig) -> None:
    refused: list[Any] = []

    async def refuse_once(seen: Seen) -> bool:
        if "method" in seen.json or refused:
            return False
        refused.append(seen.json)
        seen.cut()
        return True

    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        await call.session.request("q", "roots/list")
        answer = await session.server.answer_to("q")
        await call.result({"content": [{"type": "text", "text": answer["result"]["roots"][0]["uri"]}]})

    session.server.on_post = refuse_once
    reply = await session.client.begin("tools/call", tool("t"), 1)
    question = await reply.message()
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": [{"uri": "file:///x"}]}}
    assert (await session.client.send(answer)).status == 202
    assert len(refused) == 1
    assert text(await reply.message()) == "file:///x"


async def test_what_belongs_to_no_call_comes_on_the_standalone_stream(session: Rig) -> None:
    stream = await session.client.listen()
    await session.server.last.notify("notifications/tools/list_changed")
    assert (await stream.message())["method"] == "notifications/tools/list_changed"


async def test_a_cancellation_names_the_request_as_the_server_knows_it(session: Rig) -> None:
    release = asyncio.Event()

    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        await release.wait()

    asking = asyncio.create_task(session.client.begin("tools/call", tool("t"), "mine"))
    asked = await session.server.gets("tools/call")
    await session.client.notify("notifications/cancelled", {"requestId": "mine"})
    cancelled = await session.server.gets("notifications/cancelled")
    assert cancelled["params"]["requestId"] == asked["id"]
    assert await (await asking).messages() == []
    release.set()


async def test_a_post_that_waits_for_its_request_holds_up_nothing(session: Rig) -> None:
    """Some servers let it wait until the answer is out; a question would never be answered then."""
    done = asyncio.Event()

    async def held(seen: Seen) -> bool:
        if seen.rpc != "tools/call":
            return False
        stream = session.server.last
        await stream.request("q", "roots/list")
        await session.server.answer_to("q")
        await stream.send({"jsonrpc": "2.0", "id": seen.json["id"], "result": {"content": []}})
        await done.wait()
        await seen.respond(202)
        return True

    session.server.on_post = held
    reply = await session.client.begin("tools/call", tool("t"), 1)
    question = await reply.message()
    await session.client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
    assert (await reply.message())["result"] == {"content": []}
    done.set()


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_any_success_is_one(status: int) -> None:
    async with behind(accepted=status) as rig:
        await rig.client.initialize()
        assert text(await rig.client.call(params=tool("t")))


# Where messages are posted.


@pytest.mark.parametrize(
    "endpoint",
    [
        "/messages?session_id={id}",
        "messages?session_id={id}",
        "http://127.0.0.1:{port}/messages?session_id={id}",
    ],
)
async def test_the_endpoint_is_a_reference(endpoint: str) -> None:
    async with behind() as rig:
        rig.server.endpoint = endpoint.replace("{port}", str(rig.server.listener.port))
        await rig.client.initialize()
        assert text(await rig.client.call(params=tool("t")))


@pytest.mark.case("A10")
@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:1/messages",
        "https://127.0.0.1:{port}/messages",
        "http://localhost:{port}/messages",
        "//example.com/messages",
        "http://user:secret@127.0.0.1:{port}/messages",
        "file:///etc/passwd",
        "http://[/messages",
        "/mess ages",
        "/m\u00e9ssages",
        "/" + 9000 * "x",
    ],
)
async def test_messages_go_to_no_other_origin(endpoint: str) -> None:
    async with behind() as rig:
        rig.server.endpoint = endpoint.replace("{port}", str(rig.server.listener.port))
        reply = await rig.client.post(rpc("initialize", {"protocolVersion": "2025-06-18"}, 0))
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (502, -31003)
        assert error["data"]["reason"] == "upstream_foreign_endpoint"
        assert [seen.target for seen in rig.server.requests if seen.method == "POST"] == ["/sse"]
        await rig.server.is_left_by(rig.server.last)


# Refusals.


async def test_a_refused_post_is_told_to_its_request_alone(session: Rig) -> None:
    async def refuse(seen: Seen) -> bool:
        if seen.rpc == "tools/call":
            await seen.respond(413, b"too large", "text/plain")
        return seen.rpc == "tools/call"

    session.server.on_post = refuse
    error = (await session.client.call(params=tool("t"), id=3))["error"]
    assert (error["code"], error["data"]["reason"]) == (-32603, "upstream_http_413")
    assert "result" in await session.client.call("tools/list", {})


async def test_a_refusal_may_be_the_answer(session: Rig) -> None:
    async def refuse(seen: Seen) -> bool:
        if seen.rpc == "tools/call":
            body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no such tool"}}'
            await seen.respond(400, body, "application/json")
        return seen.rpc == "tools/call"

    session.server.on_post = refuse
    answer = await session.client.call(params=tool("t"), id=3)
    assert (answer["id"], answer["error"]) == (3, {"code": -32602, "message": "no such tool"})


async def test_a_refused_handshake_leaves_nothing_open(rig: Rig) -> None:
    @rig.server.on("initialize")
    async def _(call: OldCall) -> None:
        error = {"code": -32602, "message": "Unsupported protocol version"}
        await call.session.send({"jsonrpc": "2.0", "id": call.id, "error": error})

    reply = await rig.client.post(rpc("initialize", {"protocolVersion": "2025-06-18"}, 0))
    assert (await reply.json())["error"]["code"] == -32602
    assert "mcp-session-id" not in reply.headers
    await rig.server.is_left_by(rig.server.last)
    await until(lambda: rig.upstream.sse.sessions == 0)


async def test_a_modern_request_hears_that_there_are_sessions_only(rig: Rig) -> None:
    for _ in range(2):
        reply = await rig.client.ask("tools/list", {})
        error = (await reply.json())["error"]
        assert (reply.status, error["code"]) == (400, -32022)
        assert error["data"]["reason"] == "upstream_has_sessions_only"
        assert "2025-11-25" in error["data"]["supported"]
    # The second did not have to be found out.
    assert [seen.method for seen in rig.server.requests] == ["POST", "GET"]


async def test_garbage_on_the_stream_costs_the_call_it_answers(session: Rig) -> None:
    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        await call.session.raw(b'data: {"jsonrpc":"2.0","id":%d,"result":}\n\n' % call.id)

    error = (await session.client.call(params=tool("t")))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31003, "upstream_sent_garbage")
    await session.server.last.raw(b"data: nonsense\n\nevent: other\ndata: 1\n\nevent: endpoint\ndata: /x\n\n")
    assert "result" in await session.client.call("tools/list", {})


# Losses.


@pytest.mark.parametrize("how", ["end", "cut"])
async def test_the_end_of_the_stream_is_the_end_of_the_session(session: Rig, how: str) -> None:
    @session.server.on("tools/call")
    async def _(call: OldCall) -> None:
        if how == "end":
            await call.session.end()
        else:
            call.session.cut()

    await session.client.call("logging/setLevel", {"level": "debug"})
    error = (await session.client.call(params=tool("t")))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31004, "upstream_connection_lost")
    del session.server.handlers["tools/call"]
    # The client's session goes on over another one, which is told what the first was told.
    assert text(await session.client.call(params=tool("t")))
    again = session.server.last
    assert [message["method"] for message in again.posted] == [
        "initialize",
        "notifications/initialized",
        "logging/setLevel",
        "tools/call",
    ]


async def test_a_restart_is_survived(session: Rig) -> None:
    stream = await session.client.listen()
    await session.server.restart()
    assert text(await session.client.call(params=tool("t")))
    assert (await stream.message())["method"].endswith("list_changed")
    assert len(session.server.opened) == 2


async def test_a_session_that_only_the_post_misses_is_opened_again(session: Rig) -> None:
    """As behind a balancer that does not keep a session on one server."""
    lost = session.server.last
    session.server.sessions.clear()
    assert text(await session.client.call(params=tool("t")))
    assert session.server.last is not lost
    await session.server.is_left_by(lost)


async def test_a_session_that_goes_on_elsewhere_leaves_its_stream() -> None:
    async with (
        old_server(name="a") as a,
        old_server(name="b") as b,
        ReverseProxy({"a": a.url, "b": b.url}, port=0) as proxy,
        client_of(proxy.port) as client,
    ):
        await client.initialize()
        # It takes no more connections, and keeps those it has.
        assert a.listener._server is not None
        a.listener._server.close()
        for connection in tuple(a.listener.connections):
            if connection.current is None:
                connection.reset()
        assert text(await client.call(params=tool("t")))
        assert b.got("tools/call")
        await a.is_left_by(a.last)


async def test_a_server_that_is_down_is_told_as_such(session: Rig) -> None:
    await session.server.listener.close()
    error = (await session.client.call(params=tool("t")))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31005, "connection_refused")
    await session.server.listener.open()
    await answers(session.client)


async def test_a_session_in_a_store_is_opened_again_by_the_next_process(tmp_path: Any) -> None:
    from shadowcat.clock import SystemClock
    from shadowcat.stores.urls import store_of

    url = f"sqlite:///{tmp_path}/s.db"
    async with old_server() as server:
        async with ReverseProxy({"old": server.url}, port=0, store=store_of(url, SystemClock())) as proxy:
            client = Client(proxy.port)
            await client.initialize()
        await server.is_left_by(server.last)
        async with ReverseProxy({"old": server.url}, port=0, store=store_of(url, SystemClock())) as proxy:
            client.port = proxy.port
            assert text(await client.call(params=tool("t")))
            client.close()
        assert len(server.opened) == 2


# Finding out which transport it is.


async def test_a_server_out_of_order_tells_nothing() -> None:
    async with mcp_server() as server:
        status = 503

        async def answer(seen: Seen) -> None:
            await seen.respond(status)

        real, server.listener.handle = server.listener.handle, answer
        async with ReverseProxy({"a": server.url}, port=0) as proxy, client_of(proxy.port) as client:
            reply = await client.post(rpc("initialize", {"protocolVersion": "2025-06-18"}, 0))
            assert (reply.status, (await reply.json())["error"]["data"]["reason"]) == (
                502,
                "upstream_http_503",
            )
            server.listener.handle = real
            await client.initialize()
            assert server.got("GET") == []


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_url_that_is_neither_is_told_by_its_first_answer(status: int) -> None:
    async with mcp_server() as server:
        seen_methods: list[str] = []

        async def answer(seen: Seen) -> None:
            seen_methods.append(seen.method)
            await seen.respond(status if seen.method == "POST" else 200, b"<html>", "text/html")

        server.listener.handle = answer
        async with ReverseProxy({"a": server.url}, port=0) as proxy, client_of(proxy.port) as client:
            reply = await client.post(rpc("initialize", {"protocolVersion": "2025-06-18"}, 0))
            error = (await reply.json())["error"]
            assert (reply.status, error["data"]["reason"]) == (502, f"upstream_http_{status}")
    assert seen_methods == ["POST", "GET"]


async def test_a_stream_whose_url_refuses_a_post_in_json_rpc_is_found_all_the_same() -> None:
    """As our own endpoint for such clients does: another proxy may stand there."""
    async with (
        mcp_server() as server,
        ReverseProxy({"a": server.url}, port=0) as far,
        ReverseProxy({"b": f"http://127.0.0.1:{far.port}/sse"}, port=0) as near,
        client_of(near.port) as client,
    ):
        await client.initialize()
        assert text(await client.call(params=tool("t"))) == "fixture"


async def test_a_server_that_changes_its_transport_is_found_out_anew(session: Rig) -> None:
    port = session.server.listener.port
    await session.server.listener.close()
    async with mcp_server() as new:
        await new.listener.close()
        new.listener.port = port
        await new.listener.open()
        # The same address, and the URL's path means nothing to this one.
        real = new.listener.handle

        async def by_method(seen: Seen) -> None:
            if seen.method == "GET" and seen.get("mcp-session-id") is None:
                await seen.respond(405)
            else:
                await real(seen)

        new.listener.handle = by_method
        assert text(await session.client.call(params=tool("t"))) == "fixture"
        await new.listener.close()
        await session.server.listener.open()
        await answers(session.client)
        await session.server.listener.close()

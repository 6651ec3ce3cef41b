"""Sessions: who owns them, what ends them, and what they outlive."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from shadowcat.proxy.shared import SessionLimits
from tests.rig.cases import case, refused
from tests.rig.client import rpc
from tests.rig.server import Call, holding, refusing
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, until

NO_SESSION = "no-such-session"
METHODS = ["POST", "GET", "DELETE"]


async def _any(rig: Stand, method: str, *fields: tuple[str, str]) -> Any:
    if method == "POST":
        return await rig.client.post(rpc("tools/list", {}, 7), *fields)
    return await rig.client.request(method, [("Accept", "text/event-stream"), *fields])


@pytest.mark.case("S01")
@pytest.mark.parametrize("method", METHODS)
async def test_a_request_must_name_its_session(session: Stand, method: str) -> None:
    id = 7 if method == "POST" else None
    error = await refused(await _any(session, method), 400, -32600, id)
    assert error["data"]["reason"] == "session_id_missing"
    assert session.server.requests == []


@pytest.mark.case("S01")
async def test_notifications_and_answers_must_name_it_too(session: Stand) -> None:
    for message in (rpc("notifications/initialized"), {"jsonrpc": "2.0", "id": 1, "result": {}}):
        await refused(await session.client.post(message), 400, -32600)
    assert session.server.requests == []


@pytest.mark.case("S02")
@pytest.mark.parametrize("method", METHODS)
async def test_an_unknown_session(session: Stand, method: str) -> None:
    id = 7 if method == "POST" else None
    await refused(await _any(session, method, ("Mcp-Session-Id", NO_SESSION)), 404, -32600, id)
    assert session.server.requests == []


@pytest.mark.case("S02")
async def test_the_upstreams_own_id_opens_nothing(session: Stand) -> None:
    [theirs] = session.server.sessions
    await refused(await _any(session, "POST", ("Mcp-Session-Id", theirs)), 404, -32600, 7)
    assert session.server.requests == []


@pytest.mark.case("S03")
async def test_a_deleted_session_is_gone(session: Stand) -> None:
    [theirs] = session.server.sessions
    assert (await session.client.delete()).status == 200
    for method in METHODS:
        id = 7 if method == "POST" else None
        await refused(await _any(session, method, *session.client.in_session()), 404, -32600, id)
    [told] = session.server.requests
    assert (told.method, told.get("mcp-session-id")) == ("DELETE", theirs)
    assert len(session.proxy.relay.sessions) == 0
    assert len(session.proxy.shared.ids) == 0


@pytest.mark.case("S04")
@pytest.mark.parametrize("status", [405, 404, 500, 401])
async def test_a_session_ends_whatever_the_server_says(session: Stand, status: int) -> None:
    session.server.delete_status = status
    assert (await session.client.delete()).status == 200
    await refused(await session.client.begin("tools/list", id=7), 404, -32600, 7)
    assert len(session.server.got("DELETE")) == 1


@pytest.mark.case("S05")
async def test_an_idle_session_expires() -> None:
    async with stand(session_limits=SessionLimits(idle_s=0.2)) as rig:
        await rig.client.initialize()
        kept = await rig.another_client()
        await kept.initialize()
        listening = await kept.listen()
        assert listening.status == 200
        told = await rig.server.gets("DELETE")
        assert told.get("mcp-session-id") == "up-a-1"
        await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)
        assert (await kept.call("tools/list"))["result"] == {"tools": []}
        listening.cut()
        await rig.server.gets("DELETE", 2)
        await refused(await kept.begin("tools/list", id=8), 404, -32600, 8)
        assert rig.counters.sessions_expired == 2


@pytest.mark.case("S05")
async def test_a_running_request_keeps_a_session_alive() -> None:
    async with stand(session_limits=SessionLimits(idle_s=0.1)) as rig:
        await rig.client.initialize()
        other = await rig.another_client()
        release = asyncio.Event()

        async def answer(call: Call) -> None:
            await call.result({"content": []})

        rig.server.handlers["tools/call"] = holding(release, answer)
        asking = asyncio.create_task(rig.client.call())
        await rig.server.gets("tools/call")
        # Sessions that nobody uses come and go meanwhile: time enough has passed.
        for count in (1, 2):
            await other.initialize()
            await rig.server.gets("DELETE", count)
        release.set()
        assert "result" in await asking


# The upstream loses its side.


async def _used(rig: Stand) -> None:
    """A session in which everything was set that can be set."""
    await rig.client.initialize()
    await rig.client.call("logging/setLevel", {"level": "warning"}, 10)
    await rig.client.call("resources/subscribe", {"uri": "x:b"}, 11)
    await rig.client.call("resources/subscribe", {"uri": "x:a"}, 12)
    await rig.client.call("resources/subscribe", {"uri": "x:gone"}, 13)
    await rig.client.call("resources/unsubscribe", {"uri": "x:gone"}, 14)
    rig.server.requests.clear()


LOST = [
    case("S06", (404, None)),
    case("S06", (404, {"code": -32001, "message": "Session not found"}), note="with a body"),
    case("S09", (400, {"code": -32000, "message": "Bad Request: No valid session ID provided"})),
    case("S09", (400, {"code": -32600, "message": "Server not initialized"}), note="not initialized"),
]


@pytest.mark.parametrize("lost_as", LOST)
@pytest.mark.parametrize("answers_json", [True, False])
async def test_a_lost_session_is_opened_again(
    rig: Stand, lost_as: tuple[int, Any], answers_json: bool
) -> None:
    server = rig.server
    server.answers_json = answers_json
    server.lost_as = lost_as
    await _used(rig)
    id = rig.client.session_id
    server.restart()
    reply = await rig.client.begin("tools/call", {"name": "t", "arguments": {"n": 1}}, 20)
    answer = await reply.json()
    assert reply.status == 200
    assert answer == {"jsonrpc": "2.0", "id": 20, "result": {"content": [{"type": "text", "text": "a"}]}}
    refused_one, opened, *replayed, again = server.requests
    assert (refused_one.rpc, opened.rpc, again.rpc) == ("tools/call", "initialize", "tools/call")
    assert opened.get("mcp-session-id") is None
    assert opened.json["params"] == server.sessions["up-a-2"]
    assert [(seen.rpc, seen.json.get("params")) for seen in replayed] == [
        ("notifications/initialized", None),
        ("logging/setLevel", {"level": "warning"}),
        ("resources/subscribe", {"uri": "x:a"}),
        ("resources/subscribe", {"uri": "x:b"}),
    ]
    assert again.json["params"] == refused_one.json["params"]
    ids = [seen.json["id"] for seen in server.requests if "id" in seen.json]
    assert len(set(ids)) == len(ids)
    assert {seen.get("mcp-session-id") for seen in (*replayed, again)} == {"up-a-2"}
    # The map follows the upstream; the client's id stays.
    assert rig.client.session_id == id
    assert id is not None
    assert rig.proxy.shared.ids.upstream_side(id) == ("a", "up-a-2")
    assert rig.proxy.shared.ids.own_side("a", "up-a-2") == {id}
    assert rig.proxy.shared.ids.own_side("a", "up-a-1") == frozenset()
    await rig.client.delete()
    assert server.got("DELETE")[0].get("mcp-session-id") == "up-a-2"


@pytest.mark.case("S06")
async def test_the_client_is_told_what_may_have_changed(rig: Stand) -> None:
    await _used(rig)
    listening = await rig.client.listen()
    first = await rig.server.listens()
    rig.server.restart()
    first.cut()
    told = [await listening.message() for _ in range(5)]
    assert {message["method"] for message in told[:3]} == {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
    assert [message["params"]["uri"] for message in told[3:]] == ["x:a", "x:b"]
    second = await rig.server.listens(2)
    assert second.seen.get("last-event-id") is None
    assert second.seen.get("mcp-session-id") == "up-a-2"
    await second.notify("notifications/vendor")
    assert (await listening.message())["method"] == "notifications/vendor"


async def test_a_server_that_does_not_take_what_is_set_again_is_not_waited_for_for_ever() -> None:
    async with stand(session_limits=SessionLimits(call_s=0.5)) as rig:
        await _used(rig)

        @rig.server.on("logging/setLevel")
        async def _(call: Call) -> None:
            await (await call.stream()).request("q", "roots/list")
            await happens(call.seen.dropped)

        rig.server.restart()
        assert "result" in await rig.client.call(id=20)


async def test_calls_wait_once_for_a_server_that_does_not_take_what_is_set_again() -> None:
    async with stand(session_limits=SessionLimits(call_s=0.5)) as rig:
        await _used(rig)

        @rig.server.on("resources/subscribe")
        async def _(call: Call) -> None:
            await happens(call.seen.dropped)

        rig.server.restart()
        assert "result" in await rig.client.call(id=20)
        assert [seen.json["params"]["uri"] for seen in rig.server.got("resources/subscribe")] == ["x:a"]


async def test_what_may_have_changed_does_not_pile_up_for_a_client_that_never_listens() -> None:
    async with stand(session_limits=SessionLimits(recovery_gap_s=0.0)) as rig:
        await _used(rig)
        held: list[int] = []
        for id in range(10, 15):
            rig.server.restart()
            assert "result" in await rig.client.call(id=id)
            held.append(rig.session().core.book.held_bytes)
        assert len(set(held)) == 1
        # Once it has been told, there is something to tell again.
        listening = await rig.client.listen()
        told = [await listening.message() for _ in range(5)]
        rig.server.restart()
        await rig.client.call(id=20)
        assert [await listening.message() for _ in range(5)] == told


@pytest.mark.case("S07")
async def test_all_who_wait_share_one_recovery(rig: Stand) -> None:
    await rig.client.initialize()
    rig.server.restart()
    rig.server.requests.clear()
    release = asyncio.Event()
    rig.server.handlers["initialize"] = holding(release, rig.server.initialize)
    asking = [asyncio.create_task(rig.client.call(id=id)) for id in range(1, 6)]
    await rig.server.gets("tools/call", 5)
    release.set()
    answers = await asyncio.gather(*asking)
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    assert all("result" in answer for answer in answers)
    assert len(rig.server.got("initialize")) == 1
    assert len(rig.server.got("tools/call")) == 10


@pytest.mark.case("S08")
@pytest.mark.parametrize("shrunk", ["version", "capability", "detail"])
async def test_a_promise_that_shrank_ends_the_session(rig: Stand, shrunk: str) -> None:
    await rig.client.initialize()
    rig.server.restart()
    if shrunk == "version":
        rig.server.versions = ("2025-06-18",)
    elif shrunk == "capability":
        del rig.server.capabilities["logging"]
    else:
        rig.server.capabilities["resources"] = {"listChanged": True}
    answers = await asyncio.gather(*(rig.client.begin("tools/list", id=id) for id in range(1, 6)))
    for id, reply in enumerate(answers, 1):
        await refused(reply, 404, -32600, id)
    rig.server.requests.clear()
    await refused(await rig.client.begin("tools/list", id=9), 404, -32600, 9)
    assert rig.server.requests == []
    # What the client has to do now works.
    await rig.client.initialize()
    assert "result" in await rig.client.call()


async def test_a_server_that_gained_keeps_the_old_promise(rig: Stand) -> None:
    await rig.client.initialize()
    rig.server.restart()
    rig.server.capabilities["completions"] = {}
    assert "result" in await rig.client.call()
    assert "completions" not in rig.session().core.record.promised()


async def test_what_was_under_way_is_not_sent_again(rig: Stand) -> None:
    """The outcome of a request that had begun is unknown; its server request is withdrawn."""

    @rig.server.on("tools/call")
    async def begin(call: Call) -> None:
        stream = await call.stream()
        await stream.request("q", "roots/list")
        await happens(call.seen.dropped)

    await rig.client.initialize()
    reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
    asked = await reply.message()
    rig.server.restart()
    assert "result" in await rig.client.call("tools/list", id=2)
    withdrawn, failed = await reply.messages()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == asked["id"]
    assert failed["id"] == 1
    assert (failed["error"]["code"], failed["error"]["data"]["reason"]) == (-31004, "upstream_session_lost")
    assert len(rig.server.got("tools/call")) == 1
    # An answer to the old session's request has nowhere to go.
    rig.server.requests.clear()
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}}
    assert (await rig.client.send(answer)).status == 202
    assert rig.server.requests == []


async def test_a_server_that_is_asked_for_the_rest_and_knows_nothing_of_it(rig: Stand) -> None:
    """With event ids as without: what a server that is gone had done nobody can say."""

    @rig.server.on("tools/call")
    async def begin(call: Call) -> None:
        stream = await call.stream()
        await stream.send({"jsonrpc": "2.0", "method": "notifications/vendor"}, id="1")
        rig.server.restart()
        stream.cut()

    await rig.client.initialize()
    error = (await rig.client.call())["error"]
    assert (error["code"], error["data"]["reason"]) == (-31004, "upstream_session_lost")
    assert error["message"] == "The upstream lost the session; the outcome is unknown"
    assert len(rig.server.got("tools/call")) == 1


async def test_a_recovery_that_fails_on_its_last_step_is_tried_again() -> None:
    async with stand(session_limits=SessionLimits(recovery_gap_s=0.0)) as rig:
        await rig.client.initialize()
        rig.server.restart()
        rig.server.handlers["notifications/initialized"] = refusing(503)
        await refused(await rig.client.begin("tools/list", id=1), 200, -32603, 1)
        # What was opened in vain is not left to the server.
        assert (await rig.server.gets("DELETE")).get("mcp-session-id") == "up-a-2"
        del rig.server.handlers["notifications/initialized"]
        assert "result" in await rig.client.call(id=2)


async def test_no_request_goes_ahead_of_what_is_set_again(rig: Stand) -> None:
    order: list[str] = []
    release = asyncio.Event()

    @rig.server.on("tools/call")
    async def answer(call: Call) -> None:
        order.append(call.params["name"])
        await call.result({"content": []})

    async def set_up(call: Call) -> None:
        await happens(release)
        order.append("initialized")
        await call.seen.respond(202)

    await rig.client.initialize()
    rig.server.restart()
    rig.server.handlers["notifications/initialized"] = set_up
    first = asyncio.create_task(rig.client.call(params={"name": "first"}))
    await rig.server.gets("notifications/initialized", 2)
    second = asyncio.create_task(rig.client.call(params={"name": "second"}, id=2))
    await rig.server.gets("tools/call", 2)
    release.set()
    await asyncio.gather(first, second)
    assert order[0] == "initialized"
    assert sorted(order[1:]) == ["first", "second"]


async def test_an_upstream_that_loses_every_session_is_not_asked_forever(rig: Stand) -> None:
    rig.server.handlers["tools/call"] = refusing(404)
    await rig.client.initialize()
    for id in (1, 2):
        reply = await rig.client.begin("tools/call", {"name": "t"}, id)
        await refused(reply, 200, -32603, id)
    assert len(rig.server.got("initialize")) == 2
    assert "result" in await rig.client.call("tools/list")


async def test_a_server_without_a_get_route_keeps_its_sessions(rig: Stand) -> None:
    """404 to the GET alone says that there is nothing to listen to, not that the session is gone."""
    rig.server.offers_get = False
    rig.server.on_get = lambda seen: seen.respond(404)
    await rig.client.initialize()
    listening = await rig.client.listen()
    assert listening.status == 200
    await until(lambda: not rig.session().is_listening)
    assert len(rig.server.got("initialize")) <= 2
    assert "result" in await rig.client.call()


async def test_a_client_that_only_listens_outlives_one_restart_of_its_server_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    async with stand(session_limits=SessionLimits(recovery_gap_s=0.0)) as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        for count in (1, 2, 3):
            stream = await rig.server.listens(count)
            assert stream.seen.get("mcp-session-id") == f"up-a-{count}"
            # With an id: who was cut off comes back for the rest.
            await stream.notify("notifications/vendor", {"n": count}, id=f"e{count}")
            while (await listening.message())["method"] != "notifications/vendor":
                pass
            rig.server.restart()
            stream.cut()
        assert (await rig.server.listens(4)).seen.get("mcp-session-id") == "up-a-4"


@pytest.mark.case("S10")
async def test_a_missing_method_is_no_missing_session(session: Stand) -> None:
    session.server.handlers["tools/call"] = lambda call: call.error(-32601, "Method not found", status=404)
    await refused(await session.client.begin("tools/call", {"name": "t"}, 7), 200, -32601, 7)
    assert session.server.got("initialize") == []
    assert "result" in await session.client.call("tools/list")


FAILING = [
    case("S11", 503, -32603, "upstream_http_503"),
    case("S11", 500, -32603, "upstream_http_500", note="500"),
    pytest.param(401, -32603, "upstream_auth", id="401"),
    pytest.param(403, -32603, "upstream_auth", id="403"),
    pytest.param(302, -32603, "upstream_redirected", id="302"),
    pytest.param(202, -32603, "upstream_sent_no_answer", id="202"),
]


@pytest.mark.parametrize(("status", "code", "reason"), FAILING)
async def test_a_failing_server_is_told_in_band(session: Stand, status: int, code: int, reason: str) -> None:
    session.server.handlers["tools/call"] = refusing(
        status, WWW_Authenticate="Bearer", Location="http://127.0.0.1:1/"
    )
    reply = await session.client.begin("tools/call", {"name": "t"}, 7)
    error = await refused(reply, 200, code, 7)
    assert error["data"]["reason"] == reason
    assert "www-authenticate" not in reply.headers
    assert session.server.url not in str(error)
    assert session.server.got("initialize") == []
    assert "result" in await session.client.call("tools/list")


@pytest.mark.case("S12")
async def test_an_id_on_a_refusal_is_not_taken(rig: Stand) -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Bad"}}'
    await rig.client.initialize()
    rig.server.handlers["tools/call"] = refusing(400, body, "application/json", Mcp_Session_Id="dead")
    await refused(await rig.client.begin("tools/call", {"name": "t"}, 7), 200, -32600, 7)
    del rig.server.handlers["tools/call"]
    await rig.client.call()
    assert rig.server.requests[-1].get("mcp-session-id") == "up-a-1"


@pytest.mark.case("S12")
@pytest.mark.parametrize("status", [400, 200, 406])
async def test_a_refused_initialize_leaves_nothing(rig: Stand, status: int) -> None:
    @rig.server.on("initialize")
    async def refuse(call: Call) -> None:
        call.headers["Mcp-Session-Id"] = "dead"
        await call.error(-32602, "Unsupported protocol version", status=status)

    reply = await rig.client.post(rpc("initialize", {"protocolVersion": "2025-11-25"}, 7))
    await refused(reply, 200, -32602, 7)
    assert "mcp-session-id" not in reply.headers
    assert len(rig.proxy.relay.sessions) == 0
    assert len(rig.proxy.shared.ids) == 0


INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"protocolVersion": "2026-07-28", "capabilities": {}}, -31003),
        ({"protocolVersion": "1.0", "capabilities": {}}, -31003),
        ({"capabilities": {}}, -31003),
        ({}, -31003),
    ],
)
async def test_a_result_that_promises_nothing_opens_nothing(rig: Stand, result: Any, code: int) -> None:
    @rig.server.on("initialize")
    async def answer(call: Call) -> None:
        call.headers["Mcp-Session-Id"] = "x"
        await call.result(result)

    reply = await rig.client.post(INITIALIZE)
    await refused(reply, 502, code, 7)
    assert "mcp-session-id" not in reply.headers
    assert len(rig.proxy.relay.sessions) == 0


@pytest.mark.parametrize("id", ["", "a b", "é", "x" * 2000])
async def test_an_upstream_id_that_is_none(rig: Stand, id: str) -> None:
    rig.server.next_ids = [id]
    await refused(await rig.client.post(INITIALIZE), 502, -31003, 7)
    assert len(rig.proxy.relay.sessions) == 0


@pytest.mark.case("S13")
@pytest.mark.parametrize("stale", [NO_SESSION, "deleted"])
async def test_initialize_with_a_stale_id_opens_a_new_session(rig: Stand, stale: str) -> None:
    if stale == "deleted":
        await rig.client.initialize()
        await rig.client.delete()
        assert rig.client.session_id is not None
        stale = rig.client.session_id
    reply = await rig.client.post(INITIALIZE, ("Mcp-Session-Id", stale))
    assert reply.status == 200
    assert reply.headers["mcp-session-id"] != stale


@pytest.mark.case("S14")
@pytest.mark.parametrize("answers_json", [True, False])
async def test_an_upstream_without_session_ids(answers_json: bool) -> None:
    script = {"issues_ids": False, "answers_json": answers_json}
    async with stand(script=script) as rig:
        await rig.client.initialize()
        assert rig.client.session_id
        assert "result" in await rig.client.call()
        other = await rig.another_client()
        await other.initialize()
        assert other.session_id != rig.client.session_id
        assert len(rig.proxy.shared.ids) == 0
        assert (await rig.client.delete()).status == 200
        assert "result" in await other.call()
        assert all(seen.get("mcp-session-id") is None for seen in rig.server.requests)
        # There is nothing that a DELETE could name.
        assert rig.server.got("DELETE") == []
        # And 404 can say nothing about a session that never was.
        rig.server.handlers["tools/call"] = refusing(404)
        rig.server.requests.clear()
        await refused(await other.begin("tools/call", {"name": "t"}, 7), 200, -32603, 7)
        assert rig.server.got("initialize") == []


async def test_notifications_before_and_after_the_handshake_keep_their_order(rig: Stand) -> None:
    await rig.client.initialize()
    await rig.client.call("tools/list")
    assert [seen.rpc for seen in rig.server.requests] == [
        "initialize",
        "notifications/initialized",
        "tools/list",
    ]


def is_told_the_end(answer: Any, id: int) -> bool:
    error = answer["error"]
    return (answer["id"], error["code"], error["data"]["reason"]) == (id, -31004, "session_ended")


async def _hold(call: Call) -> None:
    if call.params["name"] == "stream":
        await (await call.stream()).notify("notifications/vendor")
    await happens(call.seen.dropped)


async def test_the_end_of_a_session_ends_what_runs_for_both_ends_of_it(rig: Stand) -> None:
    rig.server.on("tools/call")(_hold)
    client = rig.client
    await client.initialize()
    listening = await client.listen()
    streamed = await client.begin("tools/call", {"name": "stream"}, 1)
    assert (await streamed.message())["method"] == "notifications/vendor"
    waiting = asyncio.create_task(client.begin("tools/call", {"name": "json"}, 2))
    await rig.server.gets("tools/call", 2)
    assert (await client.delete()).status == 200
    reply = await waiting
    # Not 404: on that some clients begin anew, and ask once more for what may have been done.
    assert reply.status == 200
    assert is_told_the_end(await reply.json(), 2)
    (last,) = await streamed.messages()
    assert is_told_the_end(last, 1)
    assert await listening.messages() == []
    ids = [seen.json["id"] for seen in rig.server.got("tools/call")]
    told = rig.server.got("notifications/cancelled")
    assert sorted(seen.json["params"]["requestId"] for seen in told) == sorted(ids)
    assert rig.server.requests[-1].method == "DELETE"


async def test_so_does_it_with_a_call_that_was_given_a_stream_in_the_meantime() -> None:
    async with stand(session_limits=SessionLimits(upgrade_after_s=0.0)) as rig:
        rig.server.on("tools/call")(_hold)
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "json"}, 1)
        await rig.server.gets("tools/call")
        assert (await rig.client.delete()).status == 200
        (last,) = await reply.messages()
        assert is_told_the_end(last, 1)


async def test_so_does_it_with_each_of_a_batch(rig: Stand) -> None:
    rig.server.on("tools/call")(_hold)
    await rig.client.initialize("2025-03-26")
    names = ["json", "stream"]
    batch = [rpc("tools/call", {"name": name}, id) for id, name in enumerate(names)]
    reply = await rig.client.send(batch)
    assert (await reply.message())["method"] == "notifications/vendor"
    await rig.server.gets("tools/call", 2)
    assert (await rig.client.delete()).status == 200
    answers = sorted(await reply.messages(), key=lambda answer: answer["id"])
    assert len(answers) == 2
    assert all(is_told_the_end(answer, id) for id, answer in enumerate(answers))


async def test_one_that_its_client_has_cancelled_is_no_longer_told(rig: Stand) -> None:
    rig.server.on("tools/call")(_hold)
    await rig.client.initialize()
    streamed = await rig.client.begin("tools/call", {"name": "stream"}, 1)
    assert (await streamed.message())["method"] == "notifications/vendor"
    await rig.client.notify("notifications/cancelled", {"requestId": 1})
    assert (await rig.client.delete()).status == 200
    assert await streamed.messages() == []
    assert len(rig.server.got("notifications/cancelled")) == 1


async def test_a_server_that_hangs_cannot_hold_a_session_open(rig: Stand) -> None:
    @rig.server.on("tools/call")
    @rig.server.on("notifications/cancelled")
    async def hang(call: Call) -> None:
        await happens(call.seen.dropped)

    await rig.client.initialize()
    waiting = asyncio.create_task(rig.client.begin("tools/call", {"name": "t"}, 1))
    await rig.server.gets("tools/call")
    async with asyncio.timeout(5.0):
        assert (await rig.client.delete()).status == 200
    assert is_told_the_end(await (await waiting).json(), 1)

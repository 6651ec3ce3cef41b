"""A server that speaks stdio, behind the HTTP endpoint: sessions, eras, and who hears what."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.app.reverse import proxy_of
from shadowcat.app.settings import Settings
from shadowcat.app.upstreams import UpstreamOptions
from shadowcat.proxy.shared import SessionLimits
from shadowcat.stores.urls import StoreUrl
from shadowcat.upstream.stdio import StdioUpstream
from shadowcat.wire.hosts import Address
from tests.rig.cases import refused
from tests.rig.children import is_gone, runs, speaker, team, text, tool
from tests.rig.client import Client, Reply, client_of, rpc
from tests.rig.wait import soon, until

CHANGES = {"toolsListChanged": True}
SUB = "io.modelcontextprotocol/subscriptionId"


async def pid_of(client: Client) -> int:
    return int(text(await client.call(params=tool("pid"))))


async def heard_by(client: Client) -> list[Any]:
    return json.loads(text(await client.call(params=tool("heard_so_far"), id="heard")))


async def modern_call(client: Client, name: str, /, **arguments: Any) -> Any:
    return await (await client.ask("tools/call", tool(name, **arguments))).json()


async def held(client: Client, key: str, id: Any = 1, asks: Client | None = None) -> asyncio.Task[Any]:
    """A call that runs at the server until `release` ends it; `asks` finds out, or the client itself."""
    call = asyncio.create_task(client.call(params=tool("hold", key=key), id=id))
    async with soon():
        while not any(
            one.get("params", {}).get("arguments") == {"key": key} for one in await heard_by(asks or client)
        ):
            pass
    return call


# Sessions.


@pytest.mark.case("LL03")
@pytest.mark.parametrize("flags", [[], ["--stays"], ["--stays", "--ignores-term"]])
async def test_a_session_is_a_process(flags: list[str]) -> None:
    async with team(*flags) as found:
        one, two = await found.session(), await found.session()
        first, second = await pid_of(one), await pid_of(two)
        assert first != second
        async with soon(2):
            assert (await one.delete()).status == 200
        await is_gone(first)
        assert runs(second)
        await refused(await one.begin("tools/list"), 404, -32600, 1)
        assert await pid_of(two) == second


async def test_spares_run_for_the_sessions_to_come() -> None:
    options = UpstreamOptions(command=tuple(speaker().argv), spares=2)
    settings = Settings(listen=Address("127.0.0.1:0"), upstreams={"a": options})
    async with proxy_of(settings, StoreUrl("memory:")) as proxy, client_of(proxy.port) as client:
        found = proxy.shared.upstreams.named("a")
        assert isinstance(found, StdioUpstream)
        assert found.processes == 0
        await client.initialize()
        await until(lambda: found.processes == 3)


async def test_a_command_that_ends_is_told_of_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "shadowcat.upstream")
    async with team() as found:
        client = await found.session()
        await client.call(params=tool("die"))
    lost = "The upstream's command ended; the outcome is unknown"
    said = [record.getMessage() for record in caplog.records if lost in record.getMessage()]
    assert said == [f"upstream speaker: {lost} (command_ended)"]


async def test_a_session_goes_on_with_another_process() -> None:
    async with team() as found:
        client = await found.session()
        before = await pid_of(client)
        await client.call("logging/setLevel", {"level": "error"})
        answer = await client.call(params=tool("die"), id="a")
        assert (answer["id"], answer["error"]["code"]) == ("a", -31004)
        assert answer["error"]["data"]["reason"] == "command_ended"
        await until(lambda: not runs(before))
        assert await pid_of(client) != before
        methods = [message.get("method") for message in await heard_by(client)]
        assert methods[:2] == ["initialize", "notifications/initialized"]


async def test_an_idle_session_takes_its_process_along() -> None:
    limits = SessionLimits(idle_s=0.2)
    async with team(session_limits=limits) as found:
        await found.session()
        assert found.upstream.processes == 1
        await until(lambda: found.upstream.processes == 0)


async def test_what_a_child_says_to_nobody_reaches_the_standalone_stream() -> None:
    async with team() as found:
        client = await found.session()
        stream = await client.listen()
        hold = await held(client, "k", 5)
        await client.call(params=tool("tell", method="notifications/tools/list_changed"), id=6)
        assert (await stream.message())["method"] == "notifications/tools/list_changed"
        await client.call(params=tool("release", key="k"), id=7)
        assert text(await hold) == "k"


async def test_a_failed_start_is_told_without_its_last_words() -> None:
    async with team("--exits") as found:
        client = await found.client()
        reply = await client.post(rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 1))
        error = await refused(reply, 503, -31005, 1)
        assert error["data"]["reason"] == "command_ended"
        assert "exit code 7" in error["message"]
        assert "settings" not in json.dumps(error)


async def test_a_command_beside_a_url_in_the_library() -> None:
    async with ReverseProxy({"local": speaker()}, port=0) as proxy, client_of(proxy.port) as client:
        result = await client.initialize()
        assert result["serverInfo"]["name"] == "speaker"


async def test_an_upstream_of_ones_own_goes_by_its_name() -> None:
    with pytest.raises(ValueError, match="is named b here"):
        ReverseProxy({"b": StdioUpstream("a", speaker())})


@pytest.mark.case("LL05")
async def test_a_child_that_cannot_bear_the_probe() -> None:
    """A client of both eras asks with the modern one first, and goes on with the handshake."""
    async with team("--dies-of-discover") as found:
        client = await found.client()
        answer = await (await client.ask("server/discover")).json()
        assert answer["error"]["code"] == -31004
        await client.initialize()
        assert await pid_of(client)


# One process for all.


@pytest.mark.case("J01")
async def test_equal_ids_and_tokens_on_one_process() -> None:
    async with team(shared=True) as found:
        one, two = await found.session(), await found.session()
        assert await pid_of(one) == await pid_of(two)
        replies = [
            await client.begin("tools/call", tool("hold", token=token, key=key), 1)
            for client, key, token in ((one, "one", 1), (two, "two", "1"))
        ]
        other = await found.session()
        for key in ("two", "one"):
            await other.call(params=tool("release", key=key))
        for reply, key, token in zip(replies, ("one", "two"), (1, "1"), strict=True):
            *steps, answer = await reply.messages()
            got = [step["params"]["progressToken"] for step in steps]
            assert got == [token, token]
            assert {type(one) for one in got} == {type(token)}
            assert (answer["id"], text(answer)) == (1, key)


@pytest.mark.case("J02")
async def test_a_number_and_its_digits_on_one_process() -> None:
    async with team(shared=True) as found:
        client, other = await found.session(), await found.session()
        replies = [await held(client, repr(id), id, asks=other) for id in (1, "1")]
        for id in ("1", 1):
            await other.call(params=tool("release", key=repr(id)))
        answers = [await reply for reply in replies]
        assert [(answer["id"], text(answer)) for answer in answers] == [(1, "1"), ("1", "'1'")]


@pytest.mark.case("J03")
@pytest.mark.parametrize("asks_as", [1, "1", 2, 3])
async def test_a_question_with_the_id_of_a_running_call(asks_as: Any) -> None:
    async with team(shared=True) as found:
        client = await found.session()
        reply = await client.begin("tools/call", tool("ask", id=asks_as), 1)
        question = await reply.message()
        assert question["method"] == "roots/list"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        assert (await client.send(answer)).status == 202
        answered = await reply.message()
        assert answered["id"] == 1
        assert json.loads(text(answered)) == {"result": {"roots": []}}


async def test_a_question_is_answered_by_whom_it_was_asked_of() -> None:
    async with team(shared=True) as found:
        one, two = await found.session(), await found.session()
        reply = await one.begin("tools/call", tool("ask"), 1)
        question = await reply.message()
        forged = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": [{"uri": "file:///forged"}]}}
        await two.send(forged)
        await one.send({**forged, "result": {"roots": []}})
        assert json.loads(text(await reply.message())) == {"result": {"roots": []}}


async def test_a_question_that_could_be_for_anybody_is_for_nobody() -> None:
    async with team(shared=True) as found:
        one, two = await found.session(), await found.session()
        running = await held(two, "k", asks=one)
        answer = json.loads(text(await one.call(params=tool("ask"))))
        assert answer["error"]["code"] == -32601
        await one.call(params=tool("release", key="k"))
        await running


async def test_a_cancelled_call_puts_no_question_to_another_session() -> None:
    """Else who calls and cancels at once has the server ask somebody else what he likes."""
    async with team(shared=True) as found:
        victim, rogue = await found.session(), await found.session()
        reply = await victim.begin("tools/call", tool("hold", token="t", key="v"), 1)
        evil = asyncio.create_task(rogue.begin("tools/call", tool("hold", key="r", is_defiant=True), 7))
        async with soon():
            while '"r"' not in json.dumps(await heard_by(rogue)):
                pass
        dropped = found.upstream.counters.dropped_messages
        await rogue.notify("notifications/cancelled", {"requestId": 7})
        # The question, and a message; before another call runs that they could be because of.
        await until(lambda: found.upstream.counters.dropped_messages == dropped + 2)
        async with soon():
            while not (answers := [one for one in await heard_by(rogue) if one.get("id") == "defiant"]):
                pass
        assert answers[0]["error"]["code"] == -32601
        await rogue.call(params=tool("release", key="v"))
        heard = [message.get("method", message.get("id")) for message in await reply.messages()]
        assert [what for what in heard if what != "notifications/progress"] == [1]
        await evil


async def test_a_call_of_a_modern_client_that_has_gone_tells_another_one_nothing() -> None:
    async with team() as found:
        victim, rogue, other = [await found.client() for _ in range(3)]
        reply = await victim.ask("tools/call", tool("hold", key="v"), meta={"progressToken": "t"})
        evil = asyncio.create_task(rogue.ask("tools/call", tool("hold", key="r", is_defiant=True)))
        async with soon():
            while '"r"' not in text(await modern_call(other, "heard_so_far")):
                pass
        dropped = found.upstream.counters.dropped_messages
        rogue.close()
        # A question, and a message.
        await until(lambda: found.upstream.counters.dropped_messages == dropped + 2)
        await modern_call(other, "release", key="v")
        heard = [message.get("method", message.get("id")) for message in await reply.messages()]
        assert [what for what in heard if what != "notifications/progress"] == [1]
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await evil


async def test_progress_of_a_question_comes_from_whom_it_was_asked_of() -> None:
    async with team(shared=True) as found:
        one, two = await found.session(), await found.session()
        params = {"_meta": {"progressToken": "p"}}
        reply = await one.begin("tools/call", tool("ask", params=params), 1)
        question = await reply.message()
        token = question["params"]["_meta"]["progressToken"]
        await two.notify("notifications/progress", {"progressToken": token, "progress": 99})
        await two.notify("notifications/progress", {"progressToken": "p", "progress": 98})
        await one.notify("notifications/progress", {"progressToken": token, "progress": 1})
        await one.send({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
        await reply.message()
        steps = [
            (heard["params"]["progressToken"], heard["params"]["progress"])
            for heard in await heard_by(one)
            if heard.get("method") == "notifications/progress"
        ]
        assert steps == [("p", 1)]


async def test_news_that_is_no_secret_reaches_every_session() -> None:
    async with team(shared=True) as found:
        one, two = await found.session(), await found.session()
        streams = [await one.listen(), await two.listen()]
        running = await held(two, "k", asks=one)
        await one.call(params=tool("tell", method="notifications/message", params={"data": "secret"}))
        await one.call(params=tool("tell", method="notifications/tools/list_changed"))
        for stream in streams:
            assert (await stream.message())["method"] == "notifications/tools/list_changed"
        await one.call(params=tool("release", key="k"))
        await running


async def test_sessions_share_a_process_where_their_handshakes_agree() -> None:
    async with team(shared=True) as found:
        same = [await found.session(), await found.session()]
        other = [await found.session("2025-06-18"), await found.session(capabilities={"roots": {}})]
        assert len({await pid_of(client) for client in same}) == 1
        assert len({await pid_of(client) for client in (*same, *other)}) == 3
        handshakes = [m for m in await heard_by(same[0]) if "initialize" in m.get("method", "")]
        assert len(handshakes) == 2
        await same[0].delete()
        assert await pid_of(same[1])


async def test_a_shared_process_that_crashes_is_replaced_for_all() -> None:
    async with team(shared=True) as found:
        clients = [await found.session() for _ in range(5)]
        before = await pid_of(clients[0])
        assert (await clients[0].call(params=tool("die")))["error"]["code"] == -31004
        after = {await pid_of(client) for client in clients}
        assert len(after) == 1
        assert before not in after
        assert found.upstream.counters.started == 2


# Modern.


@pytest.mark.case("MS01")
async def test_a_missing_method_gets_its_status() -> None:
    async with team() as found:
        client = await found.client()
        error = await refused(await client.ask("resources/list", id="x"), 404, -32601, "x")
        assert error["message"] == "no resources/list"


@pytest.mark.parametrize(
    ("code", "status"), [(-32601, 404), (-32020, 400), (-32021, 400), (-32022, 400), (-32602, 200), (-1, 200)]
)
async def test_the_status_of_an_error(code: int, status: int) -> None:
    async with team() as found:
        client = await found.client()
        reply = await client.ask("tools/call", tool("fail", code=code))
        assert (reply.status, (await reply.json())["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("given", "arguments", "status"),
    [
        ("Oslo", {"region": "Oslo"}, 200),
        ("=?base64?VHJvbXPDuA==?=", {"region": "Tromsø"}, 200),
        (None, {"x": 1}, 200),
        ("Oslo", {"region": "Bergen"}, 400),
        ("Oslo", {}, 400),
        (None, {"region": "Oslo"}, 400),
    ],
)
async def test_arguments_that_a_tool_wants_in_headers(
    given: str | None, arguments: dict[str, Any], status: int
) -> None:
    """A server that speaks HTTP checks that itself; one that speaks stdio never sees a header."""
    async with team() as found:
        client = await found.client()
        fields = [] if given is None else [("Mcp-Param-Region", given)]
        for _ in range(2):
            reply = await client.ask("tools/call", tool("echo", **arguments), *fields, id=9)
            if status == 400:
                await refused(reply, 400, -32020, 9)
            else:
                assert (reply.status, json.loads(text(await reply.json()))) == (200, arguments)


async def test_headers_are_checked_also_when_who_had_the_tools_listed_has_gone() -> None:
    async with team("--lists-late") as found:
        client, gone = await found.client(), await found.client()
        region = ("Mcp-Param-Region", "Oslo")
        calling = asyncio.create_task(gone.ask("tools/call", tool("echo", region="Bergen"), region))
        await until(lambda: any(channel.tools.is_asking for channel in found.upstream._channels))
        gone.close()
        reply = await client.ask("tools/call", tool("echo", region="Bergen"), region, id=9)
        await refused(reply, 400, -32020, 9)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await calling


async def test_modern_clients_share_a_process() -> None:
    async with team() as found:
        pids = {text(await modern_call(await found.client(), "pid")) for _ in range(3)}
        assert len(pids) == found.upstream.processes == 1


@pytest.mark.case("MS02")
async def test_a_dropped_stream_cancels_at_the_server() -> None:
    async with team() as found:
        client, other = await found.client(), await found.client()
        reply = await client.ask("tools/call", tool("hold", key="k"), meta={"progressToken": 1})
        assert (await reply.message())["params"]["progressToken"] == 1
        reply.cut()
        heard: list[Any] = []
        async with soon():
            while not any(one["method"] == "notifications/cancelled" for one in heard):
                heard = json.loads(text(await modern_call(other, "heard_so_far")))
        held = next(one for one in heard if one.get("params", {}).get("name") == "hold")
        [cancelled] = [one for one in heard if one["method"] == "notifications/cancelled"]
        assert cancelled["params"]["requestId"] == held["id"]
        # What the server says for it all the same is for nobody.
        await modern_call(other, "release", key="k")
        await until(lambda: found.upstream.counters.dropped_messages == 2)


async def listening(client: Client, id: Any, wanted: dict[str, bool]) -> Reply:
    reply = await client.ask("subscriptions/listen", {"notifications": wanted}, id=id)
    acknowledged = await reply.message()
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"] == {"_meta": {SUB: id}, "notifications": wanted}
    return reply


@pytest.mark.case("MS03")
async def test_two_listeners_on_one_child() -> None:
    async with team() as found:
        one, two = await found.client(), await found.client()
        tools = await listening(one, 1, {"toolsListChanged": True})
        prompts = await listening(two, "1", {"promptsListChanged": True})
        await modern_call(one, "change")
        await modern_call(one, "finish")
        for reply, id, method in (
            (tools, 1, "notifications/tools/list_changed"),
            (prompts, "1", "notifications/prompts/list_changed"),
        ):
            news, end = await reply.messages()
            assert (news["method"], news["params"]) == (method, {"_meta": {SUB: id}})
            assert (end["id"], end["result"]["_meta"]) == (id, {SUB: id})


async def test_a_listener_is_told_that_the_proxy_goes() -> None:
    async with team() as found:
        client = await found.client()
        reply = await listening(client, "s", CHANGES)
        await found.proxy.drain()
        [end] = await reply.messages()
        assert (end["id"], end["result"]) == ("s", {"resultType": "complete", "_meta": {SUB: "s"}})


async def test_a_listener_that_goes_is_unsubscribed() -> None:
    async with team() as found:
        one, two = await found.client(), await found.client()
        first = await listening(one, 1, CHANGES)
        second = await listening(two, 1, CHANGES)
        first.cut()
        async with soon():
            while True:
                heard = json.loads(text(await modern_call(two, "heard_so_far")))
                if any(one["method"] == "notifications/cancelled" for one in heard):
                    break
        await modern_call(two, "change")
        assert (await second.message())["method"] == "notifications/tools/list_changed"


async def test_a_crash_ends_what_runs_and_the_next_request_has_another_process() -> None:
    async with team() as found:
        one, two = await found.client(), await found.client()
        before = text(await modern_call(one, "pid"))
        stream = await listening(two, "s", CHANGES)
        reply = await one.ask("tools/call", tool("die"), id=7)
        await refused(reply, 502, -31004, 7)
        ended = await stream.message()
        assert (ended["id"], ended["error"]["code"]) == ("s", -31004)
        assert text(await modern_call(one, "pid")) != before


async def test_both_eras_of_one_server_have_processes_of_their_own() -> None:
    async with team() as found:
        modern, legacy = await found.client(), await found.session()
        assert int(text(await modern_call(modern, "pid"))) != await pid_of(legacy)

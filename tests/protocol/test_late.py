"""Who connects to a proxy that stops: served where it belongs to what runs, and refused where it begins something."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.app import proxy as proxy_module
from shadowcat.downstream import sse_stream
from shadowcat.proxy import registry as registry_module
from shadowcat.proxy.shared import Phase
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.wire.mcp import LOOKS
from tests.e2e.python_client import application
from tests.rig.cases import refused
from tests.rig.client import rpc
from tests.rig.old_client import old_client_of
from tests.rig.server import Call, Handler, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until

TEXT = {"content": [{"type": "text", "text": "done"}]}
DONE = {"jsonrpc": "2.0", "id": 1, "result": TEXT}
CALL = {"name": "t"}
OPENING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "rig", "version": "1"},
}


async def begins_to_drain(proxy: ReverseProxy) -> asyncio.Task[None]:
    """From here on whoever connects is late."""
    draining = asyncio.create_task(proxy.drain(60.0))
    await until(lambda: proxy.shared.phase is Phase.DRAINING)
    return draining


async def ends(draining: asyncio.Task[None], port: int) -> None:
    async with soon():
        await draining
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def begun(number: int, then: asyncio.Event, id: str | None = None) -> Handler:
    """Says something, and answers once it may."""

    async def handle(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor", {"n": number}, id=id)
        await happens(then)
        await stream.send(call.response(TEXT))
        await stream.end()

    return handle


async def ask(call: Call) -> None:
    """Answers with what the client answers."""
    stream = await call.stream()
    await stream.request("q1", "elicitation/create", {})
    answer = await call.answered("q1")
    await stream.send(call.response(answer.json["result"]))
    await stream.end()


async def answer(call: Call) -> None:
    await call.result(TEXT)


async def is_lost(stand: Stand) -> None:
    """No client is connected any more."""
    await until(lambda: not stand.proxy.server.statistics().connections)


# What belongs to a call.


async def test_what_a_running_call_asks_is_answered(rig: Stand) -> None:
    await rig.client.initialize(capabilities={"elicitation": {}})
    rig.server.on("tools/call")(ask)
    reply = await rig.client.begin("tools/call", CALL)
    question = await reply.message()
    draining = await begins_to_drain(rig.proxy)
    given = await rig.client.send({"jsonrpc": "2.0", "id": question["id"], "result": TEXT})
    assert (given.status, given.headers["connection"]) == (202, "close")
    assert await reply.messages() == [DONE]
    await ends(draining, rig.proxy.port)


async def test_a_running_call_is_cancelled(session: Stand) -> None:
    session.server.on("tools/call")(holding(asyncio.Event(), answer))
    calling = asyncio.create_task(session.client.begin("tools/call", CALL))
    await session.server.gets("tools/call")
    draining = await begins_to_drain(session.proxy)
    assert (await session.client.notify("notifications/cancelled", {"requestId": 1})).status == 202
    assert await (await calling).messages() == []
    assert len(session.server.got("notifications/cancelled")) == 1
    await ends(draining, session.proxy.port)


async def hears_a_part(session: Stand, may_end: asyncio.Event) -> str | None:
    """Of the stream of a call, and is gone. Returns what to come back with."""
    session.server.on("tools/call")(begun(1, may_end))
    reply = await session.client.begin("tools/call", CALL)
    assert (await reply.message())["params"] == {"n": 1}
    reply.cut()
    await is_lost(session)
    return reply.last_id


async def test_the_stream_of_a_running_call_is_resumed(session: Stand) -> None:
    """Nobody is connected meanwhile, and the call is waited for all the same."""
    may_end = asyncio.Event()
    last_id = await hears_a_part(session, may_end)
    draining = await begins_to_drain(session.proxy)
    again = await session.client.listen(last_id)
    may_end.set()
    assert await again.messages() == [DONE]
    await ends(draining, session.proxy.port)


async def test_an_answer_that_came_while_its_client_was_away_is_kept_for_it(session: Stand) -> None:
    may_end = asyncio.Event()
    last_id = await hears_a_part(session, may_end)
    draining = await begins_to_drain(session.proxy)
    waiting = session.session()
    may_end.set()
    await until(lambda: waiting.core.correlator.is_idle)
    assert waiting.parting.is_at_work
    again = await session.client.listen(last_id)
    assert await again.messages() == [DONE]
    await ends(draining, session.proxy.port)


async def test_one_that_nobody_hears_and_another_process_goes_on_with_is_left_to_it(tmp_path: Path) -> None:
    async with stand(store=SqliteStore(tmp_path / "sessions.db")) as rig:
        await rig.client.initialize()
        rig.server.on("tools/call")(begun(1, asyncio.Event(), id="u1"))
        reply = await rig.client.begin("tools/call", CALL)
        assert (await reply.message())["params"] == {"n": 1}
        reply.cut()
        await is_lost(rig)
        await ends(await begins_to_drain(rig.proxy), rig.proxy.port)
        assert rig.server.got("notifications/cancelled") == []


async def test_a_call_of_the_old_transport_gets_its_answer(rig: Stand) -> None:
    rig.server.on("tools/call")(ask)
    async with old_client_of(rig.proxy.port) as client:
        await client.initialize(capabilities={"elicitation": {}})
        await client.ask("tools/call", CALL)
        question = await client.message()
        draining = await begins_to_drain(rig.proxy)
        # Told on the stream: on a status, the client of the Python SDK would post nothing more.
        assert is_refused(await client.call("tools/call", CALL, id=2))
        await client.accepted({"jsonrpc": "2.0", "id": question["id"], "result": TEXT})
        assert await client.message() == DONE
        await client.ends()
    await ends(draining, rig.proxy.port)
    assert len(rig.server.got("tools/call")) == 1


async def test_a_batch_of_an_old_client_is_refused(rig: Stand) -> None:
    may_end = asyncio.Event()
    rig.server.on("tools/call")(holding(may_end, answer))
    async with old_client_of(rig.proxy.port) as client:
        await client.initialize("2025-03-26")
        await client.ask("tools/call", CALL)
        await rig.server.gets("tools/call")
        draining = await begins_to_drain(rig.proxy)
        told = await client.post([rpc("tools/list", {}, 2)])
        assert told.status == 503
        assert is_refused(await told.json())
        may_end.set()
        assert await client.message() == DONE
        await client.ends()
    await ends(draining, rig.proxy.port)
    assert rig.server.got("tools/list") == []


async def test_an_old_client_is_told_no_more_than_it_may_ask(
    rig: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse_stream, "MAX_RUNNING", 1)
    may_end = asyncio.Event()
    rig.server.on("tools/call")(holding(may_end, answer))
    async with old_client_of(rig.proxy.port) as client:
        await client.initialize()
        await client.ask("tools/call", CALL)
        await rig.server.gets("tools/call")
        draining = await begins_to_drain(rig.proxy)
        error = await refused(await client.post(rpc("tools/call", CALL, 2)), 503, -31002, 2)
        assert error["data"]["reason"] == "too_many_requests_in_flight"
        may_end.set()
        assert await client.message() == DONE
        await client.ends()
    await ends(draining, rig.proxy.port)


# What only looks.


@pytest.mark.parametrize("method", sorted(LOOKS))
async def test_what_changes_nothing_is_answered_while_something_runs(session: Stand, method: str) -> None:
    session.server.on(method)(answer)
    may_end = asyncio.Event()
    session.server.on("tools/call")(begun(1, may_end))
    reply = await session.client.begin("tools/call", CALL)
    assert (await reply.message())["params"] == {"n": 1}
    draining = await begins_to_drain(session.proxy)
    assert "result" in await session.client.call(method, id=2)
    may_end.set()
    assert await reply.messages() == [DONE]
    await ends(draining, session.proxy.port)


async def test_an_application_has_the_answer_of_its_last_call(rig: Stand) -> None:
    """The client of the Python SDK asks for the list of tools before it hands the answer on."""
    may_end = asyncio.Event()

    @rig.server.on("tools/list")
    async def listed(call: Call) -> None:
        await call.result({"tools": []})

    rig.server.on("tools/call")(begun(1, may_end))
    async with application(f"http://127.0.0.1:{rig.proxy.port}/mcp", "2025-11-25") as app:
        calling = asyncio.create_task(app.says("t"))
        await rig.server.gets("tools/call")
        draining = await begins_to_drain(rig.proxy)
        # No connection is left but that of the call.
        await until(lambda: rig.proxy.server.statistics().connections == 1)
        may_end.set()
        assert await calling == "done"
        assert len(rig.server.got("tools/list")) == 1
        await ends(draining, rig.proxy.port)


async def test_who_comes_back_as_soon_as_it_has_its_answer_is_let_in(
    session: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_LOOK_BACK_S", 1000.0)
    monkeypatch.setattr(registry_module, "_REST_S", 0.0)
    may_end = asyncio.Event()
    session.server.on("tools/call")(begun(1, may_end))
    reply = await session.client.begin("tools/call", CALL)
    draining = await begins_to_drain(session.proxy)
    may_end.set()
    assert (await reply.messages())[-1] == DONE
    for id in range(2, 12):
        assert "result" in await session.client.call("tools/list", id=id)
    draining.cancel()
    await asyncio.wait((draining,))


async def test_where_nothing_runs_nobody_is_waited_for(
    session: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_module, "_LOOK_BACK_S", 1000.0)
    await ends(await begins_to_drain(session.proxy), session.proxy.port)


# What begins something.


def is_refused(answer: Any) -> bool:
    error = answer["error"]
    told = (error["code"], error["message"], error["data"]["reason"])
    return told == (-31002, "The proxy is stopping; ask again", "proxy_stops")


async def test_nothing_is_begun(session: Stand) -> None:
    may_end = asyncio.Event()
    session.server.on("tools/call")(begun(1, may_end))
    reply = await session.client.begin("tools/call", CALL)
    assert (await reply.message())["params"] == {"n": 1}
    older, stranger = await session.another_client(), await session.another_client()
    await older.initialize("2025-03-26")
    stranger.session_id = 32 * "0"
    draining = await begins_to_drain(session.proxy)
    session.server.requests.clear()
    for tried in (
        stranger.post(rpc("initialize", OPENING, 0)),
        stranger.ask("tools/list"),
        older.send([rpc("tools/list", {}, 1)]),
        stranger.request("GET", [("Accept", "text/event-stream")], path="/sse"),
    ):
        told = await tried
        assert (told.status, told.headers["retry-after"], told.headers["connection"]) == (503, "5", "close")
        assert is_refused(await told.json())
    may_end.set()
    assert await reply.messages() == [DONE]
    await ends(draining, session.proxy.port)
    assert {seen.method for seen in session.server.requests} == {"DELETE"}


async def test_a_call_in_a_session_is_refused_and_no_more_than_that(session: Stand) -> None:
    """Some clients take another status than 200 for the end of their transport, with the calls that still run."""
    may_end = asyncio.Event()
    session.server.on("tools/call")(begun(1, may_end))
    reply = await session.client.begin("tools/call", CALL)
    assert (await reply.message())["params"] == {"n": 1}
    session.server.on("prompts/get")(answer)
    # It leaves a connection to the server on which the next one could go at once.
    assert "result" in await session.client.call("prompts/get", id=2)
    draining = await begins_to_drain(session.proxy)
    told = await session.client.begin("prompts/get", id=3)
    assert (told.status, told.headers["retry-after"], told.headers["connection"]) == (200, "5", "close")
    assert is_refused(await told.json())
    may_end.set()
    assert await reply.messages() == [DONE]
    await ends(draining, session.proxy.port)
    assert len(session.server.got("prompts/get")) == 1


async def test_a_session_that_only_the_store_has_is_left_to_the_next(tmp_path: Path) -> None:
    """Which 404 would tell its client to give up."""
    path = tmp_path / "sessions.db"
    async with stand(store=SqliteStore(path)) as rig:
        await rig.client.initialize()
        earlier = rig.client.session_id
    may_end = asyncio.Event()
    async with stand(store=SqliteStore(path)) as rig:
        await rig.client.initialize()
        rig.server.on("tools/call")(begun(1, may_end))
        reply = await rig.client.begin("tools/call", CALL)
        assert (await reply.message())["params"] == {"n": 1}
        draining = await begins_to_drain(rig.proxy)
        other = await rig.another_client()
        other.session_id = earlier
        for told, id in ((await other.listen(), None), (await other.begin("tools/list", id=2), 2)):
            error = await refused(told, 503, -31002, id)
            assert error["data"]["reason"] == "proxy_stops"
        may_end.set()
        assert await reply.messages() == [DONE]
        await ends(draining, rig.proxy.port)


async def test_nothing_is_accepted_where_only_stateless_requests_run(session: Stand) -> None:
    """None of them needs another connection, and a balancer finds out at once."""
    may_end = asyncio.Event()
    session.server.on("tools/call")(holding(may_end, answer))
    asking = asyncio.create_task(session.client.ask("tools/call", {**CALL, "arguments": {}}))
    await session.server.gets("tools/call")
    port = session.proxy.port
    draining = await begins_to_drain(session.proxy)
    await until(lambda: not session.proxy.server.sockets)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    may_end.set()
    assert (await (await asking).json())["result"]["content"] == TEXT["content"]
    await ends(draining, port)

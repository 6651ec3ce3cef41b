"""Two ids for one session: the proxy's, which a client holds, and the upstream's, which comes and goes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.core import kept
from shadowcat.core.exchange import ANONYMOUS, Caller
from shadowcat.core.session import SessionRecord
from shadowcat.proxy.shared import SessionLimits
from shadowcat.stores.memory import MemoryStore
from tests.rig.cases import refused
from tests.rig.client import Client, client_of, rpc
from tests.rig.server import Call, holding, mcp_server
from tests.rig.stand import Stand, reverse_process, stand
from tests.rig.wait import until

INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


async def _two(rig: Stand) -> tuple[Client, Client]:
    other = await rig.another_client()
    await rig.client.initialize()
    await other.initialize()
    return rig.client, other


async def test_the_map_is_read_both_ways(rig: Stand) -> None:
    one, two = await _two(rig)
    ids = rig.proxy.shared.ids
    for client, theirs in ((one, "up-a-1"), (two, "up-a-2")):
        assert client.session_id is not None
        assert ids.upstream_side(client.session_id) == ("a", theirs)
        assert ids.own_side("a", theirs) == {client.session_id}
        await client.call()
        assert rig.server.requests[-1].get("mcp-session-id") == theirs
    await one.delete()
    assert len(ids) == 1
    assert ids.own_side("a", "up-a-1") == frozenset()


async def test_ids_are_not_guessable_from_each_other(rig: Stand) -> None:
    ids: set[str] = set()
    for _ in range(50):
        await rig.client.initialize(initialized=False)
        assert rig.client.session_id is not None
        ids.add(rig.client.session_id)
    assert len(ids) == 50
    # Random in every place: no two share a prefix worth the name.
    assert len({id[:8] for id in ids}) == 50
    assert len({id[-8:] for id in ids}) == 50


async def test_nothing_of_the_upstreams_id_reaches_the_client(rig: Stand) -> None:
    rig.server.next_ids = ["secret-upstream-id"]
    reply = await rig.client.post(INITIALIZE)
    body = await reply.body()
    assert "secret" not in str(reply.headers)
    assert b"secret" not in body


async def test_no_two_sessions_share_the_id_of_a_request(rig: Stand) -> None:
    """Servers on the Python SDK keep the streams of all sessions by the ids of their requests."""
    for client in await _two(rig):
        for id in range(3):
            await client.call(id=id)
    ids = [seen.json["id"] for seen in rig.server.got("tools/call")]
    assert len(set(ids)) == 6
    # What every JSON library reads and writes.
    assert all(id < 10**14 for id in ids)


async def test_two_sessions_with_one_upstream_id(rig: Stand) -> None:
    """They share it; what ends one of them must leave the other's upstream session alone."""
    rig.server.next_ids = ["same", "same"]
    one, two = await _two(rig)
    assert one.session_id != two.session_id
    assert rig.proxy.shared.ids.own_side("a", "same") == {one.session_id, two.session_id}
    assert (await one.delete()).status == 200
    assert rig.server.got("DELETE") == []
    await refused(await one.begin("tools/list", id=7), 404, -32600, 7)
    assert "result" in await two.call()
    assert (await two.delete()).status == 200
    [told] = rig.server.got("DELETE")
    assert told.get("mcp-session-id") == "same"
    assert len(rig.proxy.shared.ids) == 0


async def test_one_of_two_that_share_an_id_moves_on(rig: Stand) -> None:
    rig.server.next_ids = ["same", "same", "new"]
    one, two = await _two(rig)
    rig.server.restart()
    assert "result" in await one.call()
    ids = rig.proxy.shared.ids
    assert ids.own_side("a", "same") == {two.session_id}
    assert ids.own_side("a", "new") == {one.session_id}
    await two.delete()
    assert [seen.get("mcp-session-id") for seen in rig.server.got("DELETE")] == ["same"]


async def test_an_id_on_a_later_answer_is_not_taken(rig: Stand) -> None:
    @rig.server.on("tools/call")
    async def other_id(call: Call) -> None:
        call.headers["Mcp-Session-Id"] = "other"
        await call.result({"content": []})

    await rig.client.initialize()
    reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
    assert reply.headers["mcp-session-id"] == rig.client.session_id
    await rig.client.call("tools/list")
    assert rig.server.requests[-1].get("mcp-session-id") == "up-a-1"


async def test_an_upstream_that_begins_to_issue_ids(rig: Stand) -> None:
    rig.server.issues_ids = False
    await rig.client.initialize()
    assert len(rig.proxy.shared.ids) == 0
    session = rig.session()
    assert session.core.record.upstream_id is None
    rig.server.issues_ids = True
    # It has never given an id, so its refusals cannot be about one.
    reply = await rig.client.begin("tools/list", {}, 7)
    await refused(reply, 200, -32603, 7)


# Whose session it is.

OTHERS = [Caller("mallory", "/mcp"), Caller(ANONYMOUS, "/other"), Caller("", "/mcp")]


@pytest.mark.parametrize("caller", OTHERS)
async def test_a_session_is_its_callers_alone(rig: Stand, caller: Caller) -> None:
    await rig.client.initialize()
    assert rig.client.session_id is not None
    relay = rig.proxy.relay
    assert await relay.find(rig.client.session_id, caller) is None
    assert await relay.find(rig.client.session_id, Caller(ANONYMOUS, "/mcp")) is not None


@pytest.mark.parametrize("caller", OTHERS)
async def test_a_stored_session_is_its_callers_alone(caller: Caller) -> None:
    async with mcp_server() as server:
        store = LastingStore()
        id = await _opened_and_left(server.url, store)
        async with ReverseProxy({"a": server.url}, port=0, store=store) as proxy:
            assert await proxy.relay.find(id, caller) is None
            assert await proxy.relay.find(id, Caller(ANONYMOUS, "/mcp")) is not None


# How many, and how long.


async def test_too_many_sessions() -> None:
    async with stand(session_limits=SessionLimits(max_sessions=2)) as rig:
        one, _ = await _two(rig)
        rig.server.requests.clear()
        third = await rig.another_client()
        reply = await third.post(INITIALIZE)
        await refused(reply, 503, -31002, 7)
        assert int(reply.headers["retry-after"]) > 0
        assert "mcp-session-id" not in reply.headers
        assert rig.server.requests == []
        await one.delete()
        await third.initialize()
        assert rig.counters.sessions_refused == 1


async def test_too_many_sessions_of_one_client() -> None:
    limits = SessionLimits(max_sessions_per_client=2)
    async with stand(session_limits=limits, host="0.0.0.0") as rig:
        one, _ = await _two(rig)
        third = await rig.another_client()
        refusal = await third.post(INITIALIZE)
        assert (await refused(refusal, 503, -31002, 7))["data"]["reason"] == "too_many_sessions_of_client"
        # Another one is not held up by what this one has.
        other = await rig.another_client()
        other.local_address = "127.0.0.2"
        await other.initialize()
        await one.delete()
        await third.initialize()
        assert (await (await rig.another_client()).post(INITIALIZE)).status == 503
        # Of those that are opened at the same time, no more than allowed are.
        await third.delete()
        replies = await asyncio.gather(*[(await rig.another_client()).post(INITIALIZE) for _ in range(5)])
        assert sorted(reply.status for reply in replies) == [200, 503, 503, 503, 503]


async def test_sessions_being_opened_count() -> None:
    async with stand(session_limits=SessionLimits(max_sessions=1)) as rig:
        release = asyncio.Event()
        rig.server.handlers["initialize"] = holding(release, rig.server.initialize)
        opening = asyncio.create_task(rig.client.initialize())
        await rig.server.gets("initialize")
        other = await rig.another_client()
        await refused(await other.post(INITIALIZE), 503, -31002, 7)
        release.set()
        await opening
        assert len(rig.proxy.relay.sessions) == 1


async def test_a_failed_initialize_gives_its_place_back() -> None:
    async with stand(session_limits=SessionLimits(max_sessions=1)) as rig:
        await rig.server.listener.close()
        for _ in range(3):
            await refused(await rig.client.post(INITIALIZE), 503, -31005, 7)
        await rig.server.listener.open()
        await rig.client.initialize()


async def test_the_upstream_is_told_of_an_expired_session() -> None:
    async with stand(session_limits=SessionLimits(idle_s=0.1)) as rig:
        await rig.client.initialize()
        told = await rig.server.gets("DELETE")
        assert told.get("mcp-session-id") == "up-a-1"
        await until(lambda: len(rig.proxy.shared.ids) == 0)
        assert rig.counters.sessions_expired == 1


async def test_an_expiring_session_waits_for_nobody_else() -> None:
    """One upstream that hangs on its DELETE leaves the others' sessions expiring."""
    async with stand(servers=2, session_limits=SessionLimits(idle_s=0.1)) as rig:
        hanging = asyncio.Event()
        handle = rig.servers[0].listener.handle

        async def hang(seen: Any) -> None:
            if seen.method == "DELETE":
                hanging.set()
                await seen.dropped.wait()
            else:
                await handle(seen)

        rig.servers[0].listener.handle = hang
        await _two(rig)
        await hanging.wait()
        await rig.servers[1].gets("DELETE")


# Beyond the process.


class LastingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1

    async def record(self, session_id: str) -> SessionRecord:
        stored = await self.read(session_id)
        assert stored is not None
        return kept.decode_session(stored.record).record


async def _opened_and_left(url: str, store: LastingStore) -> str:
    async with ReverseProxy({"a": url}, port=0, store=store) as proxy, client_of(proxy.port) as client:
        await client.initialize()
        await client.call("logging/setLevel", {"level": "error"})
        await client.call("resources/subscribe", {"uri": "x:a"})
        assert client.session_id is not None
        return client.session_id


async def test_a_session_outlives_the_proxy() -> None:
    async with mcp_server(name="a") as server:
        store = LastingStore()
        id = await _opened_and_left(server.url, store)
        assert store.closed == 1
        assert server.got("DELETE") == []
        record = await store.record(id)
        earlier = {seen.json["id"] for seen in server.requests if seen.json and "id" in seen.json}
        assert (record.upstream, record.upstream_id) == ("a", "up-a-1")
        assert (record.principal, record.route) == (ANONYMOUS, "/mcp")
        assert (record.log_level, record.subscriptions) == ("error", {"x:a"})
        server.requests.clear()
        async with (
            ReverseProxy({"a": server.url}, port=0, store=store) as proxy,
            client_of(proxy.port) as client,
        ):
            client.session_id, client.version = id, "2025-11-25"
            replies = await asyncio.gather(*(client.call(id=number) for number in range(1, 6)))
            assert [reply["id"] for reply in replies] == [1, 2, 3, 4, 5]
            assert len(proxy.relay.sessions) == 1
            assert {seen.get("mcp-session-id") for seen in server.requests} == {"up-a-1"}
            # The upstream's session is the old one, and so are the ids that it has seen.
            assert earlier
            assert earlier.isdisjoint(seen.json["id"] for seen in server.got("tools/call"))
            assert server.got("initialize") == []
            assert proxy.shared.ids.own_side("a", "up-a-1") == {id}
            # What was set before is set again when the upstream forgets.
            server.restart()
            assert "result" in await client.call()
            assert server.got("logging/setLevel")[-1].json["params"] == {"level": "error"}
            assert server.got("resources/subscribe")[-1].json["params"] == {"uri": "x:a"}
            assert proxy.shared.writer is not None
            assert await proxy.shared.writer.flush(5.0)
            assert (await store.record(id)).upstream_id == "up-a-2"
            await client.delete()
            assert await store.read(id) is None


async def test_a_stored_session_of_an_upstream_no_longer_there() -> None:
    async with mcp_server() as server:
        store = LastingStore()
        id = await _opened_and_left(server.url, store)
        async with (
            ReverseProxy({"b": server.url}, port=0, store=store) as proxy,
            client_of(proxy.port) as client,
        ):
            client.session_id = id
            await refused(await client.begin("tools/list", id=7), 404, -32600, 7)


async def test_the_command_serves_the_same() -> None:
    async with (
        mcp_server(name="a") as server,
        reverse_process("--upstream", f"a={server.url}", "--max-sessions", "1") as child,
        client_of(child.port) as client,
    ):
        await client.initialize()
        assert (await client.call())["result"]["content"][0]["text"] == "a"
        await refused(await client.post(INITIALIZE), 503, -31002, 7)
        assert (await client.delete()).status == 200
        await client.initialize()
        child.process.terminate()
        assert await child.process.wait() == 0


async def test_subscriptions_are_bounded(session: Stand) -> None:
    """Each is kept for a server that forgets it, and what is kept must have an end."""
    uri = "x:" + "a" * 60_000
    answers = [await session.client.call("resources/subscribe", {"uri": f"{uri}{n}"}, n) for n in range(1, 7)]
    assert ["result" in answer for answer in answers] == [True] * 5 + [False]
    assert answers[-1]["error"]["data"]["reason"] == "too_many_subscriptions"
    assert len(session.server.got("resources/subscribe")) == 5
    await session.client.call("resources/unsubscribe", {"uri": f"{uri}1"}, 7)
    assert "result" in await session.client.call("resources/subscribe", {"uri": "x:b"}, 8)

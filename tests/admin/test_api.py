"""What the API shows of sessions, streams and servers, and that a session can be ended."""

from __future__ import annotations

import asyncio

import pytest

from tests.admin.kit import watched_stand
from tests.rig.client import rpc
from tests.rig.server import Call


async def test_a_session_as_it_is_shown() -> None:
    async with watched_stand() as (rig, operator):

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": 1}, id="1")
            await stream.request(5, "roots/list")
            await asyncio.wait((asyncio.ensure_future(call.seen.dropped.wait()),))

        await rig.client.initialize(capabilities={"roots": {}})
        id = rig.client.session_id or ""
        reply = await rig.client.begin("tools/call", {"name": "t"}, "seven")
        await reply.message()
        await reply.message()
        shown = await operator.get(f"/api/sessions/{id[:8]}")
        assert shown["session"] == id[:12]
        assert (shown["upstream"], shown["version"], shown["state"]) == ("a", "2025-11-25", "open")
        assert shown["client"] == {"name": "rig", "version": "1"}
        assert shown["running"] == [{"method": "tools/call", "is_streaming": True}]
        assert (shown["asked"], shown["questions"], shown["is_busy"]) == (["roots/list"], 1, True)
        (stream,) = shown["stored_streams"]
        assert (stream["answers"], stream["last_event"], stream["given_up_to"]) == ('"seven"', 2, 2)
        assert (stream["is_read"], stream["is_finished"], stream["is_resumable"]) == (True, False, True)
        assert (await operator.get("/api/streams"))["streams"] == [stream]
        (row,) = (await operator.get("/api/sessions"))["sessions"]
        assert row == {key: shown[key] for key in row}
        (server,) = (await operator.get("/api/upstreams"))["upstreams"]
        assert (server["upstream"], server["sessions"], server["trouble"]) == ("a", 1, None)
        assert (server["statistics"]["streams_open"], server["statistics"]["connections_taken"]) == (1, 1)
        overview = await operator.get("/api/overview")
        assert (overview["phase"], overview["sessions"], overview["held_events"]) == ("serving", 1, 2)
        reply.close()


async def test_a_session_is_ended() -> None:
    async with watched_stand() as (rig, operator):
        await rig.client.initialize()
        id = rig.client.session_id or ""
        reply = await operator.ask(f"/api/sessions/{id[:12]}", method="DELETE")
        assert (reply.status, await reply.json()) == (200, {"session": id[:12], "is_over": True})
        assert (await rig.client.begin("tools/call")).status == 404
        await rig.server.gets("DELETE")
        reply = await operator.ask(f"/api/sessions/{id[:12]}", method="DELETE")
        assert (reply.status, (await reply.json())["reason"]) == (404, "session_unknown")


async def test_a_session_is_named_by_enough_of_its_id_and_not_by_the_upstreams() -> None:
    async with watched_stand(script={"next_ids": ["0123456789abcdef"]}) as (rig, operator):
        await rig.client.initialize()
        id = rig.client.session_id or ""
        # Whoever could ask for 13 characters would have the whole id after 20 times 16 questions.
        for named in (id[:7], id[:13], id[:31], "%C3%A9" * 16, "0123456789abcdef", "0" * 12, "..", "%2e%2e"):
            reply = await operator.ask(f"/api/sessions/{named}")
            assert reply.status == 404, named
            await reply.body()
        for named in (id[:8], id[:12], id):
            assert (await operator.get(f"/api/sessions/{named}"))["session"] == id[:12]


async def test_two_sessions_that_begin_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["a" * 8 + "1" * 24, "a" * 8 + "2" * 24])
    async with watched_stand() as (rig, operator):
        monkeypatch.setattr("shadowcat.proxy.relay.secrets.token_hex", lambda _: next(ids))
        await rig.client.initialize()
        await rig.client.initialize()
        reply = await operator.ask("/api/sessions/aaaaaaaa", method="DELETE")
        assert (reply.status, (await reply.json())["reason"]) == (404, "session_ambiguous")
        assert (await operator.get("/api/sessions/aaaaaaaa1"))["session"] == "aaaaaaaa1111"


async def test_pages_of_sessions() -> None:
    async with watched_stand() as (rig, operator):
        for _ in range(5):
            await rig.client.initialize(initialized=False)
        seen: list[str] = []
        after, pages = "", 0
        while True:
            page = await operator.get(f"/api/sessions?limit=2{after}")
            assert page["total"] == 5
            seen += [session["session"] for session in page["sessions"]]
            pages += 1
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert (pages, len(seen), sorted(set(seen))) == (3, 5, seen)
        # One that ended meanwhile is no place lost.
        first = await operator.get("/api/sessions?limit=2")
        await (await operator.ask(f"/api/sessions/{first['next']}", method="DELETE")).body()
        rest = await operator.get(f"/api/sessions?after={first['next']}")
        assert [session["session"] for session in rest["sessions"]] == seen[2:]


async def test_pages_of_streams() -> None:
    async with watched_stand(script={"answers_json": False}) as (rig, operator):
        for _ in range(2):
            await rig.client.initialize()
            for number in range(3):
                await rig.client.call(id=number + 1)
        seen: list[tuple[str, int]] = []
        after = ""
        while True:
            page = await operator.get(f"/api/streams?limit=2{after}")
            seen += [(stream["session"], stream["stream"]) for stream in page["streams"]]
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert (len(seen), sorted(set(seen))) == (6, seen)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=501", "limit=-1", "limit=", "limit=1&limit=2", "limit=%D9%A1", "after=x"]
)
async def test_parameters_that_are_none(query: str) -> None:
    async with watched_stand() as (_, operator):
        for path in ("/api/sessions", "/api/streams"):
            reply = await operator.ask(f"{path}?{query}")
            assert (reply.status, (await reply.json())["reason"]) == (400, "bad_parameter")


async def test_what_peers_wrote_is_cut_short_and_inert() -> None:
    async with watched_stand() as (rig, operator):
        name = "<script>alert(1)</script>\n\x1b[31m\u202e" + "x" * 5_000
        info = {"name": name, "version": 7}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        assert (await rig.client.post(rpc("initialize", params, 1))).status == 200
        (row,) = (await operator.get("/api/sessions"))["sessions"]
        # A version that is no text is the server's to complain about.
        assert row["client"] is None
        params["clientInfo"]["version"] = "1"
        assert (await rig.client.post(rpc("initialize", params, 1))).status == 200
        rows = (await operator.get("/api/sessions"))["sessions"]
        (shown,) = [row["client"]["name"] for row in rows if row["client"]]
        assert shown.startswith("<script>alert(1)</script>\\n\\x1b[31m\\u202exxx")
        assert len(shown) < 100
        reply = await operator.ask("/api/sessions")
        assert (reply.headers["content-type"], reply.headers["x-content-type-options"]) == (
            "application/json",
            "nosniff",
        )


async def test_trouble_with_a_server() -> None:
    async with watched_stand() as (rig, operator):
        await rig.server.listener.close()
        assert (await rig.client.post(rpc("initialize", {"protocolVersion": "2025-11-25"}, 7))).status == 503
        (server,) = (await operator.get("/api/upstreams"))["upstreams"]
        assert (server["trouble"]["kind"], server["trouble"]["reason"]) == (
            "upstream_unavailable",
            "connection_refused",
        )
        assert server["faults"] == {"upstream_unavailable": 1}


async def test_what_is_not_there() -> None:
    async with watched_stand() as (rig, operator):
        for path in ("/nothing", "/api", "/mcp", "/api/sessions/../../etc/passwd"):
            reply = await operator.ask(path)
            assert (reply.status, (await reply.json())["reason"]) == (404, "not_found")
        # The clients' port knows nothing of it.
        for path in ("/metrics", "/api/sessions", "/health"):
            reply = await rig.client.request("GET", path=path)
            assert reply.status == 404
            await reply.body()

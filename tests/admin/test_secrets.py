"""What passes is not shown: thirty canaries go through the proxy every way there is, and none comes out here."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from typing import Any

from shadowcat import Admin, ForwardProxy, ReverseProxy
from shadowcat.core.targets import TargetRules
from shadowcat.upstream.command import Command
from tests.admin.kit import TOKEN, Operator, watched_stand
from tests.rig.client import client_of, rpc
from tests.rig.server import Call, mcp_server
from tests.rig.wait import until

PLACES = (
    "header",
    "query",
    "argument",
    "result",
    "error",
    "progress",
    "question",
    "answer",
    "session",
    "token",
)
PLAIN = {place: f"canary-{place}-Zq9" for place in PLACES}
PATHS = (
    "/metrics",
    "/ready",
    "/health",
    "/api/overview",
    "/api/sessions",
    "/api/streams",
    "/api/upstreams",
    "/",
)


def shapes(text: str) -> list[bytes]:
    """As it is, in base64, and escaped as JSON may have it."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in text)
    return [text.encode(), base64.b64encode(text.encode()).rstrip(b"="), escaped.encode()]


async def shown(operator: Operator, feed: list[bytes]) -> bytes:
    pages = [await (await operator.ask(path)).body() for path in PATHS]
    sessions = json.loads(pages[PATHS.index("/api/sessions")])["sessions"]
    for session in sessions:
        pages.append(await (await operator.ask(f"/api/sessions/{session['session']}")).body())
    return b"\n".join([*pages, *feed])


async def test_no_canary_is_shown() -> None:
    script = {"next_ids": [PLAIN["session"]]}
    async with watched_stand(admin={"token": TOKEN}, script=script) as (rig, operator):
        feed = await operator.ask("/api/events")
        told: list[bytes] = []

        async def watch() -> None:
            while True:
                told.append((await feed.message(60.0)).__repr__().encode())

        watching = asyncio.create_task(watch())

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            assert call.params["arguments"]["secret"] == PLAIN["argument"]
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": PLAIN["progress"]}, id="1")
            await stream.request(5, "elicitation/create", {"message": PLAIN["question"]})
            await call.answered(5)
            await stream.send(call.response({"content": [{"type": "text", "text": PLAIN["result"]}]}), id="2")
            await asyncio.wait((asyncio.ensure_future(call.seen.dropped.wait()),))

        @rig.server.on("tools/list")
        async def fail(call: Call) -> None:
            await call.error(-32000, PLAIN["error"], data=PLAIN["error"])

        @rig.server.on("prompts/list")
        async def break_down(call: Call) -> None:
            await call.seen.respond(500, PLAIN["error"].encode(), "text/plain", {"X-Secret": PLAIN["header"]})

        await rig.client.initialize(capabilities={"elicitation": {}})
        headers = [("Authorization", f"Bearer {PLAIN['header']}"), ("X-Api-Key", PLAIN["header"])]
        params = {"name": "t", "arguments": {"secret": PLAIN["argument"]}}
        path = f"/mcp?key={PLAIN['query']}"
        reply = await rig.client.post(
            rpc("tools/call", params, 1), *rig.client.in_session(), *headers, path=path
        )
        await reply.message()
        question = await reply.message()
        # While it runs, with the question open.
        pages = await shown(operator, told)
        answer = {
            "jsonrpc": "2.0",
            "id": question["id"],
            "result": {"action": "accept", "content": {"s": PLAIN["answer"]}},
        }
        assert (await rig.client.send(answer)).status == 202
        await reply.message()
        await rig.client.call("tools/list", id=2)
        await rig.client.call("prompts/list", id=3)
        await (await rig.client.ask("tools/call", params, *headers)).body()
        await until(lambda: told)
        pages += await shown(operator, told)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        # Where they went, so that the test does look at something.
        assert rig.server.got("tools/call")[0].json["params"]["arguments"]["secret"] == PLAIN["argument"]
        assert b"upstream_failed" in pages
        secrets = [*PLAIN.values(), TOKEN, rig.client.session_id or "-"]
        hits = [secret for secret in secrets for shape in shapes(secret) if shape in pages]
        assert hits == []
        assert (rig.client.session_id or "-")[:12].encode() in pages
        # Nor where the servers are.
        assert rig.server.url.encode() not in pages
        feed.close()
        reply.close()


async def test_no_query_of_a_server_that_a_client_named_is_shown() -> None:
    async with (
        mcp_server() as server,
        ForwardProxy(TargetRules(loopback=True), port=0) as proxy,
        Admin(proxy) as admin,
        client_of(proxy.port) as client,
        client_of(admin.port) as asker,
    ):
        host = ("Host", server.url.split("/")[2])
        params: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
        path = f"{server.url}?key={PLAIN['query']}"
        await (await client.post(rpc("initialize", params, 1), host, path=path)).body()
        pages = await shown(Operator(admin, asker), [])
        assert b'"principal"' in pages
        assert PLAIN["query"].encode() not in pages


async def test_nothing_of_a_command_is_shown() -> None:
    code = "import os, sys; sys.stderr.write(os.environ['API_KEY'] + sys.argv[1]); sys.exit(3)"
    env, argument = "canary-env-Zq9", "canary-argv-Zq9"
    command = Command((sys.executable, "-c", code, argument), {"API_KEY": env})
    async with (
        ReverseProxy({"broken": command}, port=0) as proxy,
        Admin(proxy) as admin,
        client_of(proxy.port) as client,
        client_of(admin.port) as asker,
    ):
        operator = Operator(admin, asker)
        params: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {}}
        await (await client.post(rpc("initialize", params, 1))).body()
        pages = await shown(operator, [])
        assert b"command_ended" in pages or b"broken" in pages
        assert [text for text in (env, argument) for shape in shapes(text) if shape in pages] == []


async def test_what_fails_here_is_told_in_the_log_alone(monkeypatch: Any, caplog: Any) -> None:
    async with watched_stand() as (_, operator):

        def fail(*_: object) -> None:
            raise RuntimeError("canary-stack-Zq9")

        monkeypatch.setattr("shadowcat.admin.api.readiness", fail)
        reply = await operator.ask("/ready")
        assert reply.status == 500
        told = await reply.body()
        assert json.loads(told)["reason"] == "internal_error"
        assert b"canary" not in told
        assert "canary-stack-Zq9" in caplog.text

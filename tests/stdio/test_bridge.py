"""A client that speaks stdio, and a server that speaks HTTP: the session between them is the proxy's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from shadowcat import StdioBridge
from shadowcat.downstream import stdio_front
from shadowcat.upstream import tools
from tests.rig.client import modern
from tests.rig.old_server import old_server
from tests.rig.server import MODERN, PV, SUB, Call, Handler, McpServer, Stream, holding, mcp_server
from tests.rig.wait import happens, soon, until
from tests.rig.wire import Seen
from tests.stdio.editor import INITIALIZE, line
from tests.stdio.inside import Inside, running

INITIALIZED = line({"method": "notifications/initialized"})


@dataclass(eq=False)
class Bridge:
    server: McpServer
    client: Inside

    async def initialize(self, version: str = "2025-11-25") -> dict[str, Any]:
        params = {**INITIALIZE, "protocolVersion": version}
        answer = await self.client.ask(line({"id": 0, "method": "initialize", "params": params}))
        self.client.writer.write(INITIALIZED)
        return answer["result"]

    async def call(self, id: Any, **params: Any) -> Any:
        return await self.client.ask(asked(id, **params))

    def server_holds(self, method: str, then: Handler) -> asyncio.Event:
        """What the server answers such requests after."""
        release = asyncio.Event()
        self.server.handlers[method] = holding(release, then)
        return release


async def _no_content(call: Call) -> None:
    await call.result({"content": []})


def asked(id: Any, name: str = "t", **params: Any) -> bytes:
    return line({"id": id, "method": "tools/call", "params": {"name": name, **params}})


def cancelled(id: Any) -> bytes:
    return line({"method": "notifications/cancelled", "params": {"requestId": id}})


def modern_line(method: str, params: dict[str, Any] | None = None, id: Any = 1) -> bytes:
    return json.dumps(modern(method, params, id)).encode() + b"\n"


@asynccontextmanager
async def bridge(url: str, **options: Any) -> AsyncIterator[Inside]:
    def made(stdin: int, stdout: int) -> StdioBridge:
        return StdioBridge({"main": url}, stdin=stdin, stdout=stdout, **options)

    async with running(made) as client:
        yield client


@asynccontextmanager
async def before(script: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Bridge]:
    async with mcp_server(**(script or {})) as server, bridge(server.url, **options) as client:
        yield Bridge(server, client)


# A session.


@pytest.mark.parametrize("answers_json", [True, False], ids=["json", "stream"])
@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_session_of_every_version(version: str, answers_json: bool) -> None:
    async with before({"answers_json": answers_json}) as rig:
        assert (await rig.initialize(version))["protocolVersion"] == version
        for id in (7, "7"):
            answer = await rig.call(id)
            assert (answer["id"], answer["result"]["content"][0]["text"]) == (id, "fixture")
        [upstream_id] = rig.server.sessions
        rig.client.writer.close()
        assert (await rig.server.gets("DELETE")).get("mcp-session-id") == upstream_id
    assert (rig.client.code, rig.client.rest) == (0, b"")


async def test_a_server_of_http_sse() -> None:
    async with old_server() as server, bridge(server.url) as client:
        rig = Bridge(McpServer(), client)
        assert (await rig.initialize())["serverInfo"]["name"] == "old"
        assert (await rig.call(1))["result"]["content"][0]["text"] == '{"name": "t"}'
    assert client.code == 0


async def test_what_comes_on_the_way_comes_before_the_answer() -> None:
    async with before() as rig:

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/progress", {"progressToken": call.token, "progress": 1})
            await stream.request("q", "sampling/createMessage", {"messages": [], "maxTokens": 1})
            answer = await call.answered("q")
            await stream.send(call.response({"content": [], "heard": answer.json["result"]}))
            await stream.end()

        await rig.initialize()
        progress = await rig.call(1, _meta={"progressToken": "mine"})
        assert progress["params"] == {"progressToken": "mine", "progress": 1}
        question = await rig.client.message()
        assert question["method"] == "sampling/createMessage"
        answer = await rig.client.ask(line({"id": question["id"], "result": {"role": "assistant"}}))
        assert (answer["id"], answer["result"]["heard"]) == (1, {"role": "assistant"})


async def test_what_answers_nothing_comes_on_stdout() -> None:
    async with before() as rig:
        await rig.initialize()
        await (await rig.server.listens()).notify("notifications/tools/list_changed")
        assert (await rig.client.message())["method"] == "notifications/tools/list_changed"


async def test_nothing_overtakes_the_word_that_it_is_initialized() -> None:
    async with before() as rig:
        release = rig.server_holds("notifications/initialized", lambda call: call.seen.respond(202))

        await rig.initialize()
        rig.client.writer.write(asked(1))
        await rig.server.gets("notifications/initialized")
        assert rig.server.got("tools/call") == []
        release.set()
        assert (await rig.client.message())["id"] == 1


async def test_a_cancelled_request_is_not_answered() -> None:
    async with before() as rig:
        release = rig.server_holds("tools/call", _no_content)

        await rig.initialize()
        rig.client.writer.write(asked(1))
        call = await rig.server.gets("tools/call")
        rig.client.writer.write(cancelled(1))
        told = await rig.server.gets("notifications/cancelled")
        assert told.json["params"]["requestId"] == call.json["id"]
        release.set()
        answer = await rig.client.ask(line({"id": 2, "method": "tools/list"}))
        assert answer["id"] == 2


async def test_a_request_that_is_cancelled_in_one_breath() -> None:
    async with before() as rig:
        await rig.initialize()
        await rig.server.gets("notifications/initialized")
        rig.client.writer.write(asked(1) + cancelled(1))
        await rig.server.gets("notifications/cancelled")
        assert (await rig.call(2))["id"] == 2


async def test_a_broken_stream_is_read_on_and_nobody_notices() -> None:
    async with before() as rig:

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": 1}, id="e1")
            rig.server.on_get = resumed(call)
            stream.cut()

        def resumed(call: Call) -> Any:
            async def get(seen: Seen) -> None:
                assert seen.get("last-event-id") == "e1"
                await seen.begin("text/event-stream")
                stream = Stream(seen)
                await stream.send(call.response({"content": []}), id="e2")
                await stream.end()

            return get

        await rig.initialize()
        await rig.server.listens()
        assert (await rig.call(1))["params"]["data"] == 1
        assert (await rig.client.message()) == {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}


async def test_a_server_that_forgot_the_session_is_asked_to_open_it_again() -> None:
    async with before() as rig:
        await rig.initialize()
        await rig.call(1)
        rig.server.restart()
        messages = [await rig.call(2)]
        while messages[-1].get("id") != 2:
            messages.append(await rig.client.message())
        assert "result" in messages[-1]
        assert len(rig.server.got("initialize")) == 2


async def test_a_session_that_cannot_go_on_ends_the_process() -> None:
    async with before() as rig:
        await rig.initialize()
        await rig.call(1)
        rig.server.restart()
        rig.server.capabilities = {}
        answer = await rig.call(2)
        assert (answer["id"], answer["error"]["code"]) == (2, -32600)
    assert rig.client.code == 1


async def test_a_server_that_is_not_there_is_told_and_may_come() -> None:
    async with mcp_server() as server:
        url = server.url
    async with bridge(url) as client:
        first = line({"id": 0, "method": "initialize", "params": INITIALIZE})
        for id in (0, 1):
            told = await client.ask(first.replace(b'"id": 0', b'"id": %d' % id))
            assert (told["id"], told["error"]["code"]) == (id, -31005)
        assert (await client.ask(asked(2)))["error"]["message"] == "initialize comes first"
        assert (await client.ask(modern_line("tools/list", id=3)))["error"]["code"] == -31005
    assert (client.code, client.rest) == (0, b"")


async def test_a_batch_is_answered_message_by_message() -> None:
    async with before() as rig:
        await rig.initialize("2025-03-26")
        batch = [json.loads(asked(id)) for id in (1, 2)]
        rig.client.writer.write(json.dumps(batch).encode() + b"\n")
        assert {(await rig.client.message())["id"] for _ in batch} == {1, 2}


async def test_a_batch_of_another_version_is_refused() -> None:
    async with before() as rig:
        await rig.initialize()
        answer = await rig.client.ask(json.dumps([json.loads(asked(1))]).encode() + b"\n")
        assert (answer["id"], answer["error"]["code"]) == (1, -32600)


@pytest.mark.parametrize(
    ("sent", "code", "id"),
    [
        (b"no JSON\n", -32700, None),
        (b'{"jsonrpc":"2.0","id":1}\n', -32600, 1),
        (line({"id": 1, "method": "tools/list", "params": {"_meta": {PV: "1999-01-01"}}}), -32022, 1),
        (b'"' + b"x" * (17 * 1024 * 1024) + b'"\n', -32600, None),
    ],
    ids=["no JSON", "no message", "no version of ours", "too long"],
)  # fmt: skip
async def test_what_is_no_message_is_refused_and_nothing_else(sent: bytes, code: int, id: Any) -> None:
    async with before() as rig:
        await rig.initialize()
        answer = await rig.client.ask(sent)
        assert (answer.get("id"), answer["error"]["code"]) == (id, code)
        assert "result" in await rig.call(2)


async def test_who_asks_too_much_at_once_is_read_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio_front, "MAX_RUNNING", 2)
    async with before() as rig:
        release = rig.server_holds("tools/call", _no_content)

        await rig.initialize()
        for id in range(1, 6):
            rig.client.writer.write(asked(id))
            await rig.client.writer.drain()
            await rig.server.gets("tools/call", min(id, 2))
        release.set()
        assert {(await rig.client.message())["id"] for _ in range(5)} == {1, 2, 3, 4, 5}


# The end.


async def test_what_was_asked_before_the_end_is_answered() -> None:
    async with before() as rig:
        release = rig.server_holds("tools/call", _no_content)

        await rig.initialize()
        rig.client.writer.write(asked(1))
        await rig.server.gets("tools/call")
        rig.client.writer.close()
        release.set()
    assert json.loads(rig.client.rest)["id"] == 1
    assert len(rig.server.got("DELETE")) == 1


async def test_a_client_that_goes_while_it_opens_leaves_nothing() -> None:
    async with before() as rig:
        release = rig.server_holds("initialize", rig.server.initialize)

        rig.client.writer.write(line({"id": 0, "method": "initialize", "params": INITIALIZE}))
        await rig.server.gets("initialize")
        rig.client.writer.close()
        release.set()
        await rig.server.gets("DELETE")
    assert json.loads(rig.client.rest)["id"] == 0


# Modern.


async def test_a_modern_request_gets_its_headers() -> None:
    async with before() as rig:
        answer = await rig.client.ask(modern_line("tools/call", {"name": "Ørjan", "arguments": {}}, "a"))
        assert (answer["id"], answer["result"]["resultType"]) == ("a", "complete")
        [seen] = rig.server.got("tools/call")
        assert (seen.get("mcp-method"), seen.get("mcp-name"), seen.get("mcp-protocol-version")) == (
            "tools/call",
            "=?base64?w5hyamFu?=",
            MODERN,
        )
        assert seen.get("mcp-session-id") is None
        assert rig.server.got("initialize") == []


async def test_arguments_that_a_tool_wants_in_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_LIST_AGAIN_S", 0.0)
    async with before() as rig:
        wanted = "N"

        @rig.server.on("tools/list")
        async def _(call: Call) -> None:
            schema = {"properties": {"n": {"type": "integer", "x-mcp-header": wanted}}}
            await call.result({"tools": [{"name": "t", "inputSchema": schema}]})

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            if (value := call.seen.get(f"Mcp-Param-{wanted}")) is None:
                await call.error(-32020, "Header mismatch", status=400)
            else:
                await call.result({"content": [], "told": value})

        call = {"name": "t", "arguments": {"n": 4}}
        assert (await rig.client.ask(modern_line("tools/call", call)))["result"]["told"] == "4"
        # The tool is another one now, which nobody said.
        wanted = "M"
        assert (await rig.client.ask(modern_line("tools/call", call)))["result"]["told"] == "4"
        assert [len(rig.server.got(what)) for what in ("tools/list", "tools/call")] == [2, 3]


@pytest.mark.parametrize("answers_json", [True, False], ids=["json", "stream"])
async def test_a_tool_whose_headers_cannot_be_made_is_left_out(
    answers_json: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with before({"answers_json": answers_json}) as rig:

        @rig.server.on("tools/list")
        async def _(call: Call) -> None:
            bad = {"properties": {"n": {"type": "number", "x-mcp-header": "N"}}}
            await call.result(
                {"tools": [{"name": "good", "inputSchema": {}}, {"name": "bad", "inputSchema": bad}]}
            )

        listed = await rig.client.ask(modern_line("tools/list"))
        assert [tool["name"] for tool in listed["result"]["tools"]] == ["good"]
    assert "its tool bad is left out" in caplog.text


@pytest.mark.case("MS04")
async def test_a_cancelled_modern_request_closes_its_connection() -> None:
    async with before() as rig:
        dropped = asyncio.Event()

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": "begun"})
            await happens(call.seen.dropped)
            dropped.set()

        begun = await rig.client.ask(modern_line("tools/call", {"name": "t", "arguments": {}}, 5))
        assert begun["params"]["data"] == "begun"
        rig.client.writer.write(cancelled(5))
        await happens(dropped)
        # Nothing more comes for it, and the id is free.
        rig.server.handlers.clear()
        answer = await rig.client.ask(modern_line("tools/call", {"name": "t", "arguments": {}}, 5))
        assert answer["result"]["content"][0]["text"] == "fixture"
        assert rig.server.got("notifications/cancelled") == []


async def test_a_cancelled_modern_request_that_is_not_answered_yet() -> None:
    async with before() as rig:
        dropped = asyncio.Event()

        @rig.server.on("tools/list")
        async def _(call: Call) -> None:
            await happens(call.seen.dropped)
            dropped.set()

        rig.client.writer.write(modern_line("tools/list", id="x"))
        await rig.server.gets("tools/list")
        rig.client.writer.write(cancelled("x"))
        await happens(dropped)
    assert rig.client.rest == b""


async def test_a_subscription_ends_with_the_client() -> None:
    async with before() as rig:
        gone = asyncio.Event()

        @rig.server.on("subscriptions/listen")
        async def _(call: Call) -> None:
            stream = await call.stream()
            meta = {"_meta": {SUB: call.id}}
            await stream.notify("notifications/subscriptions/acknowledged", {**meta, "notifications": {}})
            await happens(call.seen.dropped)
            gone.set()

        told = await rig.client.ask(modern_line("subscriptions/listen", {"notifications": {}}, "L"))
        assert told["params"]["_meta"] == {SUB: "L"}
        rig.client.writer.close()
        await happens(gone)
    assert (rig.client.code, rig.client.rest) == (0, b"")


async def test_a_stream_that_is_lost_is_an_error_of_its_request() -> None:
    async with before() as rig:

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            (await call.stream()).cut()

        answer = await rig.client.ask(modern_line("tools/call", {"name": "t", "arguments": {}}, 1))
        assert (answer["id"], answer["error"]["code"]) == (1, -31004)


async def test_a_missing_method_is_told_as_the_server_does() -> None:
    async with before() as rig:
        answer = await rig.client.ask(modern_line("prompts/list", id=1))
        assert (answer["id"], answer["error"]["code"]) == (1, -32601)


async def test_an_id_in_flight_is_taken() -> None:
    async with before() as rig:
        release = rig.server_holds("tools/list", lambda call: call.result({"tools": []}))

        rig.client.writer.write(modern_line("tools/list", id=1))
        await rig.server.gets("tools/list")
        answer = await rig.client.ask(modern_line("tools/list", id=1))
        assert (answer["id"], answer["error"]["code"]) == (1, -32600)
        release.set()
        assert "result" in await rig.client.message()


async def test_a_client_that_reads_nothing_holds_up_the_server_and_fills_nothing() -> None:
    async with before() as rig:
        sent = 0

        @rig.server.on("tools/call")
        async def _(call: Call) -> None:
            nonlocal sent
            stream = await call.stream()
            for number in range(4_000):
                sent = number + 1
                await stream.notify("notifications/message", {"level": "info", "data": "x" * 10_000})
            await stream.send(call.response({"content": []}))
            await stream.end()

        await rig.initialize()
        transport: Any = rig.client.reading
        transport.pause_reading()
        rig.client.writer.write(asked(1))
        await until(lambda: sent)
        last = -1
        async with soon():
            while sent != last:
                last = sent
                await asyncio.sleep(0.3)
        assert sent < 4_000
        transport.resume_reading()
        for number in range(4_000):
            assert (await rig.client.message())["method"] == "notifications/message", number
        assert (await rig.client.message())["id"] == 1

"""A tape plays the client: what the server answers otherwise is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.replay.kit import against, recorded
from tests.rig.server import Call, McpServer, mcp_server


def params(name: str = "t", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def talkative(server: McpServer, text: str = "hello", *, steps: int = 2) -> None:
    """Reports progress, asks for roots, and answers with what it was given."""

    @server.on("tools/call")
    async def call(call: Call) -> None:
        if call.is_modern:
            await call.result({"content": [{"type": "text", "text": text}]})
            return
        stream = await call.stream()
        for step in range(steps):
            await stream.notify("notifications/progress", {"progressToken": call.token, "progress": step})
        await stream.request(f"roots-{call.id}", "roots/list")
        answer = (await call.answered(f"roots-{call.id}")).json
        await stream.send(
            call.response({"content": [{"type": "text", "text": text}], "roots": answer.get("result")})
        )
        await stream.end()


async def make_tape(directory: Path) -> None:
    async with recorded(directory) as rig:
        talkative(rig.server)
        await rig.client.initialize(capabilities={"roots": {}})
        for id in (1, 2):
            given = {**params(number=id), "_meta": {"progressToken": f"p{id}"}}
            reply = await rig.client.begin("tools/call", given, id)
            while "method" in (message := await reply.message()):
                if message["method"] == "roots/list":
                    await rig.client.send({"jsonrpc": "2.0", "id": message["id"], "result": {"roots": [id]}})
        await rig.client.ask("tools/call", params("modern"))


@pytest.fixture
async def tape(tmp_path: Path) -> Path:
    await make_tape(tmp_path / "tapes")
    return tmp_path / "tapes"


async def test_the_same_server(tape: Path) -> None:
    async with mcp_server(name="a") as server:
        talkative(server)
        found, told = await against(tape, server)
        assert (found.exchanges, told) == (4, [])
        answers = [seen.json["result"] for seen in server.requests if seen.method == "POST" and not seen.rpc]
        assert answers == [{"roots": [1]}, {"roots": [2]}]


async def test_a_server_that_answers_otherwise(tape: Path) -> None:
    async with mcp_server(name="a") as server:
        talkative(server, "good bye")
        found, told = await against(tape, server)
        expected = '/result/content/0/text: expected "hello", got "good bye"'
        assert told == [f"tools/call t {expected}"] * 2 + [f"tools/call modern {expected}"]
        assert found.differences == 3
        _, told = await against(tape, server, ignore=("/result/content/*/text",))
        assert told == []


async def test_a_server_that_tells_more(tape: Path) -> None:
    async with mcp_server(name="a") as server:
        talkative(server, steps=3)
        _, told = await against(tape, server)
        assert told == ["tools/call t notifications/progress: got only"] * 2


async def test_a_server_with_another_name(tape: Path) -> None:
    async with mcp_server(name="other") as server:
        talkative(server)
        _, told = await against(tape, server)
        assert told == ['initialize /result/serverInfo/name: expected "a", got "other"']


async def test_a_server_that_fails(tape: Path) -> None:
    async with mcp_server(name="a") as server:

        @server.on("tools/call")
        async def fail(call: Call) -> None:
            await call.error(-32000, "no")

        _, told = await against(tape, server, wait_s=1.0)
        assert any('expected result, got error {"code":-32000,"message":"no"}' in line for line in told)
        assert "roots/list: expected, did not come" in told


async def test_a_question_that_was_not_on_the_tape_is_refused(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        await rig.client.initialize()
        await rig.client.call(params=params())
    async with mcp_server(name="a") as server:
        talkative(server, steps=0)
        _, told = await against(tmp_path, server, wait_s=0.5)
        assert told == ["tools/call t: expected a result, got none in 0.5 s"]


async def test_a_cancelled_call_is_cancelled_again(tmp_path: Path) -> None:
    async def hold(server: McpServer) -> None:
        @server.on("tools/call")
        async def held(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": "began"})
            await stream.over.wait()

    async with recorded(tmp_path) as rig:
        await hold(rig.server)
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", params(), 5)
        await reply.message()
        await rig.client.notify("notifications/cancelled", {"requestId": 5})
        await rig.server.gets("notifications/cancelled")
    async with mcp_server(name="a") as server:
        await hold(server)
        _, told = await against(tmp_path, server)
        assert told == []
        [cancelled] = server.got("notifications/cancelled")
        [called] = server.got("tools/call")
        assert cancelled.json["params"]["requestId"] == called.json["id"]


async def test_a_secret_in_an_answer_is_no_difference(tmp_path: Path) -> None:
    def secretive(server: McpServer, word: str) -> None:
        @server.on("tools/call")
        async def secret(call: Call) -> None:
            await call.result({"password": word})

    async with recorded(tmp_path) as rig:
        secretive(rig.server, "hunter2")
        await rig.client.initialize()
        await rig.client.call(params=params())
    async with mcp_server(name="a") as server:
        secretive(server, "other")
        assert (await against(tmp_path, server))[1] == []


@pytest.mark.parametrize("way", ["own", "other"])
async def test_a_server_that_talks_without_end(tape: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr("shadowcat.replay.live.MAX_MESSAGES", 5)
    monkeypatch.setattr("shadowcat.replay.inbox.MAX_WAITING", 5)
    async with mcp_server(name="a") as server:

        @server.on("tools/call")
        async def chatter(call: Call) -> None:
            stream = await call.stream()
            for step in range(10):
                if way == "own":
                    progress = {"progressToken": call.token, "progress": step}
                    await stream.notify("notifications/progress", progress)
                else:
                    await stream.notify("notifications/message", {"level": "info", "data": step})
            await stream.send(call.response({}))
            await stream.end()

        _, told = await against(tape, server, wait_s=2.0)
        assert any("5 messages" in line for line in told), told

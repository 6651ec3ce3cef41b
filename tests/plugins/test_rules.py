"""Rules through the real proxy: each action, both ways, on whatever a message travels in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shadowcat.core.rule_file import read_rules
from shadowcat.plugins.redact import Redact, RedactOptions
from shadowcat.plugins.rules import Rules
from tests.rig.client import rpc
from tests.rig.server import Call
from tests.rig.stand import stand
from tests.rig.wait import happens, soon
from tests.stdio.editor import line
from tests.stdio.test_interceptors import inside

LEGACY = ["json", "sse", "batch"]
WAYS = [*LEGACY, "modern json", "modern sse", "stdio"]
BIG = 2**53 + 1

CALL = {"name": "echo", "arguments": {"n": 1, "big": BIG, "secret": "s"}}


def rules(text: str) -> Rules:
    return Rules(read_rules(text))


async def outcome(text: str, way: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The answer to a call, and the calls that the server got."""
    if way == "stdio":
        async with inside(rules(text)) as client:
            answer = await client.ask(line({"id": "x", "method": "tools/call", "params": CALL}))
            heard = await client.ask(
                line({"id": "y", "method": "tools/call", "params": {"name": "heard_so_far"}})
            )
            got = json.loads(heard["result"]["content"][0]["text"])
            return answer, [message["params"] for message in got if message["id"] == "x"]
    async with stand(interceptors=[rules(text)], script={"answers_json": "json" in way}) as rig:
        if way.startswith("modern"):
            reply = await rig.client.ask("tools/call", CALL, id="x")
        else:
            await rig.client.initialize("2025-03-26")
            call = rpc("tools/call", CALL, "x")
            reply = await rig.client.send([call] if way == "batch" else call)
        return await reply.json(), [seen.json["params"] for seen in rig.server.got("tools/call")]


def rule(text: str, match: str = 'tool = "echo"') -> str:
    return f'[[rule]]\nname = "r"\n{match}\n{text}\n'


DOWN = 'tool = "echo"\ndirection = "to_client"'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("match", ['tool = "echo"', DOWN], ids=["request", "response"])
async def test_block(way: str, match: str) -> None:
    answer, got = await outcome(rule('block = "not today"', match), way)
    assert answer["error"] == {
        "code": -31006,
        "message": "not today",
        "data": {"reason": "refused_by_rule", "rule": "r"},
    }
    assert answer["id"] == "x"
    assert len(got) == (1 if match is DOWN else 0)


@pytest.mark.parametrize("way", WAYS)
async def test_reply(way: str) -> None:
    answer, got = await outcome(rule("reply = { result = { content = [], mine = true } }"), way)
    assert answer == {"jsonrpc": "2.0", "id": "x", "result": {"content": [], "mine": True}}
    assert got == []


@pytest.mark.parametrize("way", WAYS)
async def test_reply_with_an_error(way: str) -> None:
    answer, got = await outcome(rule('reply = { error = { code = 7, message = "no" } }'), way)
    assert answer["error"] == {"code": 7, "message": "no"}
    assert got == []


@pytest.mark.parametrize("way", WAYS)
async def test_set_and_remove(way: str) -> None:
    edits = 'set = { "/params/arguments/n" = 2 }\nremove = ["/params/arguments/secret"]'
    answer, (got,) = await outcome(rule(edits), way)
    assert "result" in answer
    assert got["arguments"] == {"n": 2, "big": BIG}


@pytest.mark.parametrize("way", WAYS)
async def test_set_in_a_response(way: str) -> None:
    answer, _ = await outcome(rule('set = { "/result/seen" = true }', DOWN), way)
    assert answer["result"]["seen"] is True
    assert "content" in answer["result"]


@pytest.mark.parametrize("way", WAYS)
async def test_replace_a_result(way: str) -> None:
    answer, _ = await outcome(rule("replace = { content = [] }", DOWN), way)
    assert answer["result"] == {"content": []}


@pytest.mark.parametrize("way", WAYS)
async def test_delay_and_log(way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "shadowcat.rules")
    answer, got = await outcome(rule("delay_s = 0.01\nlog = true"), way)
    assert "result" in answer
    assert len(got) == 1
    (told,) = [record.getMessage() for record in caplog.records if record.name == "shadowcat.rules"]
    assert told.startswith("rule 'r': request tools/call, id 'x'")
    assert str(BIG) not in told


@pytest.mark.parametrize("way", WAYS)
async def test_what_no_rule_matches_passes(way: str) -> None:
    answer, (got,) = await outcome(rule("block = true", 'tool = "another"'), way)
    assert "result" in answer
    assert got["arguments"] == CALL["arguments"]


async def test_hold_and_edit() -> None:
    interceptor = rules(rule('hold = true\nset = { "/params/arguments/n" = 2 }'))
    async with stand(interceptors=[interceptor]) as rig:
        await rig.client.initialize()
        asking = asyncio.create_task(rig.client.call(id=1, params=CALL))
        async with soon():
            while not interceptor.desk.held():  # noqa: ASYNC110 - the desk tells nobody
                await asyncio.sleep(0.005)
        (held,) = interceptor.desk.held()
        assert (held.reason, held.message.params()["arguments"]["n"]) == ("r", 2)
        assert rig.server.got("tools/call") == []
        interceptor.desk.release(held.id)
        async with soon():
            assert "result" in await asking
        assert rig.server.got("tools/call")[0].json["params"]["arguments"]["n"] == 2


async def test_a_question_of_the_servers_and_its_answer() -> None:
    text = rule('set = { "/result/roots" = [] }', 'method = "roots/list"')
    async with stand(interceptors=[rules(text)]) as rig:

        @rig.server.on("tools/call")
        async def asks(call: Call) -> None:
            stream = await call.stream()
            await stream.request("ask", "roots/list")
            await call.answered("ask")
            await stream.send(call.response({"content": []}))
            await happens(call.seen.dropped)

        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        asked = await reply.message()
        await rig.client.send(
            {"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": [{"uri": "file:///"}]}}
        )
        assert (await rig.server.answer_to("ask")).json["result"] == {"roots": []}


async def test_redaction_on_the_way() -> None:
    key = "sk-ant-api03-" + "a1B2" * 12
    for towards in ("client", "server"):
        async with inside(Redact(RedactOptions(towards=towards))) as client:  # type: ignore[arg-type]
            call = {"name": "echo", "arguments": {"password": "hunter2", "text": key}}
            answer = await client.ask(line({"id": 1, "method": "tools/call", "params": call}))
            assert key not in json.dumps(answer)
            assert "hunter2" not in json.dumps(answer)

"""A tape plays the server: what was answered is answered, in the same order, to whom it was answered."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shadowcat.app.replay import recording_at
from shadowcat.core.exchange import PASS, Caller, Context, Direction, Reject, Replace, Reply
from shadowcat.core.interceptor import Interceptor, Judgement
from shadowcat.errors import Fault, FaultKind
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.replay.conversation import Conversation
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.pipe import TapePipe
from shadowcat.replay.server import TapeServer
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from tests.replay.kit import played, playing, recorded
from tests.rig.children import tool
from tests.rig.client import client_of
from tests.rig.server import SUB, Call, McpServer
from tests.rig.wait import happens, soon, until
from tests.stdio.editor import INITIALIZE, line
from tests.stdio.test_interceptors import inside


def counting(server: McpServer) -> None:
    numbers = iter(range(1, 100))

    @server.on("tools/call")
    async def count(call: Call) -> None:
        await call.result({"number": next(numbers), "arguments": call.params.get("arguments")})


def params(**arguments: Any) -> dict[str, Any]:
    return {"name": "t", "arguments": arguments}


@pytest.mark.parametrize("kind", ["json", "sse"])
async def test_the_nth_of_the_same_gets_the_nth_answer(tmp_path: Path, kind: str) -> None:
    async with recorded(tmp_path, script={"answers_json": kind == "json"}) as rig:
        counting(rig.server)
        await rig.client.initialize()
        for value in "aba":
            await rig.client.call(params=params(x=value))
    async with played(tmp_path) as client:
        await client.initialize()
        numbers = [(await client.call(params=params(x=value)))["result"]["number"] for value in "baaa"]
        assert numbers == [2, 1, 3, 3]


async def test_ids_and_meta_may_be_others(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params={**params(x=1), "_meta": {"trace": "a"}}, id=7)
    async with played(tmp_path) as client:
        await client.initialize()
        answer = await client.call(params={**params(x=1), "_meta": {"trace": "b"}}, id="other")
        assert (answer["id"], answer["result"]["number"]) == ("other", 1)


async def test_what_is_not_on_the_tape_is_named(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params=params(x=1, y={"z": "old"}))
        await rig.client.call(params=params(other=True))
    async with played(tmp_path) as client:
        await client.initialize()
        error = (await client.call(params=params(x=1, y={"z": "new"})))["error"]
        assert error["code"] == -31008
        assert 'has "old" at /params/arguments/y/z, not "new"' in error["message"]
        assert error["data"]["nearest"]["seq"] == 4
        error = (await client.call("prompts/list"))["error"]
        assert error["message"] == "Not on the tape: prompts/list. It has initialize, tools/call"


async def test_strict(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params={**params(), "_meta": {"trace": "a", "progressToken": 1}})
    async with played(tmp_path, strict=True) as client:
        await client.initialize()
        error = (await client.call(params={**params(), "_meta": {"trace": "b", "progressToken": 2}}))["error"]
        assert "/params/_meta/trace" in error["message"]
        same = {**params(), "_meta": {"trace": "a", "progressToken": 2}}
        assert (await client.call(params=same))["result"]["number"] == 1
        assert "less often" in (await client.call(params=same))["error"]["message"]


async def test_what_is_ignored(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params=params(nonce=1))
    async with played(tmp_path, ignore=("/params/arguments/nonce",)) as client:
        await client.initialize()
        assert (await client.call(params=params(nonce=2)))["result"]["number"] == 1


async def test_progress_comes_under_the_token_of_today(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:

        @rig.server.on("tools/call")
        async def progress(call: Call) -> None:
            stream = await call.stream()
            for step in (1, 2):
                given = {"progressToken": call.token, "progress": step}
                await stream.notify("notifications/progress", given)
            await stream.notify("notifications/message", {"level": "info", "data": "done"})
            await stream.send(call.response({"content": []}))
            await stream.end()

        await rig.client.initialize()
        await (
            await rig.client.begin("tools/call", {**params(), "_meta": {"progressToken": "old"}})
        ).messages()
    async with played(tmp_path) as client:
        await client.initialize()
        reply = await client.begin("tools/call", {**params(), "_meta": {"progressToken": "new"}}, 9)
        *told, answer = await reply.messages()
        assert [one["params"].get("progressToken") for one in told] == ["new", "new", None]
        assert answer["id"] == 9
        *told, _ = await (await client.begin("tools/call", params())).messages()
        assert [one["method"] for one in told] == ["notifications/message"]


async def test_progress_that_was_recorded_on_stdio(tmp_path: Path) -> None:
    recorder = Recorder(RecordOptions(directory=str(tmp_path)), clients="stdio")
    recorder.start()
    async with inside(taps=(recorder,)) as editor:
        await editor.ask(line({"id": 0, "method": "initialize", "params": INITIALIZE}))
        editor.writer.write(line({"id": 1, "method": "tools/call", "params": tool("count", token=5, to=2)}))
        while (await editor.message()).get("id") != 1:
            pass
    recorder.close()
    async with played(tmp_path) as client:
        await client.initialize()
        *told, _ = await (await client.begin("tools/call", tool("count", token=6, to=2))).messages()
    assert [one["params"] for one in told] == [{"progressToken": 6, "progress": step} for step in (1, 2)]


async def test_what_came_after_the_client_s_answer_waits_for_it(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:

        @rig.server.on("tools/call")
        async def ask(call: Call) -> None:
            stream = await call.stream()
            await stream.request("q", "roots/list")
            await call.answered("q")
            await stream.notify("notifications/message", {"level": "info", "data": "heard"})
            await stream.send(call.response({"content": []}))
            await stream.end()

        await rig.client.initialize(capabilities={"roots": {}})
        reply = await rig.client.begin("tools/call", params())
        asked = await reply.message()
        await rig.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        await reply.messages()
    async with played(tmp_path) as client:
        await client.initialize(capabilities={"roots": {}})
        reply = await client.begin("tools/call", params())
        asked = await reply.message()
        assert asked["method"] == "roots/list"
        other = await client.begin("tools/call", params(), 2)
        assert (await other.message())["method"] == "roots/list"
        await client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        rest = await reply.messages()
        assert [one.get("method", "answer") for one in rest] == ["notifications/message", "answer"]


async def test_the_standalone_stream_comes_as_the_client_comes_along(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:

        @rig.server.on("tools/call")
        async def change(call: Call) -> None:
            await rig.server.listening[0].notify("notifications/tools/list_changed")
            await call.result({})

        await rig.client.initialize()
        listening = await rig.client.listen()
        await rig.server.listens()
        await rig.client.call(params=params())
        await listening.message()
    async with played(tmp_path) as client:
        await client.initialize()
        listening = await client.listen()
        await client.call(params=params())
        assert (await listening.message())["method"] == "notifications/tools/list_changed"


async def test_sessions_of_the_tape_are_given_out(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        for name in ("first", "second"):
            client = await rig.another_client()
            await client.initialize(capabilities={"experimental": {name: {}}})
            await client.call(params=params())
    seen: list[int] = []
    for name in ("second", "first", "third"):
        async with played(tmp_path) as client:
            await client.initialize(capabilities={"experimental": {name: {}}})
            seen.append((await client.call(params=params()))["result"]["number"])
    assert seen == [2, 1, 1]


async def test_no_session_is_left_when_strict(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        await rig.client.initialize()
    async with played(tmp_path, strict=True) as client:
        await client.initialize()
        reply = await client.post(jsonrpc.request(1, "initialize", {"protocolVersion": "2025-11-25"}).raw)
        assert "still unused" in (await reply.json())["error"]["message"]


async def test_modern_traffic(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.ask("tools/call", params(x=1))
        await rig.client.ask("vendor/unknown")
    async with played(tmp_path) as client:
        answer = await (await client.ask("tools/call", params(x=1), id="new")).json()
        assert (answer["id"], answer["result"]["number"]) == ("new", 1)
        reply = await client.ask("vendor/unknown")
        assert (reply.status, (await reply.json())["error"]["code"]) == (404, -32601)


async def test_what_a_modern_server_said_on_stdio_comes_with_the_call_that_ran(tmp_path: Path) -> None:
    """On the tape nothing says whose it was: there is one pipe for all."""
    recorder = Recorder(RecordOptions(directory=str(tmp_path)), clients="stdio")
    recorder.start()
    up, down = (Context(Era.MODERN, direction, Caller(), "main") for direction in Direction)
    for number in (1, 2):
        request = jsonrpc.request(number, "tools/call", params(x=number))
        recorder.saw(request, up, PASS)
        said = jsonrpc.notification("notifications/message", {"level": "info", "data": number})
        recorder.saw(said, down, PASS)
        recorder.saw(jsonrpc.result(number, {}), msgspec.structs.replace(down, request=request), PASS)
    recorder.close()
    async with played(tmp_path) as client:
        told, answer = await (await client.ask("tools/call", params(x=2), id="new")).messages()
    assert told["params"]["data"] == 2
    assert answer["id"] == "new"


async def test_a_subscription_ends_in_form_when_the_player_is_to_stop(tmp_path: Path) -> None:
    acknowledged = "notifications/subscriptions/acknowledged"
    async with recorded(tmp_path) as rig:

        @rig.server.on("subscriptions/listen")
        async def _(call: Call) -> None:
            await (await call.stream()).notify(acknowledged, {"_meta": {SUB: call.id}})
            await happens(call.seen.dropped)

        listening = await rig.client.ask("subscriptions/listen", {"notifications": {}}, id="old")
        await listening.message()
    async with playing(tmp_path) as proxy, client_of(proxy.port) as client:
        listening = await client.ask("subscriptions/listen", {"notifications": {}}, id="new")
        assert (await listening.message())["params"]["_meta"][SUB] == "new"
        async with soon():
            await proxy.drain(10)
        [ended] = await listening.messages()
        assert (ended["id"], ended["result"]["_meta"][SUB]) == ("new", "new")


async def test_a_secret_is_matched_by_its_place(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params=params(password="hunter2", x=1))
    async with played(tmp_path) as client:
        await client.initialize()
        assert (await client.call(params=params(password="another", x=1)))["result"]["number"] == 1


class Rule(Interceptor):
    """Gives one verdict on each of three tools, and changes what a fourth one is answered."""

    def on_request(self, message: Message, context: Context) -> Judgement:
        match message.params().get("name"):
            case "replied":
                return Reply(jsonrpc.result(1, {"from": "rule"}))
            case "rejected":
                return Reject(Fault(FaultKind.REFUSED_BY_RULE))
            case "replaced":
                return Replace(jsonrpc.request(1, "tools/call", {"name": "other"}))
            case _:
                return super().on_request(message, context)

    def on_response(self, message: Message, context: Context) -> Judgement:
        if context.request is not None and context.request.params().get("name") == "changed":
            return Replace(jsonrpc.result(1, {"from": "changed"}))
        return super().on_response(message, context)


async def test_the_client_gets_what_it_got_whoever_had_made_it(tmp_path: Path) -> None:
    names = ("replied", "rejected", "replaced", "changed")
    answers: list[list[Any]] = [[], []]
    async with recorded(tmp_path, interceptors=[Rule()]) as rig:
        counting(rig.server)
        await rig.client.initialize()
        for name in names:
            answers[0].append(await rig.client.call(params={"name": name}))
    async with played(tmp_path) as client:
        await client.initialize()
        for name in names:
            answers[1].append(await client.call(params={"name": name}))
    assert answers[0] == answers[1]
    assert [one.get("result", {}).get("from") for one in answers[1]] == ["rule", None, None, "changed"]


async def test_what_had_no_answer_is_told(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:

        @rig.server.on("tools/call")
        async def cut(call: Call) -> None:
            (await call.stream()).cut()

        await rig.client.initialize()
        told = await rig.client.call(params=params())
    async with played(tmp_path) as client:
        await client.initialize()
        again = await client.call(params=params())
        assert again["error"]["data"] == told["error"]["data"]


async def test_at_the_speed_of_the_tape(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        counting(rig.server)
        await rig.client.initialize()
        await rig.client.call(params=params())
    async with played(tmp_path, speed=100.0) as client:
        await client.initialize()
        assert (await client.call(params=params()))["result"]["number"] == 1


async def test_nothing_is_held_of_what_is_not_on_the_tape(tmp_path: Path) -> None:
    async with recorded(tmp_path) as rig:
        await rig.client.initialize()
        await rig.client.call(params=params(x=1))
    options = ReplayOptions()
    with recording_at(str(tmp_path), options) as recording:
        conversation = Conversation(recording, recording.sessions[0], options)
        for number in range(1, 10):
            await conversation.answer(jsonrpc.request(number, "tools/call", params(y=number)))
            conversation.heard(jsonrpc.notification(f"notifications/made-up-{number}"))
        assert (len(conversation._asked), len(conversation._told)) == (0, 0)


async def test_a_client_on_stdio_that_reads_nothing_is_held_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadowcat.replay.pipe.MAX_IN_FLIGHT", 5)
    async with recorded(tmp_path) as rig:
        await rig.client.initialize()
    options = ReplayOptions()
    with recording_at(str(tmp_path), options) as recording:
        waiting: list[bytes] = []

        async def never(line: bytes) -> None:
            waiting.append(line)
            await asyncio.Event().wait()

        pipe = TapePipe(TapeServer(recording, options), never)
        pipe.heard([jsonrpc.request(number, "ping").raw for number in range(50)])
        pipe.heard([b"{"] * 50)
        await until(lambda: len(waiting) == 10)
        await pipe.aclose()
        assert len(waiting) == 10

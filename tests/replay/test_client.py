"""A tape plays the client: what the server answers otherwise is named."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from shadowcat.app.replay import recording_at
from shadowcat.core.exchange import PASS, Answer, Context, Direction, Forwarded
from shadowcat.core.ports import Upstream
from shadowcat.replay import walk
from shadowcat.replay.client import TapeClient
from shadowcat.replay.files import tapes_in
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import RecordedSession
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from shadowcat.wire.tape import TapeError
from tests.plugins.recording.kit import DOWN, UP, answer, call, context, recording
from tests.replay.kit import against, recorded
from tests.rig.server import Call, McpServer, mcp_server
from tests.rig.wait import soon


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
        # Nobody waits for an answer that the tape does not have.
        async with soon(60):
            _, told = await against(tmp_path, server, wait_s=600)
        assert told[0] == "roots/list: asked by the server, and not on the tape"
        assert any(line.startswith("tools/call t /result") for line in told)


def without_last_words(directory: Path) -> None:
    """As the tape of a proxy that was killed: what runs when one stops is answered by it."""
    [tape] = directory.glob("*.tape")
    lines = tape.read_bytes().splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if b"session_ended" in line)
    tape.write_bytes(b"".join(lines[:first]))


@pytest.mark.parametrize("how", ["failed", "unanswered"])
async def test_what_the_proxy_said_on_the_tape_is_not_taken_for_the_server_s(
    tmp_path: Path, how: str
) -> None:
    async with recorded(tmp_path) as rig:

        @rig.server.on("tools/call")
        async def cut(call: Call) -> None:
            if call.params["name"] != "bad":
                await call.result({"content": []})
            elif how == "failed":
                call.seen.cut()
            else:
                stream = await call.stream()
                await stream.notify("notifications/message", {"level": "info", "data": "began"})
                await stream.over.wait()

        await rig.client.initialize()
        await rig.client.call(params=params())
        reply = await rig.client.begin("tools/call", params("bad"), 2)
        if how == "failed":
            assert (await reply.json())["error"]["code"] == -31004
        else:
            await reply.message()
    if how == "unanswered":
        without_last_words(tmp_path)
    async with mcp_server(name="a") as server:
        found, told = await against(tmp_path, server, wait_s=5.0)
        whose = {
            "failed": "on the tape the proxy answered it",
            "unanswered": "the tape has no answer to it",
        }
        assert f"tools/call bad: not compared, {whose[how]}" in told
        assert (found.exchanges, found.uncompared) == (3, 1)


@pytest.mark.parametrize("listed", ["tape", "server", "nowhere"])
async def test_arguments_are_repeated_in_the_headers_that_their_tool_wants(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, listed: str
) -> None:
    def with_tools(server: McpServer, header: str) -> None:
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": header}}}

        @server.on("tools/list")
        async def tools(call: Call) -> None:
            await call.result({"tools": [{"name": "t", "inputSchema": schema}]})

    async with recorded(tmp_path) as rig:
        with_tools(rig.server, "Region")
        if listed != "nowhere":
            await rig.client.ask("tools/list")
        answer = await rig.client.ask(
            "tools/call", params(region="ø"), ("Mcp-Param-Region", "=?base64?w7g=?=")
        )
        assert (await answer.json())["result"]
    async with mcp_server(name="a") as server:
        with_tools(server, "Region" if listed == "tape" else "Place")
        await against(tmp_path, server)
        [called] = server.got("tools/call")
        sent = {name: value for name, value in called.headers if name.startswith("mcp-param-")}
        assert (
            sent
            == {
                "tape": {"mcp-param-region": "=?base64?w7g=?="},
                "server": {"mcp-param-place": "=?base64?w7g=?="},
                "nowhere": {},
            }[listed]
        )
    assert ("1 call went without the Mcp-Param-* headers" in caplog.text) is (listed == "nowhere")


CALLED = b'"kind":"request","method":"tools/call"'


@pytest.mark.parametrize(
    ("was", "lie", "told"),
    [
        (CALLED, b'"kind":"result","method":"tools/call"', "its line says 'result' 'tools/call'"),
        (CALLED, b'"kind":"request","method":"tools/list"', "its line says 'request' 'tools/list'"),
        (b'"seq":4,"ms":', b'"seq":4,"ms":1e300,"was":', "line 5"),
        (b'"seq":4,"ms":', b'"seq":4,"ms":-1,"was":', "line 5"),
        (CALLED, CALLED + b',"outcome":"rejected"', "no error"),
        (CALLED, CALLED + b',"outcome":"rejected","became":[1]', "no error"),
        (CALLED, CALLED + b',"outcome":"invented"', "'invented' is not known"),
        (
            CALLED,
            CALLED + b',"outcome":"replaced","became":{"jsonrpc":"2.0","method":"m"}',
            "became another kind",
        ),
        (CALLED, CALLED + b',"outcome":"replied","became":{"jsonrpc":"2.0","method":"m"}', "is no answer"),
    ],
)
async def test_a_line_that_lies_is_an_error(tmp_path: Path, was: bytes, lie: bytes, told: str) -> None:
    async with recorded(tmp_path) as rig:
        await rig.client.initialize()
        await rig.client.call(params=params())
    [path] = tapes_in(tmp_path)
    content = path.read_bytes()
    assert content.count(was) == 1
    path.write_bytes(content.replace(was, lie))
    with pytest.raises(TapeError, match=told), recording_at(str(tmp_path), ReplayOptions()):
        pass


def test_a_pause_is_bounded() -> None:
    options = ReplayOptions(speed=1e-300)
    assert (options.pause_s(1.0), options.pause_s(-5.0)) == (3_600.0, 0.0)
    assert ReplayOptions(speed=2.0).pause_s(1_000) == 0.5
    assert ReplayOptions().pause_s(1e13) == 0.0


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


class SlowCommand:
    """Stands for one that takes its time before it says anything, and answers at once from then on."""

    def __init__(self, start_s: float, *, is_quick_after: bool = True) -> None:
        self._start_s = start_s
        self._is_quick_after = is_quick_after

    async def exchange(self, message: Message, forwarded: Forwarded = ()) -> Answer:
        await asyncio.sleep(self._start_s)
        if self._is_quick_after:
            self._start_s = 0.0
        assert message.id is not None
        return Answer(whole=jsonrpc.result(message.id, {"ok": True}))


@pytest.mark.parametrize("is_quick_after", [True, False])
async def test_the_start_of_a_command_is_not_waited_for_as_an_answer_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_quick_after: bool
) -> None:
    with recording(tmp_path) as traffic:
        for id in (1, 2):
            request = call(id)
            traffic.recorder.saw(request, modern(UP), PASS)
            traffic.recorder.saw(answer(request, ok=True), modern(DOWN, request), PASS)
    told: list[str] = []
    options = ReplayOptions(wait_s=0.1)
    upstream = cast(Upstream, SlowCommand(0.3, is_quick_after=is_quick_after))
    with recording_at(str(tmp_path), options) as tape:
        await TapeClient(tape, upstream, options, told.append, is_command=True).run()
    assert told == ([] if is_quick_after else ["tools/call t: expected a result, got none in 0.1 s"])
    # A command sees no headers.
    assert "Mcp-Param-*" not in caplog.text


async def test_a_command_may_begin_to_speak_in_the_moment_that_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "_START_S", 0.0)
    options = ReplayOptions(wait_s=0.001)
    upstream = cast(Upstream, SlowCommand(0.0))
    nobody = list[str]().append
    with recording(tmp_path) as traffic:
        traffic.recorder.saw(call(1), modern(UP), PASS)
    with recording_at(str(tmp_path), options) as tape:
        walked = walk.Walk(tape, RecordedSession("s"), upstream, options, nobody, nobody, is_command=True)

        async def late() -> None:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                walked._said()  # pyright: ignore[reportPrivateUsage]

        assert not await walked._within(late())  # pyright: ignore[reportPrivateUsage]


def modern(direction: Direction, request: Message | None = None) -> Context:
    return replace(context(direction, request), era=Era.MODERN, session_id=None)

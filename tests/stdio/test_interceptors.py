"""Interceptors on stdio: each verdict, both ways, and what they know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shadowcat import Interceptor, StdioForward
from shadowcat.core.exchange import PASS, Context, Direction, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault, FaultKind
from shadowcat.plugins.hold import HoldDesk
from shadowcat.proxy import passage
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from tests.rig.children import QUICK, speaker, text, tool
from tests.rig.everywhere import Everywhere
from tests.rig.wait import happens, until
from tests.stdio.editor import INITIALIZE, call, line
from tests.stdio.inside import Inside, running

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
NO = Reject(Fault(FaultKind.REFUSED_BY_RULE))
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Rule(Everywhere):
    """Keeps what it saw; gives its verdict where there is one."""

    def __init__(self, verdict: Callable[[Message, Context], Verdict | None] = lambda *_: None) -> None:
        self.seen: list[tuple[Message, Context]] = []
        self._verdict = verdict

    def judge(self, message: Message, context: Context) -> Verdict:
        self.seen.append((message, context))
        return self._verdict(message, context) or PASS


@asynccontextmanager
async def inside(
    *interceptors: Any, flags: tuple[str, ...] = (), taps: tuple[Any, ...] = ()
) -> AsyncIterator[Inside]:
    def forward(stdin: int, stdout: int) -> StdioForward:
        return StdioForward(
            speaker(*flags),
            interceptors=interceptors,
            taps=taps,
            patience=QUICK,
            stdin=stdin,
            stdout=stdout,
        )

    async with running(forward) as client:
        yield client


async def test_what_nobody_changes_passes_as_it_came() -> None:
    rule = Rule()
    async with inside(rule) as client:
        odd = b'{ "id":1 ,"jsonrpc":"2.0","params":{"name":"echo","arguments":{"n":1e2}}, "method":"tools/call"}'
        answer = await client.ask(odd + b"\n")
        assert json.loads(text(answer)) == {"n": 100.0}
    assert client.code == 0
    (asked, up), (answered, down) = rule.seen
    assert (asked.raw, asked.method, up.direction, up.request) == (odd, "tools/call", UP, None)
    assert (answered.id, down.direction, down.request) == (1, DOWN, asked)
    assert up.upstream.startswith("python")
    assert up.session_id is not None
    assert up.session_id == down.session_id


async def test_the_era_is_that_of_the_opening() -> None:
    rule = Rule()
    async with inside(rule) as client:
        await client.ask(line({"id": 0, "method": "initialize", "params": INITIALIZE}))
        await client.ask(line({"id": 1, "method": "server/discover", "params": {"_meta": META}}))
    eras = [(context.era, context.session_id is None) for _, context in rule.seen]
    assert eras == [(Era.LEGACY, False)] * 2 + [(Era.MODERN, True)] * 2


async def test_replace() -> None:
    def change(message: Message, context: Context) -> Verdict | None:
        if message.method == "tools/call":
            return Replace(jsonrpc.request("other", "tools/call", tool("echo", changed=1)))
        return Replace(jsonrpc.result(99, {"seen": message.result()})) if message.is_response else None

    async with inside(Rule(change)) as client:
        answer = await client.ask(call("x", "pid"))
    assert answer["id"] == "x"
    assert json.loads(answer["result"]["seen"]["content"][0]["text"]) == {"changed": 1}


async def test_reply_and_reject_go_to_who_asked() -> None:
    def judge(message: Message, context: Context) -> Verdict | None:
        name = message.params().get("name") if message.method == "tools/call" else None
        if name == "env":
            return Reply(jsonrpc.result(0, {"instead": True}))
        return NO if name == "die" else None

    async with inside(Rule(judge)) as client:
        assert (await client.ask(call("a", "env"))) == {
            "jsonrpc": "2.0",
            "id": "a",
            "result": {"instead": True},
        }
        refused = await client.ask(call(2, "die"))
        assert (refused["id"], refused["error"]["code"]) == (2, -31006)
        assert len(json.loads(text(await client.ask(call(3, "heard_so_far"))))) == 1


@pytest.mark.parametrize("verdict", ["reply", "reject"])
async def test_a_question_of_the_server_is_answered_to_the_server(verdict: str) -> None:
    def judge(message: Message, context: Context) -> Verdict | None:
        if message.method != "roots/list":
            return None
        return NO if verdict == "reject" else Reply(jsonrpc.result(0, {"roots": ["mine"]}))

    async with inside(Rule(judge)) as client:
        got = json.loads(text(await client.ask(call(1, "ask", id="q"))))
    if verdict == "reply":
        assert got == {"result": {"roots": ["mine"]}}
    else:
        assert got["error"]["code"] == -31006


async def test_an_answer_that_is_refused() -> None:
    rule = Rule(lambda message, context: NO if message.is_response else None)
    async with inside(rule) as client:
        answer = await client.ask(call(1, "pid"))
        assert (answer["id"], answer["error"]["code"]) == (1, -31006)


async def test_a_notification_that_is_refused_is_dropped() -> None:
    rule = Rule(lambda message, context: NO if message.is_notification else None)
    async with inside(rule) as client:
        answer = await client.ask(call(1, "flood", count=5, size=1))
        assert answer["id"] == 1


async def test_a_crash_of_an_interceptor_refuses(caplog: pytest.LogCaptureFixture) -> None:
    def crash(message: Message, context: Context) -> Verdict | None:
        raise ZeroDivisionError

    async with inside(Rule(crash)) as client:
        answer = await client.ask(call(1, "pid"))
        assert answer["error"]["data"] == {"reason": "interceptor_failed"}


@pytest.mark.parametrize(
    ("sent", "id", "code"),
    [
        (b"what?", None, -32700),
        (b'{"jsonrpc":"2.0","id":4,"method":"a","method":"b"}', 4, -32600),
        (b'{"jsonrpc":"2.0","id":4,"method":"a","params":{"x":NaN}}', None, -32700),
    ],
)
async def test_what_they_cannot_read_does_not_pass(sent: bytes, id: Any, code: int) -> None:
    rule = Rule()
    async with inside(rule) as client:
        answer = await client.ask(sent + b"\n")
        assert (answer["id"], answer["error"]["code"]) == (id, code)
        assert json.loads(text(await client.ask(call(5, "heard_so_far"))))[0]["id"] == 5


async def test_a_batch_is_judged_message_by_message() -> None:
    rule = Rule(lambda message, context: NO if message.id == 2 else None)
    async with inside(rule) as client:
        batch = b"[" + call(1, "pid").strip() + b"," + call(2, "die").strip() + b"]\n"
        client.writer.write(batch)
        answers = {answer["id"]: answer for answer in (await client.message(), await client.message())}
        assert answers[2]["error"]["code"] == -31006
        assert "result" in answers[1]


async def test_broken_answers_are_told() -> None:
    async with inside(Rule()) as client:
        answer = await client.ask(call(3, "garble", raw='{"jsonrpc":"2.0","id":ID,"result":NaN}'))
        assert (answer["id"], answer["error"]["code"]) == (3, -31003)


async def test_a_server_that_ends_while_an_interceptor_thinks() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Interceptor):
        deadline_s = 60.0

        async def on_request(self, message: Message, context: Context) -> Verdict:
            if message.method == "tools/call" and message.params()["name"] == "pid":
                began.set()
                await happens(go_on)
            return PASS

    async with inside(Slow()) as client:
        client.writer.write(call(1, "die", code=0) + call(2, "pid"))
        await happens(began)
        answers = [await client.message(), await client.message()]
        assert [(answer["id"], answer["error"]["code"]) for answer in answers] == [(1, -31004), (2, -31004)]
        go_on.set()
    assert client.rest == b""


class Holding(Interceptor):
    """Holds what asks for `pid`, and thinks for a moment about all else."""

    def __init__(self) -> None:
        self.desk = HoldDesk()

    async def on_request(self, message: Message, context: Context) -> Verdict:
        if message.method == "tools/call" and message.params()["name"] == "pid":
            return await self.desk.hold(message, context)
        await asyncio.sleep(0)
        return PASS


async def _held(client: Inside, holding: Holding, id: int) -> int:
    client.writer.write(call(id, "pid"))
    await until(lambda: len(holding.desk.held()) == 1)
    return holding.desk.held()[0].id


async def test_what_a_person_holds_is_passed_by_what_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "ASIDE_AFTER_S", 0.05)
    holding = Holding()
    async with inside(holding) as client:
        held = await _held(client, holding, 1)
        assert (await client.ask(call(2, "heard_so_far")))["id"] == 2
        assert holding.desk.release(held)
        assert (await client.message())["id"] == 1


async def test_what_is_cancelled_while_it_is_held_never_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "ASIDE_AFTER_S", 0.05)
    holding = Holding()
    async with inside(holding) as client:
        held = await _held(client, holding, 1)
        client.writer.write(line({"method": "notifications/cancelled", "params": {"requestId": 1}}))
        await until(lambda: not holding.desk.held())
        assert not holding.desk.release(held)
        answer = await client.ask(call(2, "heard_so_far"))
        got = json.loads(answer["result"]["content"][0]["text"])
        assert [one["method"] for one in got] == ["tools/call"]
        assert got[0]["id"] == 2
        # Its id is free again.
        held = await _held(client, holding, 1)
        assert holding.desk.release(held)
        assert (await client.message())["id"] == 1
    assert client.rest == b""


async def test_a_moment_changes_no_order() -> None:
    async with inside(Holding()) as client:
        client.writer.write(b"".join(call(id, "heard_so_far") for id in range(1, 40)))
        answers = [await client.message() for _ in range(1, 40)]
        assert [answer["id"] for answer in answers] == list(range(1, 40))
        got = json.loads(answers[-1]["result"]["content"][0]["text"])
        assert [one["id"] for one in got] == list(range(1, 40))


async def test_the_client_s_end_waits_for_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "ASIDE_AFTER_S", 0.05)
    holding = Holding()
    async with inside(holding) as client:
        held = await _held(client, holding, 1)
        assert (await client.ask(call(2, "heard_so_far")))["id"] == 2
        asyncio.get_running_loop().call_later(0.2, holding.desk.release, held)
    assert json.loads(client.rest)["id"] == 1


class Tap:
    def __init__(self) -> None:
        self.seen: list[tuple[Message, Context]] = []
        self.failures: list[tuple[Context, Fault]] = []

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        self.seen.append((message, context))

    def failed(self, context: Context, fault: Fault) -> None:
        self.failures.append((context, fault))


async def test_taps_are_told_of_what_passes_and_of_what_fails() -> None:
    tap = Tap()
    async with inside(taps=(tap,)) as client:
        await client.ask(call(1, "ask", id="q", method="roots/list"))
        client.writer.write(line({"id": "q", "result": {"roots": []}}))
        await client.message()
        await client.ask(call(2, "die", code=0))
    kinds = [(message.method or message.id, context.direction) for message, context in tap.seen]
    assert kinds[:4] == [("tools/call", UP), ("roots/list", DOWN), ("q", UP), (1, DOWN)]
    assert [context.request for _, context in tap.seen[:4]] == [None, None, tap.seen[1][0], tap.seen[0][0]]
    [(context, fault)] = tap.failures
    assert (context.direction, context.request, fault.kind) == (
        DOWN,
        tap.seen[4][0],
        FaultKind.OUTCOME_UNKNOWN,
    )

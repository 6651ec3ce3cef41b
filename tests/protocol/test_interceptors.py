"""Interceptors of one's own: each verdict, both ways, on whatever a message travels in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shadowcat.core.exchange import PASS, Context, Direction, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from tests.rig.cases import refused
from tests.rig.client import modern, routing, rpc
from tests.rig.everywhere import Everywhere
from tests.rig.server import Call
from tests.rig.stand import stand
from tests.rig.wait import happens

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT
TEXT = {"content": []}
NO = Reject(Fault(FaultKind.REFUSED_BY_RULE))


class Rule(Everywhere):
    """Keeps what it saw, and gives its verdict on one method in one direction."""

    def __init__(
        self,
        verdict: Callable[[Message], Verdict | Awaitable[Verdict]] | None = None,
        *,
        on: str = "tools/call",
        direction: Direction = UP,
    ) -> None:
        self.seen: list[tuple[Message, Context]] = []
        self._verdict = verdict
        self._on = on
        self._direction = direction

    async def judge(self, message: Message, context: Context) -> Verdict:
        self.seen.append((message, context))
        method = message.method or (context.request.method if context.request is not None else "response")
        if self._verdict is None or context.direction is not self._direction or method != self._on:
            return PASS
        if context.direction is DOWN and not message.is_response and self._on == "tools/call":
            return PASS
        verdict = self._verdict(message)
        return verdict if not isinstance(verdict, Awaitable) else await verdict

    def asked(self, direction: Direction) -> list[str]:
        return [message.method for message, context in self.seen if context.direction is direction]


def crash(message: Message) -> Verdict:
    raise ZeroDivisionError


def raise_fault(message: Message) -> Verdict:
    raise Fault(FaultKind.REFUSED_BY_RULE)


def renamed(message: Message) -> Verdict:
    return Replace(message.with_params({**message.params(), "name": "ünïcode"}))


def another_result(message: Message) -> Verdict:
    assert message.id is not None
    return Replace(jsonrpc.result(999, {"content": [], "changed": True}))


def own_result(message: Message) -> Verdict:
    return Reply(jsonrpc.result(999, {"content": [], "mine": True}))


def other_kind(message: Message) -> Verdict:
    return Replace(jsonrpc.notification("notifications/vendor"))


LEGACY_KINDS = ["json", "sse", "batch"]
KINDS = [*LEGACY_KINDS, "modern json", "modern sse"]


async def outcome(rule: Rule, kind: str) -> tuple[int, Any, list[Any]]:
    """One tool call through the rule: status, response, and the names the server was called by."""
    async with stand(interceptors=[rule], script={"answers_json": "json" in kind}) as rig:
        if kind.startswith("modern"):
            reply = await rig.client.ask("tools/call", {"name": "t", "arguments": {}}, id="x")
        else:
            await rig.client.initialize("2025-03-26")
            call = rpc("tools/call", {"name": "t", "arguments": {}}, "x")
            reply = await rig.client.send([call] if kind == "batch" else call)
        answer = await reply.json()
        assert (answer["id"], type(answer["id"])) == ("x", str)
        called = rig.server.got("tools/call")
        for seen in called:
            if kind.startswith("modern"):
                assert seen.all("mcp-method") == ["tools/call"]
                assert len(seen.all("mcp-name")) == 1
                is_plain = seen.json["params"]["name"] == "t"
                assert (seen.get("mcp-name") == "t") is is_plain
        return reply.status, answer, [seen.json["params"]["name"] for seen in called]


@pytest.mark.parametrize("kind", KINDS)
async def test_pass(kind: str) -> None:
    rule = Rule()
    status, answer, called = await outcome(rule, kind)
    assert (status, called) == (200, ["t"])
    assert "result" in answer
    assert "tools/call" in rule.asked(UP)
    request, context = next(pair for pair in rule.seen if pair[0].method == "tools/call")
    assert request.id == "x"
    assert context.era is (Era.MODERN if kind.startswith("modern") else Era.LEGACY)
    response, context = rule.seen[-1]
    assert (response.id, context.direction, context.upstream) == ("x", DOWN, "a")
    assert context.request is not None
    assert context.request.method == "tools/call"
    assert (context.session_id is None) is kind.startswith("modern")


@pytest.mark.parametrize("kind", KINDS)
async def test_replace_a_request(kind: str) -> None:
    status, answer, called = await outcome(Rule(renamed), kind)
    assert (status, called) == (200, ["ünïcode"])
    assert "result" in answer


@pytest.mark.parametrize("kind", KINDS)
async def test_reject_a_request(kind: str) -> None:
    """In a session it is told in-band: there 403 would be taken for a matter of authorization."""
    status, answer, called = await outcome(Rule(lambda message: NO), kind)
    assert (status, called) == (403 if kind.startswith("modern") else 200, [])
    assert answer["error"]["code"] == -31006


@pytest.mark.parametrize("kind", KINDS)
async def test_reply_to_a_request(kind: str) -> None:
    status, answer, called = await outcome(Rule(own_result), kind)
    assert (status, called) == (200, [])
    assert answer["result"]["mine"] is True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("verdict", "code"),
    [(lambda _: NO, -31006), (raise_fault, -31006), (crash, -32603), (other_kind, -32603)],
    ids=["reject", "raise", "crash", "other kind"],
)
async def test_refuse_a_request(kind: str, verdict: Callable[[Message], Verdict], code: int) -> None:
    _, answer, called = await outcome(Rule(verdict), kind)
    assert answer["error"]["code"] == code
    assert called == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verdict", [another_result, own_result])
async def test_replace_a_response(kind: str, verdict: Callable[[Message], Verdict]) -> None:
    status, answer, called = await outcome(Rule(verdict, direction=DOWN), kind)
    assert (status, called) == (200, ["t"])
    assert answer["result"].get("changed") or answer["result"].get("mine")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("verdict", "code"), [(lambda _: NO, -31006), (crash, -32603)])
async def test_refuse_a_response(kind: str, verdict: Callable[[Message], Verdict], code: int) -> None:
    """The client hears of the refusal, and nothing of what was refused."""
    _, answer, called = await outcome(Rule(verdict, direction=DOWN), kind)
    assert answer["error"]["code"] == code
    assert "result" not in answer
    assert called == ["t"]


async def talkative(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/vendor", {"n": 1})
    await stream.request("ask", "roots/list")
    await call.answered("ask")
    await stream.notify("notifications/other", {"n": 2})
    await stream.send(call.response(TEXT))
    await stream.end()


@pytest.mark.parametrize("verdict", [lambda _: NO, crash], ids=["reject", "crash"])
async def test_a_refused_notification_spoils_nothing_else(verdict: Any) -> None:
    rule = Rule(verdict, on="notifications/vendor", direction=DOWN)
    async with stand(interceptors=[rule]) as rig:
        rig.server.handlers["tools/call"] = talkative
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        asked = await reply.message()
        await rig.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        other, response = await reply.messages()
        assert other["method"] == "notifications/other"
        assert response["id"] == 1


@pytest.mark.parametrize(
    ("verdict", "member", "value"),
    [
        (lambda _: NO, "error", -31006),
        (crash, "error", -32603),
        (lambda _: Reply(jsonrpc.result(0, {"roots": [{"uri": "file:///x"}]})), "result", None),
    ],
    ids=["reject", "crash", "reply"],
)
async def test_a_refused_server_request_is_answered(verdict: Any, member: str, value: int | None) -> None:
    """By the proxy: the server must not wait for an answer that the client was never asked for."""
    rule = Rule(verdict, on="roots/list", direction=DOWN)
    async with stand(interceptors=[rule]) as rig:
        rig.server.handlers["tools/call"] = talkative
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        messages = await reply.messages()
        assert [message.get("method") for message in messages] == [
            "notifications/vendor",
            "notifications/other",
            None,
        ]
        answer = (await rig.server.answer_to("ask")).json
        assert member in answer
        if value is not None:
            assert answer["error"]["code"] == value


@pytest.mark.parametrize("verdict", [lambda _: NO, crash], ids=["reject", "crash"])
async def test_a_refused_client_notification_is_dropped(verdict: Any) -> None:
    rule = Rule(verdict, on="notifications/vendor")
    async with stand(interceptors=[rule]) as rig:
        await rig.client.initialize("2025-03-26")
        rig.server.requests.clear()
        assert (await rig.client.notify("notifications/vendor")).status == 202
        batch = [rpc("notifications/vendor"), rpc("notifications/other"), rpc("tools/list", {}, 1)]
        assert [m["id"] for m in await (await rig.client.send(batch)).messages()] == [1]
        assert {seen.rpc for seen in rig.server.requests} == {"notifications/other", "tools/list"}


@pytest.mark.parametrize(("verdict", "code"), [(lambda _: NO, -31006), (crash, -32603)])
async def test_a_refused_client_answer_becomes_an_error(verdict: Any, code: int) -> None:
    rule = Rule(verdict, on="roots/list")
    async with stand(interceptors=[rule]) as rig:
        rig.server.handlers["tools/call"] = talkative
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        assert (await reply.message())["method"] == "notifications/vendor"
        asked = await reply.message()
        sent = await rig.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"secret": 1}})
        assert sent.status == 202
        answer = (await rig.server.answer_to("ask")).json
        assert answer["error"]["code"] == code
        assert len(await reply.messages()) == 2


@pytest.mark.parametrize(("verdict", "code"), [(lambda _: NO, -31006), (crash, -32603)])
@pytest.mark.parametrize("direction", [UP, DOWN])
async def test_a_refused_initialize_opens_nothing(verdict: Any, code: int, direction: Direction) -> None:
    async with stand(interceptors=[Rule(verdict, on="initialize", direction=direction)]) as rig:
        reply = await rig.client.post(
            rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)
        )
        await refused(reply, reply.status, code, 7)
        assert reply.status >= 400
        assert "mcp-session-id" not in reply.headers
        assert len(rig.proxy.relay.sessions) == 0
        # What the server had opened is closed again.
        if direction is DOWN:
            await rig.server.gets("DELETE")
            assert rig.server.sessions == {}
        else:
            assert rig.server.requests == []


async def test_the_standalone_stream_is_judged_too() -> None:
    rule = Rule(lambda _: NO, on="notifications/vendor", direction=DOWN)
    async with stand(interceptors=[rule]) as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        standalone = await rig.server.listens()
        await standalone.notify("notifications/vendor")
        await standalone.notify("notifications/other")
        assert (await listening.message())["method"] == "notifications/other"
        assert len(rig.server.got("GET")) == 1


async def test_a_modern_notification_on_a_stream() -> None:
    rule = Rule(lambda _: NO, on="notifications/vendor", direction=DOWN)
    async with stand(interceptors=[rule]) as rig:

        @rig.server.on("tools/call")
        async def answer(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/vendor")
            await stream.notify("notifications/other")
            await stream.send(call.response(TEXT))
            await happens(call.seen.dropped)

        reply = await rig.client.ask("tools/call", {"name": "t"}, id=1)
        assert [m.get("method") for m in await reply.messages()] == ["notifications/other", None]


def with_argument(message: Message, value: str) -> Verdict:
    return Replace(message.with_params({**message.params(), "arguments": {"region": value}}))


@pytest.mark.parametrize("value", ["eu", "us"], ids=["another", "the same"])
async def test_no_argument_is_changed_beside_a_header_that_may_repeat_it(value: str) -> None:
    """Which one it repeats only the server's tool says; what a server is told must not depend on where it looks."""
    async with stand(interceptors=[Rule(lambda message: with_argument(message, value))]) as rig:

        @rig.server.on("tools/call")
        async def answer(call: Call) -> None:
            await call.result(TEXT)

        message = modern("tools/call", {"name": "t", "arguments": {"region": "us"}}, 7)
        reply = await rig.client.post(message, *routing("tools/call", "t"), ("Mcp-Param-Region", "us"))
        if value == "us":
            assert reply.status == 200
        else:
            error = await refused(reply, 500, -32603, 7)
            assert error["data"]["reason"] == "interceptor_changed_what_a_header_repeats"
            assert rig.server.requests == []


@pytest.mark.parametrize("verdict", [None, Replace(None)], ids=["none", "of nothing"])  # type: ignore[arg-type]
@pytest.mark.parametrize("kind", KINDS)
async def test_a_verdict_that_is_none_refuses(kind: str, verdict: Any) -> None:
    _, answer, _ = await outcome(Rule(lambda _: verdict, direction=DOWN), kind)
    reason = "interceptor_gave_no_verdict" if verdict is None else "interceptor_failed"
    assert answer["error"]["data"]["reason"] == reason


async def test_interceptors_stand_in_a_row() -> None:
    first, second = Rule(renamed), Rule(own_result)
    third = Rule()
    async with stand(interceptors=[first, second, third]) as rig:
        await rig.client.initialize()
        answer = await rig.client.call()
        assert answer["result"]["mine"] is True
        assert [m.params()["name"] for m, _ in second.seen if m.method == "tools/call"] == ["ünïcode"]
        assert "tools/call" not in third.asked(UP)


@pytest.mark.parametrize("sent", [rpc("tools/call", {"name": "t"}, 1), rpc("notifications/vendor")])
async def test_what_is_judged_for_longer_than_its_session_lasts_goes_nowhere(sent: Any) -> None:
    judging, go_on = asyncio.Event(), asyncio.Event()

    async def later(message: Message) -> Verdict:
        judging.set()
        await happens(go_on)
        return PASS

    async with stand(interceptors=[Rule(later, on=sent["method"])]) as rig:
        await rig.client.initialize()
        asking = asyncio.create_task(rig.client.send(sent))
        await happens(judging)
        assert (await rig.client.delete()).status == 200
        go_on.set()
        assert (await asking).status == 404
        assert rig.server.got(sent["method"]) == []

"""Taps: told of each message, both ways and in both eras, and of what the interceptors made of it."""

from __future__ import annotations

from typing import Any

import pytest

from shadowcat import Interceptor
from shadowcat.core.exchange import PASS, Context, Direction, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Era
from tests.rig.client import rpc
from tests.rig.server import Call
from tests.rig.stand import stand

UP, DOWN = Direction.TO_SERVER, Direction.TO_CLIENT


class Tap:
    def __init__(self) -> None:
        self.seen: list[tuple[Message, Context, Verdict]] = []
        self.failures: list[tuple[Context, Fault]] = []

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        self.seen.append((message, context, outcome))

    def failed(self, context: Context, fault: Fault) -> None:
        self.failures.append((context, fault))

    def of(self, method: str, direction: Direction = UP) -> tuple[Message, Context, Verdict]:
        """The message of that method, or the answer to one."""
        return next(
            (message, context, outcome)
            for message, context, outcome in self.seen
            if context.direction is direction
            and method in (message.method, context.request.method if context.request else "")
        )


class Verdicts(Interceptor):
    """Gives one verdict on what a client calls."""

    methods = ("tools/call",)

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict

    def on_request(self, message: Message, context: Context) -> Verdict:
        return self._verdict


def test_a_pipeline_is_there_for_either() -> None:
    assert not Pipeline()
    assert Pipeline([Verdicts(PASS)])
    assert Pipeline((), [Tap()])


@pytest.mark.parametrize("kind", ["json", "sse", "batch", "modern"])
async def test_what_passes_is_told_both_ways(kind: str) -> None:
    tap = Tap()
    async with stand(taps=[tap], script={"answers_json": kind != "sse"}) as rig:
        if kind == "modern":
            await rig.client.ask("tools/call", {"name": "t"}, id="x")
        else:
            await rig.client.initialize("2025-03-26")
            call = rpc("tools/call", {"name": "t"}, "x")
            await (await rig.client.send([call] if kind == "batch" else call)).json()
        request, context, outcome = tap.of("tools/call")
        assert (request.id, outcome) == ("x", PASS)
        assert context.era is (Era.MODERN if kind == "modern" else Era.LEGACY)
        assert context.session_id == rig.client.session_id
        response, context, outcome = tap.of("tools/call", DOWN)
        assert (response.id, outcome) == ("x", PASS)
        assert context.request is request


async def test_initialize_is_told_with_the_session_it_opens() -> None:
    tap = Tap()
    async with stand(taps=[tap]) as rig:
        await rig.client.initialize()
        ids = {context.session_id for _, context, _ in tap.seen}
        assert ids == {rig.client.session_id}
        assert [message.method for message, _, _ in tap.seen] == [
            "initialize",
            "",
            "notifications/initialized",
        ]


async def test_what_a_stream_brings_is_told() -> None:
    tap = Tap()
    async with stand(taps=[tap]) as rig:

        @rig.server.on("tools/call")
        async def talkative(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/vendor", {"n": 1})
            await stream.request("ask", "roots/list")
            await call.answered("ask")
            await stream.send(call.response({"content": []}))
            await stream.end()

        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        await reply.message()
        asked = await reply.message()
        await rig.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        await reply.messages()
        told = [(message.method or message.kind.value, context.direction) for message, context, _ in tap.seen]
        assert told[3:] == [
            ("tools/call", UP),
            ("notifications/vendor", DOWN),
            ("roots/list", DOWN),
            ("result", UP),
            ("result", DOWN),
        ]
        asked, answered = (context for message, context, _ in tap.seen[5:7])
        assert asked.request is tap.of("tools/call")[0]
        assert answered.request is tap.seen[5][0]


@pytest.mark.parametrize("kind", ["cut", "modern", "initialize"])
async def test_a_request_that_no_server_answers_is_told(kind: str) -> None:
    tap = Tap()
    async with stand(taps=[tap]) as rig:

        @rig.server.on("initialize" if kind == "initialize" else "tools/call")
        async def cut(call: Call) -> None:
            if call.is_modern:
                call.seen.cut()
            else:
                (await call.stream()).cut()

        if kind == "modern":
            reply = await rig.client.ask("tools/call", {"name": "t"})
        elif kind == "cut":
            await rig.client.initialize()
            reply = await rig.client.begin("tools/call", {"name": "t"})
        else:
            reply = await rig.client.begin(
                "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}
            )
        told = await reply.json()
        [(context, fault)] = tap.failures
        assert told["error"]["data"]["reason"] == fault.reason
        assert context.direction is DOWN
        assert context.request is tap.seen[-1][0]
        assert context.session_id is None if kind == "modern" else context.session_id


async def test_the_status_of_an_answer_is_told() -> None:
    tap = Tap()
    async with stand(taps=[tap]) as rig:
        await rig.client.ask("vendor/unknown")
        _, context, _ = tap.of("vendor/unknown", DOWN)
        assert context.status == 404


FAULT = Fault(FaultKind.REFUSED_BY_RULE)


@pytest.mark.parametrize(
    "verdict",
    [
        Replace(jsonrpc.request(1, "tools/call", {"name": "other"})),
        Reply(jsonrpc.result(1, {"content": []})),
        Reject(FAULT),
    ],
    ids=["replace", "reply", "reject"],
)
async def test_what_interceptors_did_is_told_beside_what_came(verdict: Any) -> None:
    tap = Tap()
    async with stand(interceptors=[Verdicts(verdict)], taps=[tap]) as rig:
        await rig.client.initialize()
        await rig.client.call(params={"name": "t"})
        request, _, outcome = tap.of("tools/call")
        assert request.params() == {"name": "t"}
        if isinstance(outcome, Reject):
            # Another fault of the same kind: see Judging.
            assert outcome.fault.error() == FAULT.error()
            outcome = verdict
        assert outcome == verdict


class OfSessions(Tap):
    """Is told of calls by session."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.sessions: list[Context] = []
        self.calls: list[tuple[Message, Message | None]] = []
        self._fails = fails

    def of_session(self, asking: Context) -> OfSessions:
        if self._fails:
            raise ValueError("on purpose")
        self.sessions.append(asking)
        return self

    def asked(self, request: Message) -> None:
        self.calls.append((request, None))

    def answered(self, answer: Message, request: Message) -> None:
        self.calls.append((answer, request))


async def test_a_tap_that_is_told_by_session_is_asked_for_once() -> None:
    tap, other = OfSessions(), Tap()
    async with stand(taps=[tap, other], script={"answers_json": True}) as rig:
        await rig.client.initialize()
        for id in (1, 2):
            await rig.client.call(params={"name": "t"}, id=id)
        [asking] = tap.sessions
        assert (asking.session_id, asking.upstream, asking.direction) == (rig.client.session_id, "a", UP)
        assert [message.id for message, _ in tap.calls] == [1, 1, 2, 2]
        (first, none), (_, request), *_ = tap.calls
        assert (none, request) == (None, first)
        assert [message for message, _, _ in tap.seen] == [message for message, _, _ in other.seen[:3]]
        assert [message for message, _ in tap.calls] == [message for message, _, _ in other.seen[3:]]


async def test_one_that_fails_for_a_session_is_told_of_each_message() -> None:
    tap = OfSessions(fails=True)
    async with stand(taps=[tap], script={"answers_json": True}) as rig:
        await rig.client.initialize()
        await rig.client.call(params={"name": "t"})
        assert tap.of("tools/call", DOWN)[1].request is tap.of("tools/call")[0]
        assert rig.proxy.shared.pipeline.failures["OfSessions", "ValueError"] == 1


class Failing(OfSessions):
    def asked(self, request: Message) -> None:
        raise ValueError("on purpose")

    def answered(self, answer: Message, request: Message) -> None:
        raise LookupError("on purpose")


@pytest.mark.parametrize("others", [[], [OfSessions()]])
async def test_one_that_fails_for_a_call_of_a_session_stops_nothing(others: list[OfSessions]) -> None:
    async with stand(taps=[Failing(), *others], script={"answers_json": True}) as rig:
        await rig.client.initialize()
        for id in (1, 2):
            reply = await rig.client.begin("tools/call", {"name": "t"}, id)
            assert (reply.status, (await reply.json())["id"]) == (200, id)
        for other in others:
            assert [message.id for message, _ in other.calls] == [1, 1, 2, 2]
        failures = rig.proxy.shared.pipeline.failures
        assert failures == {("Failing", "ValueError"): 2, ("Failing", "LookupError"): 2}


async def test_taps_that_are_put_in_place_of_others_are_told_at_once() -> None:
    before, after = OfSessions(), OfSessions()
    async with stand(taps=[before], script={"answers_json": True}) as rig:
        await rig.client.initialize()
        await rig.client.call(params={"name": "t"}, id=1)
        rig.proxy.shared.pipeline.tap([after])
        await rig.client.call(params={"name": "t"}, id=2)
        assert [message.id for message, _ in before.calls] == [1, 1]
        assert [message.id for message, _ in after.calls] == [2, 2]

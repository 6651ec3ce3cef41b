"""Calls that interceptors want to see: judged once, without a task where no hook has to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from shadowcat import PASS, Context, Interceptor, Message, Reject, Replace, Reply, Verdict
from shadowcat.core.interceptor import Judgement
from shadowcat.plugins.hold import HoldDesk
from tests.protocol.test_taps import Tap
from tests.rig.cases import refused
from tests.rig.client import rpc
from tests.rig.server import Call, holding
from tests.rig.stand import Stand, stand
from tests.rig.wait import soon, until

CALL = {"name": "t", "arguments": {"n": 1}}
Judge = Callable[[Message], Verdict]


def changed(message: Message) -> Verdict:
    if message.method:
        return Replace(message.with_params({**message.params(), "arguments": {"n": 2}}))
    return Reply.result({"n": message.result()["n"] + 10})


def passed(message: Message) -> Verdict:
    return PASS


def replied(message: Message) -> Verdict:
    return Reply.result({"n": 3})


def rejected(message: Message) -> Verdict:
    return Reject.because("no")


class Judging(Interceptor):
    methods = ("tools/call",)

    def __init__(self, *, request: Judge = passed, response: Judge = passed, waits: bool = False) -> None:
        self._request, self._response, self._waits = request, response, waits
        self.seen: list[str] = []

    def on_request(self, message: Message, context: Context) -> Judgement:
        self.seen.append("request")
        return self._given(self._request(message))

    def on_response(self, message: Message, context: Context) -> Judgement:
        self.seen.append("response")
        return self._given(self._response(message))

    def _given(self, verdict: Verdict) -> Judgement:
        return self._later(verdict) if self._waits else verdict

    async def _later(self, verdict: Verdict) -> Verdict:
        await asyncio.sleep(0)
        return verdict


async def echo(call: Call) -> None:
    await call.result({"n": call.seen.json["params"]["arguments"]["n"]})


async def echo_and_close(call: Call) -> None:
    """The next call finds no connection."""
    call.headers["Connection"] = "close"
    await echo(call)


def has_task() -> bool:
    return any(task.get_name() == "http/exchange" for task in asyncio.all_tasks())


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
async def test_only_what_is_waited_for_takes_a_task(waits: bool) -> None:
    judging = Judging(request=changed, response=changed, waits=waits)
    async with stand(interceptors=[judging]) as rig:
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = echo
        # A connection to the server has to be there, or else that is waited for.
        assert (await rig.client.call(params=CALL, id=1))["result"] == {"n": 12}
        released = asyncio.Event()
        rig.server.handlers["tools/call"] = holding(released, echo)
        asking = asyncio.create_task(rig.client.begin("tools/call", CALL, 2))
        await rig.server.gets("tools/call", 2)
        assert has_task() is waits
        released.set()
        assert await (await asking).json() == {"jsonrpc": "2.0", "id": 2, "result": {"n": 12}}
        await until(lambda: rig.session().core.correlator.is_idle)
        assert judging.seen == ["request", "response"] * 2


OUTCOMES: dict[tuple[Judge, Judge], tuple[Any, list[str]]] = {
    (passed, passed): ({"n": 1}, ["request", "response"]),
    (changed, passed): ({"n": 2}, ["request", "response"]),
    (replied, passed): ({"n": 3}, ["request"]),
    (rejected, passed): (-31006, ["request"]),
    (passed, changed): ({"n": 11}, ["request", "response"]),
    (passed, replied): ({"n": 3}, ["request", "response"]),
    (passed, rejected): (-31006, ["request", "response"]),
}


@pytest.mark.parametrize("judges", OUTCOMES, ids=lambda judges: "-".join(one.__name__ for one in judges))
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
async def test_each_is_judged_once_whether_or_not_the_server_is_connected(
    judges: tuple[Judge, Judge], waits: bool
) -> None:
    outcome, seen = OUTCOMES[judges]
    judging, tap = Judging(request=judges[0], response=judges[1], waits=waits), Tap()
    async with stand(interceptors=[judging], taps=[tap]) as rig:
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = echo_and_close
        for id in (1, 2):
            answer = await rig.client.call(params=CALL, id=id)
            assert answer["id"] == id
            assert (answer["result"] if "result" in answer else answer["error"]["code"]) == outcome
        assert judging.seen == seen * 2
        told = [
            message.method or "answer"
            for message, context, _ in tap.seen
            if "tools/call" in (message.method, context.answers)
        ]
        assert told == ["tools/call" if one == "request" else "answer" for one in seen] * 2


async def test_a_tap_that_raises_hurts_no_call(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Tap):
        def saw(self, *_: Any) -> None:
            raise ZeroDivisionError("on purpose")

    async with stand(taps=[Broken()], interceptors=[Judging()]) as rig:
        await rig.client.initialize()
        for id in (1, 2):
            assert "result" in await rig.client.call(params=CALL, id=id)
        assert rig.proxy.shared.pipeline.failures["Broken", "ZeroDivisionError"] > 4
    told = [record for record in caplog.records if "Broken" in record.getMessage()]
    assert len(told) == 1
    assert "the traffic goes on" in told[0].getMessage()


class Holding(Interceptor):
    methods = ("tools/call",)

    def __init__(self) -> None:
        self.desk = HoldDesk()

    async def on_request(self, message: Message, context: Context) -> Verdict:
        return await self.desk.hold(message, context)


@pytest.mark.parametrize("how", ["alone", "batch"])
async def test_what_is_cancelled_while_it_is_held_never_goes_on(how: str) -> None:
    holding = Holding()
    async with stand(interceptors=[holding]) as rig:
        await rig.client.initialize("2025-03-26")
        sent = rpc("tools/call", CALL, "x")
        asking = asyncio.create_task(rig.client.send([sent] if how == "batch" else sent))
        await until(lambda: len(holding.desk.held()) == 1)
        [held] = holding.desk.held()
        await rig.client.notify("notifications/cancelled", {"requestId": "x"})
        reply = await asking
        assert (reply.status, await reply.messages()) == (200, [])
        assert not holding.desk.held()
        assert not holding.desk.release(held.id)
        await until(lambda: not rig.session().core.is_busy)
        # A server that knows nothing of it is not told of its end either.
        assert rig.server.got("tools/call") == rig.server.got("notifications/cancelled") == []


async def _held(rig: Stand, desk: HoldDesk) -> asyncio.Task[Any]:
    await rig.client.initialize()
    asking = asyncio.create_task(rig.client.begin("tools/call", CALL, 1))
    await until(lambda: len(desk.held()) == 1)
    return asking


async def test_an_id_that_is_held_is_in_flight() -> None:
    holding = Holding()
    async with stand(interceptors=[holding]) as rig:
        asking = await _held(rig, holding.desk)
        await refused(await rig.client.begin("tools/call", CALL, 1), 400, -32600, 1)
        [held] = holding.desk.held()
        holding.desk.release(held.id)
        assert "result" in await (await asking).json()
        assert len(rig.server.got("tools/call")) == 1


async def test_what_is_held_as_the_proxy_stops_is_told_so() -> None:
    holding = Holding()
    async with stand(interceptors=[holding]) as rig:
        asking = await _held(rig, holding.desk)
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
        answer = await (await asking).json()
        assert answer["error"]["data"]["reason"] == "proxy_stopped"
        assert rig.server.got("tools/call") == rig.server.got("notifications/cancelled") == []


async def test_the_end_of_the_session_ends_what_is_held() -> None:
    holding = Holding()
    async with stand(interceptors=[holding]) as rig:
        asking = await _held(rig, holding.desk)
        assert (await rig.client.delete()).status == 200
        assert (await asking).status == 404
        assert not holding.desk.held()
        assert rig.server.got("tools/call") == rig.server.got("notifications/cancelled") == []

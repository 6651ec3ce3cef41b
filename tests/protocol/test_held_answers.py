"""What interceptors are still thinking about when its request ends, or the proxy: its client hears of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shadowcat import Context, Interceptor, Message, Verdict
from shadowcat.clock import ManualClock
from shadowcat.core.interceptor import Phase
from shadowcat.plugins.hold import HoldDesk
from tests.protocol.test_judged_calls import echo
from tests.protocol.test_taps import Tap
from tests.rig.client import Reply
from tests.rig.server import Call, Handler
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until

CALL = {"name": "t", "arguments": {"n": 1}}
STOPPED = (-31004, "proxy_stopped")


class Holding(Interceptor):
    """Holds what is in that phase for somebody who does not come."""

    deadline_s = 300.0

    def __init__(self, phase: Phase, method: str = "tools/call") -> None:
        self.desk = HoldDesk()
        self._phase = phase
        self.methods = (method,)

    def wanted(self, phase: Phase) -> Any:
        return self.methods if phase is self._phase else ()

    async def _hold(self, message: Message, context: Context) -> Verdict:
        return await self.desk.hold(message, context)

    on_request = on_response = on_server_notification = _hold


@asynccontextmanager
async def holding(phase: Phase, method: str = "tools/call") -> AsyncIterator[tuple[Stand, HoldDesk, Tap]]:
    holder, tap = Holding(phase, method), Tap()
    async with stand(interceptors=[holder], taps=[tap]) as rig:
        yield rig, holder.desk, tap


async def streamed(call: Call) -> None:
    stream = await call.stream()
    await stream.send({"jsonrpc": "2.0", "id": call.id, "result": {"n": 1}})


async def telling(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/vendor")
    await happens(stream.over)


def told(answer: Any) -> tuple[int, str]:
    return answer["error"]["code"], answer["error"]["data"]["reason"]


async def _is_held(desk: HoldDesk) -> None:
    await until(lambda: len(desk.held()) == 1)


async def _drained(rig: Stand) -> None:
    async with soon():
        await rig.proxy.drain(grace_s=0.1)


@pytest.mark.parametrize("handler", [echo, streamed])
@pytest.mark.parametrize("has_connection", [False, True])
async def test_an_answer_that_is_held_as_the_proxy_stops(handler: Handler, has_connection: bool) -> None:
    async with holding(Phase.RESPONSE) as (rig, desk, tap):
        await rig.client.initialize()
        if has_connection:
            await rig.client.call("tools/list", id=0)
        rig.server.handlers["tools/call"] = handler
        asking = asyncio.create_task(rig.client.begin("tools/call", CALL, 1))
        await _is_held(desk)
        assert rig.session().parting.is_at_work
        await _drained(rig)
        reply = await asking
        answer = (await reply.messages())[-1] if reply.is_stream else await reply.json()
        assert told(answer) == STOPPED
        assert [fault.reason for _, fault in tap.failures] == ["proxy_stopped"]
        assert not desk.held()


async def _asks(rig: Stand, desk: HoldDesk) -> asyncio.Task[Reply]:
    """What the server has answered, and is held."""
    await rig.client.initialize()
    rig.server.handlers["tools/call"] = echo
    asking = asyncio.create_task(rig.client.begin("tools/call", CALL, 1))
    await _is_held(desk)
    return asking


async def test_an_answer_that_is_held_as_its_request_is_cancelled() -> None:
    async with holding(Phase.RESPONSE) as (rig, desk, _):
        asking = await _asks(rig, desk)
        await rig.client.notify("notifications/cancelled", {"requestId": 1})
        reply = await asking
        assert (reply.status, await reply.messages()) == (200, [])
        assert not desk.held()
        assert not rig.session().core.is_busy


async def test_an_answer_that_is_held_as_its_session_ends() -> None:
    async with holding(Phase.RESPONSE) as (rig, desk, _):
        asking = await _asks(rig, desk)
        assert (await rig.client.delete()).status == 200
        assert told(await (await asking).json())[1] == "session_ended"
        assert not desk.held()


@pytest.mark.parametrize("phase", [Phase.REQUEST, Phase.RESPONSE])
async def test_an_initialize_that_is_held_as_the_proxy_stops(phase: Phase) -> None:
    async with holding(phase, "initialize") as (rig, desk, tap):
        opening = asyncio.create_task(
            rig.client.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 0)
        )
        await _is_held(desk)
        await _drained(rig)
        assert told(await (await opening).json()) == STOPPED
        assert len(tap.failures) == (phase is Phase.RESPONSE)
        assert len(rig.proxy.relay.sessions) == 0


async def test_an_initialize_that_its_server_does_not_answer() -> None:
    async def silent(call: Call) -> None:
        await happens(call.seen.dropped)

    async with stand() as rig:
        rig.server.handlers["initialize"] = silent
        opening = asyncio.create_task(
            rig.client.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 0)
        )
        await rig.server.gets("initialize")
        await _drained(rig)
        assert told(await (await opening).json()) == STOPPED


@pytest.mark.parametrize(
    ("phase", "method", "handler"),
    [
        (Phase.REQUEST, "tools/call", echo),
        (Phase.RESPONSE, "tools/call", echo),
        (Phase.RESPONSE, "tools/call", streamed),
        (Phase.SERVER_NOTIFICATION, "notifications/vendor", telling),
    ],
)
async def test_a_modern_message_that_is_held_as_the_proxy_stops(
    phase: Phase, method: str, handler: Handler
) -> None:
    async with holding(phase, method) as (rig, desk, tap):
        rig.server.handlers["tools/call"] = handler
        asking = asyncio.create_task(rig.client.ask("tools/call", CALL, id=1))
        await _is_held(desk)
        await _drained(rig)
        reply = await asking
        answer = (await reply.messages())[-1] if reply.is_stream else await reply.json()
        assert (answer["id"], told(answer)) == (1, STOPPED)
        assert len(tap.failures) == (phase is Phase.RESPONSE)
        assert not desk.held()


async def notified(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/vendor")
    await stream.send({"jsonrpc": "2.0", "id": call.id, "result": {"n": 1}})


@pytest.mark.parametrize(
    ("phase", "method", "handler"),
    [
        (Phase.RESPONSE, "tools/call", streamed),
        (Phase.RESPONSE, "tools/call", notified),
        (Phase.SERVER_NOTIFICATION, "notifications/vendor", notified),
    ],
)
async def test_what_is_held_for_long_is_no_silence_of_the_servers(
    phase: Phase, method: str, handler: Handler
) -> None:
    async with holding(phase, method) as (rig, desk, _):
        clock = rig.proxy.shared.clock = ManualClock()
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = handler
        asking = asyncio.create_task(rig.client.begin("tools/call", CALL, 1))
        await _is_held(desk)
        clock.advance(rig.proxy.shared.limits.call_s + 1.0)
        await rig.session().look_after()
        assert desk.release(desk.held()[0].id)
        answer = (await (await asking).messages())[-1]
        assert answer == {"jsonrpc": "2.0", "id": 1, "result": {"n": 1}}

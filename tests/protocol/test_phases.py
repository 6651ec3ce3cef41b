"""Each verdict in each phase, on whatever a message travels in: one table, through the real proxy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

from shadowcat import PASS, Context, Message, Reject, Replace, Reply, Verdict
from shadowcat.core.interceptor import Judgement, Phase
from shadowcat.wire import jsonrpc
from tests.rig.client import rpc
from tests.rig.everywhere import Everywhere
from tests.rig.server import Call, Stream
from tests.rig.stand import Stand, stand
from tests.rig.wait import soon
from tests.stdio.editor import call, line
from tests.stdio.test_interceptors import Inside, inside

PLAIN, REPLACED, REPLIED, REFUSED, NOTHING = 1, 2, 3, "refused", None


class Seen(NamedTuple):
    """What arrived of each message of a scenario: which form of it, or nothing."""

    told_server: Any = PLAIN
    called: Any = PLAIN
    asked: Any = PLAIN
    answered: Any = PLAIN
    response: Any = PLAIN
    told_client: Any = PLAIN


NOT_CALLED = Seen(called=NOTHING, asked=NOTHING, answered=NOTHING)
TABLE: dict[Phase, dict[str, Seen]] = {
    Phase.REQUEST: {
        "replace": Seen(called=REPLACED),
        "reply": NOT_CALLED._replace(response=REPLIED),
        "reject": NOT_CALLED._replace(response=REFUSED),
    },
    Phase.NOTIFICATION: {
        "replace": Seen(told_server=REPLACED),
        "reply": Seen(told_server=NOTHING),
        "reject": Seen(told_server=NOTHING),
    },
    Phase.SERVER_RESPONSE: {
        "replace": Seen(answered=REPLACED),
        "reply": Seen(answered=REPLIED),
        "reject": Seen(answered=REFUSED),
    },
    Phase.SERVER_REQUEST: {
        "replace": Seen(asked=REPLACED),
        "reply": Seen(asked=NOTHING, answered=REPLIED),
        "reject": Seen(asked=NOTHING, answered=REFUSED),
    },
    Phase.SERVER_NOTIFICATION: {
        "replace": Seen(told_client=REPLACED),
        "reply": Seen(told_client=NOTHING),
        "reject": Seen(told_client=NOTHING),
    },
    Phase.RESPONSE: {
        "replace": Seen(response=REPLACED),
        "reply": Seen(response=REPLIED),
        "reject": Seen(response=REFUSED),
    },
}
CASES = [(phase, verdict) for phase in Phase for verdict in ("pass", "replace", "reply", "reject")]
MARKED = {"name": "ask", "arguments": {"mark": True, "id": "q"}}
VENDOR = "notifications/vendor"
OF_STDIO = "notifications/message"


class Judge(Everywhere):
    """Gives its verdict on the one message of the scenario that is in that phase, at once or after a while."""

    def __init__(self, phase: Phase, verdict: str, *, waits: bool) -> None:
        self._phase = phase
        self._verdict = verdict
        self._waits = waits

    def wanted(self, phase: Phase) -> Any:
        return None if phase is self._phase else ()

    def judge(self, message: Message, context: Context) -> Judgement:
        if not self._is_meant(message, context):
            return PASS
        verdict = self._given(message)
        return self._later(verdict) if self._waits else verdict

    async def _later(self, verdict: Verdict) -> Verdict:
        await asyncio.sleep(0)
        return verdict

    def _given(self, message: Message) -> Verdict:
        match self._verdict:
            case "replace" if message.method:
                return Replace(message.with_params({**message.params(), "n": REPLACED}))
            case "replace":
                return Replace(jsonrpc.result(0, {**message.result(), "n": REPLACED}))
            case "reply":
                return Reply.result({"n": REPLIED})
            case "reject":
                return Reject.because("no")
            case _:
                return PASS

    def _is_meant(self, message: Message, context: Context) -> bool:
        asked = message if message.method else context.request
        assert asked is not None
        if asked.method == "tools/call":
            return bool(asked.params()["arguments"].get("mark"))
        return asked.method in (VENDOR, OF_STDIO, "roots/list")


def form(message: Any) -> Any:
    if message is None:
        return NOTHING
    if "error" in message:
        return REFUSED
    return (message.get("params") or message.get("result") or {}).get("n", PLAIN)


# HTTP.


class Told:
    """What comes to the client, on all of its streams; questions are answered as they come."""

    def __init__(self, rig: Stand) -> None:
        self._rig = rig
        self.asked: Any = None
        self.notification: Any = None
        self.ended = asyncio.Event()

    async def hear(self, message: Any) -> None:
        if message.get("method") == "roots/list":
            self.asked = message
            await self._rig.client.send({"jsonrpc": "2.0", "id": message["id"], "result": {"roots": []}})
        elif message.get("method") == VENDOR:
            self.notification = message
        elif message.get("method") == "notifications/end":
            self.ended.set()

    async def follow(self, stream: Any) -> None:
        while (message := await stream.message()) is not None:
            await self.hear(message)


async def over_http(judge: Judge, way: str) -> Seen:
    async with stand(interceptors=[judge], script={"answers_json": way == "json"}) as rig:
        standalone: list[Stream] = []

        @rig.server.on("tools/call")
        async def scenario(one: Call) -> None:
            is_json = way == "json"
            stream = standalone[0] if is_json else await one.stream()
            if one.seen.json["params"]["arguments"].get("mark"):
                await stream.request("ask", "roots/list")
                await one.answered("ask")
            else:
                await stream.notify(VENDOR)
                await stream.notify("notifications/end")
            response = one.response({"content": []})
            await (one.json(response) if is_json else stream.send(response))
            if not is_json:
                await stream.end()

        await rig.client.initialize("2025-03-26")
        told = Told(rig)
        listening = None
        if way == "json":
            stream = await rig.client.listen()
            standalone.append(await rig.server.listens())
            listening = asyncio.create_task(told.follow(stream))
        first = [rpc(VENDOR), rpc("tools/call", MARKED, 1)]
        second = [rpc("tools/call", {"name": "t", "arguments": {}}, 2)]
        if way != "batch":
            assert (await rig.client.send(first[0])).status == 202
        response = await whole(rig, told, first if way == "batch" else first[1])
        await whole(rig, told, second if way == "batch" else second[0])
        async with soon():
            await told.ended.wait()
        if listening is not None:
            listening.cancel()
        answers = [
            seen.json
            for seen in rig.server.requests
            if seen.method == "POST" and seen.json.get("id") == "ask"
        ]
        called = [
            seen.json for seen in rig.server.got("tools/call") if seen.json["params"]["arguments"].get("mark")
        ]
        vendor = [seen.json for seen in rig.server.got(VENDOR)]
        return Seen(
            form(next(iter(vendor), None)),
            form(next(iter(called), None)),
            form(told.asked),
            form(next(iter(answers), None)),
            form(response),
            form(told.notification),
        )


async def whole(rig: Stand, told: Told, sent: Any) -> Any:
    """The response to a call; what comes before it on its stream is heard."""
    reply = await rig.client.send(sent)
    if "json" in reply.headers.get("content-type", ""):
        return await reply.json()
    while "method" in (message := await reply.message()):
        await told.hear(message)
    return message


# stdio.


async def over_stdio(judge: Judge, way: str) -> Seen:
    async with inside(judge) as client:
        client.writer.write(line({"method": VENDOR}))
        client.writer.write(line({"id": 1, "method": "tools/call", "params": MARKED}))
        response, asked, _ = await heard(client, 1)
        _, _, told = await heard(client, 2, call(2, "flood", count=1, size=1))
        last, _, _ = await heard(client, 3, call(3, "heard_so_far"))
        got = json.loads(last["result"]["content"][0]["text"])
        return Seen(
            form(next((one for one in got if one.get("method") == VENDOR), None)),
            form(next((one for one in got if one.get("id") == 1), None)),
            form(asked),
            form(next((one for one in got if one.get("id") == "q"), None)),
            form(response),
            form(told),
        )


async def heard(client: Inside, id: int, sent: bytes = b"") -> tuple[Any, Any, Any]:
    """The response; and the question, answered, and the notification that came before it."""
    client.writer.write(sent)
    asked = told = None
    while (message := await client.message()).get("id") != id or "method" in message:
        if message.get("method") == "roots/list":
            asked = message
            client.writer.write(line({"id": message["id"], "result": {"roots": []}}))
        else:
            told = message
    return message, asked, told


WAYS: dict[str, Callable[[Judge, str], Coroutine[Any, Any, Seen]]] = {
    "json": over_http,
    "sse": over_http,
    "batch": over_http,
    "stdio": over_stdio,
}


@pytest.mark.parametrize(("phase", "verdict"), CASES, ids=lambda value: getattr(value, "value", value))
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_verdict(phase: Phase, verdict: str, way: str, waits: bool) -> None:
    expected = Seen() if verdict == "pass" else TABLE[phase][verdict]
    async with soon(60):
        assert await WAYS[way](Judge(phase, verdict, waits=waits), way) == expected

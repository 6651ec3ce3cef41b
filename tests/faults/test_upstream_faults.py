"""What upstreams do to a proxy: they restart, come back as less, fall silent, and talk nonsense."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shadowcat import PASS, Context, Interceptor, Message, ReverseProxy, Verdict
from shadowcat.core.ports import Counting
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.limits import Timeouts
from shadowcat.proxy.recovery import Recovery
from shadowcat.proxy.shared import SessionLimits
from tests.rig.cases import refused
from tests.rig.client import client_of, rpc
from tests.rig.server import Call, holding
from tests.rig.stand import Stand, server_process, stand
from tests.rig.wait import happens, until

SHORT = Timeouts(head_s=0.3, gap_s=0.3)
TOOL = {"name": "t", "arguments": {}}
INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


def running(proxy: ReverseProxy) -> set[str]:
    """The names of the proxy's own tasks and of what it runs for clients."""
    tasks = [task.get_name() for task in asyncio.all_tasks()]
    return {name for name in tasks if name.startswith(("proxy/", "http/"))}


async def at_rest(proxy: ReverseProxy) -> None:
    """Waits until only the watch over idle sessions runs: what hung has been let go of."""
    await until(lambda: running(proxy) <= {"proxy/expire idle sessions"})


# 20: the upstream was restarted.


@pytest.mark.parametrize("answers_json", [True, False])
async def test_a_restart_costs_one_initialize_for_fifty_callers(answers_json: bool) -> None:
    async with stand(script={"answers_json": answers_json}) as rig:
        client, server = rig.client, rig.server
        await client.initialize()
        await client.call("logging/setLevel", {"level": "error"}, 1)
        id = client.session_id
        server.restart()
        server.requests.clear()
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(client.call(id=number) for number in range(100, 150)))
        took = asyncio.get_running_loop().time() - began
        assert [answer["id"] for answer in answers] == list(range(100, 150))
        assert all("result" in answer for answer in answers)
        assert took <= 1.0
        assert len(server.got("initialize")) == 1
        assert len(server.got("logging/setLevel")) == 1
        assert client.session_id == id
        # Each call was executed once: what the restarted server refused, it had not processed.
        known = [s for s in server.got("tools/call") if s.get("mcp-session-id") == "up-a-2"]
        assert len(known) == 50
        await at_rest(rig.proxy)


async def test_a_slow_restart_costs_one_initialize_too() -> None:
    async with stand() as rig:
        await rig.client.initialize()
        rig.server.restart()
        release = asyncio.Event()
        rig.server.handlers["initialize"] = holding(release, rig.server.initialize)
        asking = [asyncio.create_task(rig.client.call(id=number)) for number in range(50)]
        await rig.server.gets("tools/call", 50)
        release.set()
        assert all("result" in answer for answer in await asyncio.gather(*asking))
        assert len(rig.server.got("initialize")) == 2


async def test_a_client_that_gives_up_does_not_take_the_recovery_with_it() -> None:
    async with stand() as rig:
        await rig.client.initialize()
        rig.server.restart()
        release = asyncio.Event()
        rig.server.handlers["initialize"] = holding(release, rig.server.initialize)
        impatient = await rig.another_client()
        impatient.session_id, impatient.version = rig.client.session_id, rig.client.version
        gone = asyncio.create_task(impatient.call(id=1))
        await rig.server.gets("initialize", 2)
        patient = asyncio.create_task(rig.client.call(id=2))
        await rig.server.gets("tools/call", 2)
        gone.cancel()
        impatient.close()
        release.set()
        assert "result" in await patient
        assert len(rig.server.got("initialize")) == 2


async def test_a_session_that_has_ended_is_not_recovered() -> None:
    """Whoever found the server's session lost may be late."""
    async with stand() as rig:
        await rig.client.initialize()
        session = rig.session()
        assert (await rig.client.delete()).status == 200
        with pytest.raises(Fault) as late:
            await Recovery(session.core).run(session.core.correlator.epoch)
        assert late.value.kind is FaultKind.SESSION_UNKNOWN
        assert len(rig.server.got("initialize")) == 1


async def test_a_session_that_is_deleted_while_it_recovers_stays_deleted() -> None:
    async with stand() as rig:
        await rig.client.initialize()
        rig.server.restart()
        release = asyncio.Event()
        rig.server.handlers["initialize"] = holding(release, rig.server.initialize)
        asking = asyncio.create_task(rig.client.begin("tools/list", id=7))
        await rig.server.gets("initialize", 2)
        assert (await rig.client.delete()).status == 200
        release.set()
        reply = await asking
        assert (reply.status, await reply.messages() if reply.is_stream else []) in ((404, []), (200, []))
        await until(lambda: not rig.server.sessions)
        await refused(await rig.client.begin("tools/list", id=8), 404, -32600, 8)
        assert len(rig.proxy.shared.ids) == 0
        await at_rest(rig.proxy)


@pytest.mark.parametrize("status", [500, 503, 404, 200])
async def test_a_restart_that_fails_is_tried_again(status: int) -> None:
    limits = SessionLimits(recovery_gap_s=0.0)
    async with stand(session_limits=limits) as rig:
        await rig.client.initialize()
        rig.server.restart()

        @rig.server.on("initialize")
        async def fail(call: Call) -> None:
            await call.seen.respond(status, b"", "text/html")

        reply = await rig.client.begin("tools/call", TOOL, 7)
        await refused(reply, 200, -32603, 7)
        del rig.server.handlers["initialize"]
        assert "result" in await rig.client.call()


# 21: it came back as less.


@pytest.mark.parametrize("callers", [1, 50])
@pytest.mark.parametrize("lost", ["tools", "logging", "resources"])
async def test_fewer_capabilities_end_the_session_for_everybody(callers: int, lost: str) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        await rig.server.listens()
        rig.server.restart()
        del rig.server.capabilities[lost]
        replies = await asyncio.gather(
            *(rig.client.begin("tools/list", id=number) for number in range(callers))
        )
        assert [reply.status for reply in replies] == [404] * callers
        for method in ("GET", "DELETE"):
            fields = [("Accept", "text/event-stream"), *rig.client.in_session()]
            assert (await rig.client.request(method, fields)).status == 404
        listening.close()
        # The server is not left with a session that nobody will use.
        await until(lambda: not rig.server.sessions)
        rig.server.requests.clear()
        assert (await rig.client.begin("tools/list", id=1)).status == 404
        assert rig.server.got("tools/list") == []


# 22: it falls silent.


async def black_hole(call: Call) -> None:
    await happens(call.seen.dropped)


async def drip_head(call: Call) -> None:
    await _drip(call, b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 10_000)


async def drip_json(call: Call) -> None:
    body = json.dumps(call.response({"content": [], "pad": "x" * 10_000})).encode()
    await call.seen.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    )
    await _drip(call, body)


async def drip_event(call: Call) -> None:
    await call.seen.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    await _drip(call, b"data: " + b"x" * 10_000)


async def _drip(call: Call, data: bytes) -> None:
    """Bytes one by one, each well within the time for the next."""
    for index in range(len(data)):
        await call.seen.raw(data[index : index + 1])
        try:
            await happens(call.seen.dropped, within_s=0.02)
        except TimeoutError:
            continue
        return


SILENT = [
    pytest.param(black_hole, id="black hole"),
    pytest.param(drip_head, id="dripping head"),
    pytest.param(drip_json, id="dripping JSON"),
    pytest.param(drip_event, id="dripping event"),
]


@pytest.mark.parametrize("fault", SILENT)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_silent_upstream_meets_its_deadline(
    fault: Callable[[Call], Awaitable[None]], era: str
) -> None:
    async with stand(call_timeouts=SHORT) as rig:
        await rig.client.initialize()
        await at_rest(rig.proxy)
        rig.server.handlers["tools/call"] = fault
        async with asyncio.timeout(5):
            if era == "legacy":
                answer = await rig.client.call(id=7)
            else:
                answer = await (await rig.client.ask("tools/call", TOOL, id=7)).json()
        assert (answer["id"], answer["error"]["code"]) == (7, -31007)
        assert rig.server.url not in str(answer)
        [seen] = rig.server.got("tools/call")
        await happens(seen.dropped, within_s=5)
        if era == "legacy":
            # A lost connection cancels nothing there: the server is told.
            told = await rig.server.gets("notifications/cancelled")
            assert told.json["params"]["requestId"] == seen.json["id"]
        else:
            assert rig.server.got("notifications/cancelled") == []
        await at_rest(rig.proxy)
        # Nothing else suffers.
        del rig.server.handlers["tools/call"]
        assert "result" in await rig.client.call()
        assert len(rig.server.got("initialize")) == 1


async def test_a_silent_upstream_opens_no_session() -> None:
    async with stand(call_timeouts=SHORT) as rig:
        rig.server.handlers["initialize"] = black_hole
        await refused(await rig.client.post(INITIALIZE), 504, -31007, 7)
        assert len(rig.proxy.relay.sessions) == 0
        await at_rest(rig.proxy)


async def test_keepalive_comments_are_no_silence() -> None:
    """A tool may take its time as long as its server shows that it is there."""
    async with stand(call_timeouts=SHORT) as rig:

        @rig.server.on("tools/call")
        async def slow(call: Call) -> None:
            stream = await call.stream()
            for _ in range(30):
                await stream.raw(b": still here\n\n")
                with pytest.raises(TimeoutError):
                    await happens(call.seen.dropped, within_s=0.02)
            await stream.send(call.response({"content": []}))
            await stream.end()

        await rig.client.initialize()
        assert "result" in await rig.client.call()


async def test_a_quiet_subscription_is_no_silent_call() -> None:
    async with stand(call_timeouts=SHORT) as rig:
        goes_on = asyncio.Event()

        @rig.server.on("subscriptions/listen")
        async def subscribe(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/subscriptions/acknowledged", {"notifications": {}})
            await happens(goes_on)
            await stream.notify("notifications/tools/list_changed")
            await happens(call.seen.dropped)

        reply = await rig.client.ask("subscriptions/listen", {"notifications": {}}, id="L")
        assert (await reply.message())["method"] == "notifications/subscriptions/acknowledged"
        # Another call runs into its deadline meanwhile: that much time has passed.
        rig.server.handlers["tools/call"] = black_hole
        for _ in range(3):
            answer = await (await rig.client.ask("tools/call", TOOL)).json()
            assert answer["error"]["code"] == -31007
        goes_on.set()
        assert (await reply.message())["method"] == "notifications/tools/list_changed"


async def test_a_stopped_process() -> None:
    async with (
        server_process() as (process, url),
        ReverseProxy({"child": url}, port=0, call_timeouts=SHORT) as proxy,
        client_of(proxy.port) as client,
    ):
        await client.initialize()
        assert "result" in await client.call()
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(client.call(id=id) for id in range(1, 21)))
        assert {answer["error"]["code"] for answer in answers} <= {-31007, -31005}
        await at_rest(proxy)
        process.send_signal(signal.SIGCONT)
        assert "result" in await client.call(id=99)
        process.send_signal(signal.SIGSTOP)
        # The proxy itself must still be able to leave.
        async with asyncio.timeout(10):
            await proxy.aclose()
    assert running(proxy) == set()


# 23: it talks nonsense.

GARBAGE = [
    pytest.param(b"{", id="cut off"),
    pytest.param(b"hello", id="text"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="empty batch"),
    pytest.param(b'{"jsonrpc":"2.0"}', id="no message"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{},"error":{}}', id="both"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{"x":NaN}}', id="NaN"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\xff"}}', id="bad UTF-8"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{"x":"\\ud800"}}', id="surrogate"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="deep"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":' + b"9" * 5_000 + b"}", id="long number"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{}} x', id="trailing"),
    pytest.param(b'\xef\xbb\xbf{"jsonrpc":"2.0","id":%d,"result":{}}', id="BOM"),
    pytest.param(b'{"jsonrpc":"2.0","id":%d,"result":{},"result":{}}', id="twice"),
]


HOW = ["json", "sse", "sse behind a message"]


@pytest.mark.parametrize(
    ("garbage", "how"),
    [
        pytest.param(row.values[0], how, id=f"{row.id} as {how}")
        for row in GARBAGE
        for how in HOW
        # An event without data is no message, but it is no garbage either.
        if row.values[0] or how == "json"
    ],
)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_garbage_ends_its_request_and_nothing_else(garbage: bytes, how: str, era: str) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        bystander = asyncio.Event()

        async def answer(call: Call) -> None:
            await call.result({"content": []})

        rig.server.handlers["tools/list"] = holding(bystander, answer)
        listening = await rig.client.listen()
        standalone = await rig.server.listens()
        waiting = asyncio.create_task(rig.client.call("tools/list", {}, 1))

        @rig.server.on("tools/call")
        async def talk(call: Call) -> None:
            text = garbage % call.id if b"%d" in garbage else garbage
            if how == "json":
                await call.seen.respond(200, text, "application/json")
                return
            stream = await call.stream()
            if how == "sse behind a message":
                await stream.notify("notifications/vendor")
            await stream.raw(b"data: " + text + b"\n\n")
            await happens(call.seen.dropped)

        if era == "legacy":
            answered = await rig.client.call(id=7)
        else:
            answered = await (await rig.client.ask("tools/call", TOOL, id=7)).json()
        assert (answered["id"], answered["error"]["code"]) == (7, -31003)
        # What else runs, lives.
        await standalone.notify("notifications/other")
        assert (await listening.message())["method"] == "notifications/other"
        bystander.set()
        assert "result" in await waiting
        assert len(rig.server.got("initialize")) == 1


GARBLED_NOTIFICATIONS = [
    pytest.param(b'{"jsonrpc":"2.0","method":"notifications/vendor","method":"x"}', id="twice"),
    pytest.param(b'{"jsonrpc":"2.0","method":"notifications/vendor","params":{"result":NaN}}', id="NaN"),
    pytest.param(b'{"jsonrpc":"2.0","method":"notifications/vendor","params":[]}', id="array"),
    pytest.param(b'{"jsonrpc":"2.0","method":"notifications/vendor","error":{}}', id="error too"),
    pytest.param(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"requestId":2}}',
        id="cancellation",
    ),
]


@pytest.mark.parametrize("garbage", GARBLED_NOTIFICATIONS)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_notification_that_cannot_be_read_costs_no_call(garbage: bytes, era: str) -> None:
    async with stand() as rig:
        await rig.client.initialize()

        @rig.server.on("tools/call")
        async def talk(call: Call) -> None:
            stream = await call.stream()
            await stream.raw(b"data: " + garbage + b"\n\n")
            await stream.notify("notifications/vendor")
            await stream.send(call.response({"content": []}))
            await stream.end()

        if era == "legacy":
            reply = await rig.client.begin("tools/call", TOOL, 7)
        else:
            reply = await rig.client.ask("tools/call", TOOL, id=7)
        *before, answer = await reply.messages()
        assert answer["result"]["content"] == []
        assert before[-1] == {"jsonrpc": "2.0", "method": "notifications/vendor"}
        if b"cancelled" in garbage:
            assert era == "modern" or rig.counters.dropped_messages == 1
        else:
            assert len(before) == 1
            assert _garbage_counted(rig) == 1


@pytest.mark.parametrize("garbage", GARBLED_NOTIFICATIONS)
async def test_a_notification_that_cannot_be_read_is_left_out_of_the_standalone_stream(
    garbage: bytes,
) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        standalone = await rig.server.listens()
        await standalone.raw(b"data: " + garbage + b"\n\n")
        await standalone.notify("notifications/other")
        assert (await listening.message())["method"] == "notifications/other"
        assert _garbage_counted(rig) + rig.counters.dropped_messages == 1


def _garbage_counted(rig: Stand) -> int:
    [upstream] = rig.proxy.shared.upstreams
    assert isinstance(upstream, Counting)
    return upstream.statistics().lines_of_garbage


async def test_an_error_that_cannot_be_read_ends_its_request() -> None:
    body = b'{"jsonrpc":"2.0","id":%d,"error":{"code":-32000,"code":-32600,"message":"no session"}}'
    async with stand() as rig:
        await rig.client.initialize()

        @rig.server.on("tools/call")
        async def refuse(call: Call) -> None:
            await call.seen.respond(400, body % call.id, "application/json")

        await refused(await rig.client.begin("tools/call", TOOL, 7), 200, -31003, 7)


async def test_an_answer_that_an_interceptor_cannot_read_ends_its_request() -> None:
    class Reading(Interceptor):
        def on_response(self, message: Message, context: Context) -> Verdict:
            message.result()
            return PASS

    body = b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"content":[]}}'
    async with stand(interceptors=[Reading()]) as rig:
        await rig.client.initialize()

        @rig.server.on("tools/call")
        async def garble(call: Call) -> None:
            await call.seen.respond(200, body % call.id, "application/json")

        await refused(await rig.client.begin("tools/call", TOOL, 7), 200, -31003, 7)
        await refused(await rig.client.ask("tools/call", TOOL, id=8), 502, -31003, 8)


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_garbage_on_the_standalone_stream_is_left_out(garbage: bytes) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        standalone = await rig.server.listens()
        await standalone.raw(b"data: " + garbage.replace(b"%d", b"1") + b"\n\n")
        await standalone.notify("notifications/other")
        assert (await listening.message())["method"] == "notifications/other"
        assert len(rig.server.got("GET")) == 1


ODD_ANSWERS: list[Any] = [
    pytest.param(b'{"jsonrpc":"2.0","id":999,"result":{}}', "application/json", -31003, id="other id"),
    pytest.param(b'{"jsonrpc":"2.0","id":"7","result":{}}', "application/json", -31003, id="id as text"),
    pytest.param(b'{"jsonrpc":"2.0","method":"x"}', "application/json", -31003, id="a notification"),
    pytest.param(b"<html>", "text/html", -32603, id="a page"),
    pytest.param(b"{}", None, -32603, id="no type"),
]


@pytest.mark.parametrize(("body", "kind", "code"), ODD_ANSWERS)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_an_answer_that_is_none(body: bytes, kind: str | None, code: int, era: str) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        rig.server.handlers["tools/call"] = lambda call: call.seen.respond(200, body, kind)
        if era == "legacy":
            await refused(await rig.client.begin("tools/call", TOOL, 7), 200, code, 7)
        else:
            await refused(await rig.client.ask("tools/call", TOOL, id=7), 502, code, 7)
        assert "result" in await rig.client.call("tools/list")


async def test_an_upstreams_spelling_injects_nothing() -> None:
    """Line ends of other alphabets are text; the client's stream has the proxy's ids and line ends only."""
    text = "a\u2028b\u2029c\u0085d\x0b"

    async with stand() as rig:

        @rig.server.on("tools/call")
        async def talk(call: Call) -> None:
            stream = await call.stream()
            await stream.raw(b"id: up\x00stream\nevent: message\nretry: 1\n")
            message = {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"t": text}}
            await stream.raw(b"data: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n")
            pretty = json.dumps(call.response({"content": [text]}), indent=1)
            await stream.raw("".join(f"data: {line}\n" for line in pretty.split("\n")).encode() + b"\n")
            await stream.end()

        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", TOOL, 1)
        first, last = await reply.messages()
        assert first["params"]["t"] == text
        assert last["result"]["content"] == [text]
        assert all(event.retry in (None, 3_000) for event in reply.seen)
        assert not any("up" in (event.id or "") for event in reply.seen)


async def test_an_endless_event_is_cut() -> None:
    async with stand() as rig:

        @rig.server.on("tools/call")
        async def flood(call: Call) -> None:
            stream = await call.stream()
            piece = b"data: " + b"x" * 1_000_000 + b"\n"
            while not call.seen.dropped.is_set():
                await stream.raw(piece)

        await rig.client.initialize()
        answer = await rig.client.call(id=7)
        assert (answer["id"], answer["error"]["code"]) == (7, -31003)
        assert "result" in await rig.client.call("tools/list")


async def test_a_hundred_garbage_answers_crash_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with stand() as rig:
        await rig.client.initialize()
        kinds = ["application/json", "text/event-stream"]
        bodies = [param.values[0] for param in GARBAGE]
        count = 0

        @rig.server.on("tools/call")
        async def talk(call: Call) -> None:
            nonlocal count
            body = bodies[count % len(bodies)]
            kind = kinds[count // len(bodies) % 2]
            count += 1
            assert isinstance(body, bytes)
            await call.seen.respond(200, body if kind == kinds[0] else b"data: " + body + b"\n\n", kind)

        answers = await asyncio.gather(*(rig.client.call(id=id) for id in range(100)))
        assert {answer["error"]["code"] for answer in answers} <= {-31003, -31004}
        assert [answer["id"] for answer in answers] == list(range(100))
        await at_rest(rig.proxy)
    assert not [record for record in caplog.records if record.exc_info]

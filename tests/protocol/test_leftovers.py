"""What an exchange or a session leaves behind once it is over: nothing that waits for the garbage collector.

In a circle the bodies of a call would stay until the collector comes by, which is told to come seldom: with a megabyte
each that was a gigabyte.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadowcat import PASS, Context, Interceptor, Reject, Verdict
from shadowcat.core.correlate import Correlator, InFlight
from shadowcat.downstream import direct as endpoint
from shadowcat.downstream.outbox import Outbox
from shadowcat.downstream.sse_stream import SseStream
from shadowcat.errors import Fault
from shadowcat.http.check import Refusal
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.message import Request, Response
from shadowcat.proxy import direct
from shadowcat.proxy.book import StreamBook
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.ledger import SessionLedger
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import SessionLimits
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.wire.jsonrpc import Message
from tests.rig.client import modern, routing, rpc
from tests.rig.old_client import old_client_of
from tests.rig.server import Call, Handler
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, until
from tests.rig.wire import Seen

TEXT = {"content": [{"type": "text", "text": "done"}]}
OF_AN_EXCHANGE = (Request, Response, Refusal, ClientResponse, InFlight, direct._Call, endpoint._Call)  # type: ignore[attr-defined]
OF_A_SESSION = (Session, SessionCore, SessionLedger, StreamBook, Correlator, SseStream, Outbox)
COUNTED = (*OF_AN_EXCHANGE, *OF_A_SESSION)
TIMES = 20


@pytest.fixture
def uncollected() -> Iterator[list[object]]:
    """The collector is off, and what other tests of this process hold on to is not counted."""
    gc.collect()
    before = _counted()
    gc.disable()
    yield before
    gc.enable()


def _counted() -> list[object]:
    return [found for found in gc.get_objects() if isinstance(found, COUNTED)]


async def _whole(call: Call) -> None:
    await call.json(call.response(TEXT))


async def _stream(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/message", {"level": "info", "data": 1})
    await stream.send(call.response(TEXT))
    await stream.end()


async def _error(call: Call) -> None:
    await call.error(-32602, "no such tool")


async def _cut(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/message", {"level": "info", "data": 1})
    stream.cut()


async def _bad_http(call: Call) -> None:
    await call.seen.raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}")


async def _failure(call: Call) -> None:
    await call.json({"oops": True}, status=500)


HANDLERS = [_whole, _stream, _error, _cut, _bad_http, _failure]


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_call_in_a_session(session: Stand, handler: Handler, uncollected: list[object]) -> None:
    session.server.handlers["tools/call"] = handler
    for id in range(TIMES):
        assert await session.client.call("tools/call", {"name": "t"}, id=id)
    await _nothing_is_left_but(uncollected)


@pytest.mark.parametrize("handler", [_whole, _cut, _bad_http])
@pytest.mark.parametrize("after_s", [1e-9, 60.0], ids=["upgraded", "in time"])
async def test_a_call_that_may_be_upgraded(
    after_s: float, handler: Handler, uncollected: list[object]
) -> None:
    async with stand(session_limits=SessionLimits(upgrade_after_s=after_s)) as rig:
        rig.server.handlers["tools/call"] = handler
        await rig.client.initialize()
        for id in range(TIMES):
            assert await rig.client.call("tools/call", {"name": "t"}, id=id)
        await _nothing_is_left_but(uncollected)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_modern_call(rig: Stand, handler: Handler, uncollected: list[object]) -> None:
    rig.server.handlers["tools/call"] = handler
    for id in range(TIMES):
        call = modern("tools/call", {"name": "t"}, id)
        reply = await rig.client.post(call, *routing("tools/call", "t"))
        await reply.body()
    await _nothing_is_left_but(uncollected)


async def test_a_refusal(session: Stand, uncollected: list[object]) -> None:
    for _ in range(TIMES):
        reply = await session.client.send(b'{"jsonrpc":"2.0","id":')
        assert reply.status == 400
        await reply.body()
    await _nothing_is_left_but(uncollected)


class Tap:
    def saw(self, message: Message, context: Context, outcome: Verdict) -> None: ...

    def failed(self, context: Context, fault: Fault) -> None: ...


async def _question(call: Call) -> None:
    stream = await call.stream()
    await stream.request("q", "roots/list")
    await happens(call.seen.dropped)


async def test_an_answer_that_does_not_arrive(rig: Stand, uncollected: list[object]) -> None:
    async def refuse(call: Call) -> None:
        await call.seen.respond(400)

    rig.server.handlers |= {"tools/call": _question, "answer": refuse}
    await rig.client.initialize(capabilities={"roots": {}})
    asked = await (await rig.client.begin("tools/call", {"name": "t"})).message()
    for _ in range(TIMES):
        reply = await rig.client.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"roots": []}})
        assert reply.status >= 400
        await reply.body()
    await _nothing_is_left_but(uncollected)


@pytest.mark.parametrize("taps", [(), (Tap(),)], ids=["untapped", "tapped"])
@pytest.mark.parametrize("is_stored", [False, True], ids=["in memory", "stored"])
async def test_a_session(
    is_stored: bool, taps: tuple[Tap, ...], uncollected: list[object], tmp_path: Path
) -> None:
    store = SqliteStore(tmp_path / "sessions.db") if is_stored else None
    async with stand(store=store, taps=taps) as rig:
        rig.server.handlers["tools/call"] = _question
        for _ in range(TIMES):
            client = await rig.another_client()
            await client.initialize(capabilities={"roots": {}})
            asked = await client.begin("tools/call", {"name": "t"})
            assert (await asked.message())["method"] == "roots/list"
            assert (await client.delete()).status == 200
        await _nothing_is_left_but(uncollected)


@pytest.mark.parametrize("after_s", [None, 0.0], ids=["waiting", "upgraded"])
async def test_a_session_that_ends_under_its_calls(
    after_s: float | None, uncollected: list[object], tmp_path: Path
) -> None:
    async def hang(call: Call) -> None:
        await happens(call.seen.dropped)

    store = SqliteStore(tmp_path / "sessions.db")
    async with stand(store=store, session_limits=SessionLimits(upgrade_after_s=after_s)) as rig:
        rig.server.handlers["tools/call"] = hang
        for times in range(TIMES):
            client = await rig.another_client()
            await client.initialize()
            calling = asyncio.create_task(client.call())
            await rig.server.gets("tools/call", times + 1)
            assert (await client.delete()).status == 200
            assert (await calling)["error"]["data"]["reason"] == "session_ended"
        await _nothing_is_left_but(uncollected)


async def test_a_session_of_the_old_transport(rig: Stand, uncollected: list[object]) -> None:
    rig.server.handlers["tools/call"] = _question
    for _ in range(TIMES):
        async with old_client_of(rig.proxy.port) as client:
            await client.initialize(capabilities={"roots": {}})
            await client.ask("tools/call", {"name": "t"})
            assert (await client.message())["method"] == "roots/list"
    await _nothing_is_left_but(uncollected)


async def test_a_batch_with_what_cannot_be_read(rig: Stand, uncollected: list[object]) -> None:
    await rig.client.initialize("2025-03-26")
    for id in range(TIMES):
        reply = await rig.client.send([rpc("ping", None, id), {"oops": True}])
        assert len(await reply.rest()) == 2
    await _nothing_is_left_but(uncollected)


async def test_a_server_that_is_away(session: Stand, uncollected: list[object]) -> None:
    await session.server.listener.close()
    for id in range(TIMES):
        answer = await session.client.call("tools/call", {"name": "t"}, id=id)
        assert answer["error"]["code"] == -31005
        reply = await session.client.ask("tools/call", {"name": "t"})
        assert reply.status == 503
        await _refused_opening(session)
    await _nothing_is_left_but(uncollected)


async def test_a_server_that_speaks_neither_transport(rig: Stand, uncollected: list[object]) -> None:
    async def refuse(what: Call) -> None:
        await what.seen.respond(405)

    async def refuse_stream(what: Seen) -> None:
        await what.respond(405)

    rig.server.handlers["initialize"] = refuse
    rig.server.offers_get = False
    rig.server.on_get = refuse_stream
    for _ in range(TIMES):
        await _refused_opening(rig)
    await _nothing_is_left_but(uncollected)


async def _refused_opening(rig: Stand) -> None:
    params = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "rig", "version": "1"},
    }
    reply = await rig.client.post(rpc("initialize", params, 0))
    assert reply.status >= 500
    await reply.body()


HEAD = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UNREAD = {
    "half a body": HEAD + b"Content-Length: 500000\r\n\r\n" + b"x" * 50_000,
    "too long a target": b"GET /" + b"a" * 100_000,
    "not for HTTP/1.1": HEAD + b"Transfer-Encoding: gzip\r\n\r\n" + b"x" * 50_000,
    "no HTTP at all": b"\0" * 50_000,
}


@pytest.mark.parametrize("sent", UNREAD.values(), ids=UNREAD)
async def test_what_never_became_a_request(rig: Stand, sent: bytes, uncollected: list[object]) -> None:
    for _ in range(TIMES):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.proxy.port)
        writer.write(sent)
        if sent is not UNREAD["half a body"]:
            assert await reader.read(1) == b"H"
        await writer.drain()
        writer.transport.abort()
    await until(lambda: not rig.proxy.server.statistics().connections)
    await _nothing_is_left_but(uncollected)


NOT_TODAY = Reject.because("not today")
BROKEN = RuntimeError("not today either")


class Refuses(Interceptor):
    def __init__(self, one_for_all: Verdict | Exception) -> None:
        self._one_for_all = one_for_all

    def on_request(self, message: Message, context: Context) -> Verdict:
        if message.method != "tools/call":
            return PASS
        if isinstance(self._one_for_all, Exception):
            raise self._one_for_all
        return self._one_for_all


@pytest.mark.parametrize(
    "one_for_all", [NOT_TODAY, NOT_TODAY.fault, BROKEN], ids=["verdict", "fault", "error"]
)
async def test_an_interceptor_that_has_one_verdict_for_all(
    one_for_all: Verdict | Exception, uncollected: list[object]
) -> None:
    async with stand(interceptors=[Refuses(one_for_all)]) as rig:
        await rig.client.initialize()
        for id in range(TIMES):
            answer = await rig.client.call("tools/call", {"name": "t"}, id=id)
            assert answer["error"]["message"] == ("Internal error" if one_for_all is BROKEN else "not today")
        await _nothing_is_left_but(uncollected)


class BrokenTap:
    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        raise BROKEN

    def failed(self, context: Context, fault: Fault) -> None:
        raise BROKEN


@pytest.mark.parametrize("handler", [_whole, _cut])
async def test_a_tap_that_has_one_error_for_all(handler: Handler, uncollected: list[object]) -> None:
    async with stand(taps=[BrokenTap()]) as rig:
        rig.server.handlers["tools/call"] = handler
        await rig.client.initialize()
        for id in range(TIMES):
            assert await rig.client.call("tools/call", {"name": "t"}, id=id)
        await _nothing_is_left_but(uncollected)


async def _nothing_is_left_but(before: list[object]) -> None:
    """But for the last on each connection, and a few of those whose tasks have not quite ended."""
    known = {id(found) for found in before}

    def of_this_test() -> Counter[str]:
        return Counter(type(found).__qualname__ for found in _counted() if id(found) not in known)

    await asyncio.sleep(0)
    await until(lambda: all(count < TIMES / 2 for count in of_this_test().values()))

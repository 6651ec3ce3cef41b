"""A second proxy takes a session up where the store says the first one was: by then that one is gone, or as good as.

The first proxy is not stopped but cut off from the store at the moment of its crash: what it did until then is what
a killed one would have left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.core.ledger import Refusal, SessionChange
from shadowcat.core.place import Place
from shadowcat.core.rule_file import read_rules
from shadowcat.plugins.rules import Rules
from shadowcat.proxy.inbound import withdraw
from shadowcat.proxy.session import Session
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.streams import Stream as ProxyStream
from shadowcat.proxy.writer import Durability, StoreWriter
from shadowcat.stores.memory import MemoryStore
from tests.rig.cases import refused
from tests.rig.client import Client, Reply, client_of, rpc
from tests.rig.server import Call, McpServer, Stream, mcp_server
from tests.rig.wait import until
from tests.rig.wire import Seen


class Cut:
    """A store as one proxy sees it, until nothing that it writes arrives any more."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.arrives = asyncio.Event()
        self.arrives.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        await self.arrives.wait()
        return await self._store.write(changes)


@dataclass(eq=False)
class Crash:
    """Two proxies, one store, one server, one client."""

    server: McpServer
    store: MemoryStore
    client: Client
    first: ReverseProxy
    _stack: AsyncExitStack
    _seen_by_first: Cut
    _options: dict[str, Any]
    second: ReverseProxy | None = None
    streams: list[Stream] = field(default_factory=list[Stream])
    resumed: list[tuple[str, Stream]] = field(default_factory=list[tuple[str, Stream]])
    """What was asked of the server with Last-Event-ID."""

    @property
    def writer(self) -> StoreWriter:
        assert self.first.shared.writer is not None
        return self.first.shared.writer

    @property
    def session(self) -> Session:
        return next(iter(self.first.relay.sessions))

    async def written(self) -> None:
        assert await self.writer.flush(5.0)

    def stop_writing(self) -> None:
        self._seen_by_first.arrives.clear()

    def start_writing(self) -> None:
        self._seen_by_first.arrives.set()

    async def crash(self) -> None:
        """The first proxy is no more; the client goes to the second."""
        self._seen_by_first.arrives.clear()
        self.second = await self._stack.enter_async_context(
            ReverseProxy({"a": self.server.url}, port=0, store=self.store, **self._options)
        )
        self.client.port = self.second.port

    async def crash_again(self) -> None:
        """So is the second one, when it has written what it knows."""
        assert self.second is not None
        assert self.second.shared.writer is not None
        assert await self.second.shared.writer.flush(5.0)
        await self.crash()

    async def begin(self, method: str = "tools/call", id: int = 1) -> tuple[Reply, Stream]:
        """A call and the server's side of its answer."""
        reply = await self.client.begin(method, {"name": "t", "_meta": {"progressToken": "p"}}, id)
        await until(lambda: self.streams)
        return reply, self.streams[-1]

    async def asked_again(self) -> tuple[str, Stream]:
        await until(lambda: self.resumed)
        return self.resumed[-1]


Make = Callable[..., Awaitable[Crash]]


@asynccontextmanager
async def crash_rig(**options: Any) -> AsyncIterator[Crash]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(mcp_server(name="a", answers_json=False))
        store = MemoryStore()
        seen: Any = Cut(store)
        durability = Durability(gather_s=0.0, patience_s=0.3, strict=options.pop("strict", False))
        options = {"durability": durability, **options}
        first = await stack.enter_async_context(
            ReverseProxy({"a": server.url}, port=0, store=seen, **options)
        )
        client = await stack.enter_async_context(client_of(first.port))
        found = Crash(server, store, client, first, stack, seen, options)

        async def on_get(seen: Seen) -> None:
            cursor = seen.get("last-event-id")
            assert cursor is not None
            await seen.begin("text/event-stream")
            stream = Stream(seen)
            found.resumed.append((cursor, stream))
            await stream.over.wait()

        async def on_call(call: Call) -> None:
            stream = await call.stream()
            found.streams.append(stream)
            await stream.over.wait()

        server.on_get = on_get
        server.handlers["tools/call"] = on_call
        yield found
        # What arrives now is refused: the session is another's.
        seen.arrives.set()
        for stream in [*found.streams, *server.listening, *(stream for _, stream in found.resumed)]:
            stream.over.set()


@pytest.fixture
async def rig() -> AsyncIterator[Crash]:
    async with crash_rig() as found:
        await found.client.initialize()
        yield found


def note(number: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"n": number}}


def numbers(messages: list[Any]) -> list[int]:
    return [message["params"]["n"] for message in messages if "method" in message]


async def say(stream: Stream, first: int, last: int) -> None:
    for number in range(first, last + 1):
        await stream.send(note(number), id=f"u{number}")


async def hear(reply: Reply, count: int) -> list[int]:
    return numbers([await reply.message() for _ in range(count)])


def result(id: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"content": []}}


async def test_the_rest_of_a_finished_stream(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 4)
    heard = await hear(reply, 2)
    cursor = reply.last_id
    await stream.send(result(stream.seen.json["id"]))
    await stream.end()
    await until(lambda: rig.session.core.correlator.is_idle)
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(cursor)
    rest = await again.messages()
    assert heard + numbers(rest) == [1, 2, 3, 4]
    assert rest[-1] == result(1)
    assert rig.resumed == []


async def test_a_running_call_is_resumed_at_the_server(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 3)
    assert await hear(reply, 3) == [1, 2, 3]
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u3"
    assert more.seen.get("mcp-session-id") == "up-a-1"
    await say(more, 4, 5)
    await more.send(result(stream.seen.json["id"]), id="u6")
    rest = await again.messages()
    assert numbers(rest) == [4, 5]
    assert rest[-1] == result(1)
    ids = [event.id for event in again.seen if event.data]
    epoch = reply.last_id.rpartition(".")[0]
    assert ids == [f"{epoch}.{seq}" for seq in (4, 5, 6)]


async def test_a_rule_for_what_a_tool_finds_holds_after_the_crash_too() -> None:
    rule = '[[rule]]\nname = "hide"\ntool = "t"\ndirection = "to_client"\nset = {"/result/hidden" = true}'
    async with crash_rig(interceptors=[Rules(read_rules(rule))]) as rig:
        await rig.client.initialize()
        reply, stream = await rig.begin()
        await say(stream, 1, 1)
        assert await hear(reply, 1) == [1]
        await rig.written()
        await rig.crash()
        again = await rig.client.listen(reply.last_id)
        _, more = await rig.asked_again()
        await more.send(result(stream.seen.json["id"]), id="u2")
        assert (await again.messages())[-1]["result"] == {"content": [], "hidden": True}


async def test_so_does_one_for_what_a_client_answers() -> None:
    rule = '[[rule]]\nname = "no"\nmethod = "elicitation/create"\ndirection = "to_server"\nblock = true'
    async with crash_rig(interceptors=[Rules(read_rules(rule))]) as rig:
        await rig.client.initialize(capabilities={"elicitation": {}})
        reply, stream = await rig.begin()
        await stream.request("q1", "elicitation/create", {"message": "?"})
        question = await reply.message()
        await rig.written()
        await rig.crash()
        assert (await rig.client.send(result(question["id"]))).status == 202
        assert (await rig.server.answer_to("q1")).json["error"]["code"] == -31006


async def test_nothing_leaves_before_the_store_knows_how_to_ask_for_the_rest(rig: Crash) -> None:
    """Where a client has heard a part, it must not lose the rest for want of a cursor."""
    reply, stream = await rig.begin()
    priming = await reply.event()
    assert priming is not None
    await rig.written()
    rig.stop_writing()
    await say(stream, 1, 2)
    held = stream_of_call(rig)
    await until(lambda: held.log.last_seq == 2)
    assert held.log.handed_out == 0
    await rig.crash()


async def test_what_the_client_saw_and_the_store_did_not_comes_once(rig: Crash) -> None:
    """The window of writing behind: the server repeats it, and it gets the numbers that it had."""
    reply, stream = await rig.begin()
    await say(stream, 1, 2)
    assert await hear(reply, 2) == [1, 2]
    await rig.written()
    rig.stop_writing()
    await say(stream, 3, 6)
    assert await hear(reply, 4) == [3, 4, 5, 6]
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u2"
    await say(more, 3, 8)
    await more.send(result(stream.seen.json["id"]), id="u9")
    rest = await again.messages()
    assert numbers(rest) == [7, 8]
    assert rest[-1] == result(1)


async def test_what_the_store_had_beyond_the_cursor_comes_once(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 2)
    assert await hear(reply, 2) == [1, 2]
    mark = cursor_of(rig)
    await say(stream, 3, 4)
    assert await hear(reply, 2) == [3, 4]
    go_back_to(rig, mark)
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u2"
    await say(more, 3, 5)
    await more.send(result(stream.seen.json["id"]), id="u6")
    rest = await again.messages()
    assert numbers(rest) == [5]


async def test_the_proxys_own_words_are_none_that_the_server_repeats(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await stream.send({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}, id="u1")
    assert (await reply.message())["method"] == "elicitation/create"
    (asked,) = rig.session.core.correlator.unanswered()
    withdraw(rig.session.core, asked, "nobody answered in time")
    assert (await reply.message())["method"] == "notifications/cancelled"
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u1"
    await say(more, 2, 3)
    await more.send(result(stream.seen.json["id"]), id="u4")
    assert numbers(await again.messages()) == [2, 3]


async def test_a_call_that_cannot_be_resumed_is_given_up_in_so_many_words(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await stream.send(note(1))
    assert await hear(reply, 1) == [1]
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    (only,) = await again.messages()
    assert (only["id"], only["error"]["code"]) == (1, -31004)
    assert only["error"]["data"]["reason"] == "proxy_restarted"


@pytest.mark.parametrize("unstored", [1, 2, 3])
async def test_so_is_one_whose_last_events_only_the_client_had(rig: Crash, unstored: int) -> None:
    reply, stream = await rig.begin()
    await stream.send(note(1))
    assert await hear(reply, 1) == [1]
    await rig.written()
    rig.stop_writing()
    for number in range(unstored):
        await stream.send(note(2 + number))
    assert await hear(reply, unstored) == list(range(2, 2 + unstored))
    await rig.crash()
    for _ in range(2):
        again = await rig.client.listen(reply.last_id)
        (only,) = await again.messages()
        assert (only["id"], only["error"]["code"]) == (1, -31004)


async def test_so_is_one_after_which_the_proxy_crashed_once_more(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await stream.send(note(1))
    assert await hear(reply, 1) == [1]
    await rig.written()
    rig.stop_writing()
    await stream.send(note(2))
    assert await hear(reply, 1) == [2]
    await rig.crash()
    # Another request has the session taken up, and the call given up.
    assert "result" in await rig.client.call("tools/list", id=2)
    await rig.crash_again()
    again = await rig.client.listen(reply.last_id)
    (only,) = await again.messages()
    assert (only["id"], only["error"]["code"]) == (1, -31004)


async def test_a_rest_that_the_server_refuses_is_given_up_though_the_store_had_some_of_it(rig: Crash) -> None:
    """What is skipped of the rest, because it is there, is the server's: the proxy's own word is not."""
    reply, stream = await rig.begin()
    await say(stream, 1, 2)
    assert await hear(reply, 2) == [1, 2]
    mark = cursor_of(rig)
    await say(stream, 3, 4)
    assert await hear(reply, 2) == [3, 4]
    go_back_to(rig, mark)
    await rig.written()
    await rig.crash()

    async def on_get(seen: Seen) -> None:
        await seen.respond(404)

    rig.server.on_get = on_get
    again = await rig.client.listen(reply.last_id)
    (only,) = await again.messages()
    assert only["id"] == 1
    assert "error" in only


Mark = tuple[bytes | None, int]


def cursor_of(rig: Crash) -> Mark:
    kept = stream_of_call(rig).kept()
    return kept.cursor, kept.cursor_seq


def go_back_to(rig: Crash, mark: Mark) -> None:
    """As if the crash came in the middle of what the server had sent in one go."""
    held = stream_of_call(rig)
    cursor, seq = mark
    held._place = None if cursor is None else Place(cursor, seq)  # pyright: ignore[reportPrivateUsage]
    held._home.keeper.stream_changed(held)  # pyright: ignore[reportPrivateUsage]


async def stream_with(rig: Crash, count: int) -> ProxyStream:
    """The call's, when it has so many events."""
    await until(lambda: any(held.log.last_seq == count for held in rig.session.core.book.all))
    return stream_of_call(rig)


def stream_of_call(rig: Crash) -> ProxyStream:
    return next(held for held in rig.session.core.book.all if held.request_id == 1)


async def test_a_call_that_the_server_has_not_begun_to_answer() -> None:
    async with crash_rig(session_limits=SessionLimits(upgrade_after_s=0.01)) as rig:
        await rig.client.initialize()
        waits = asyncio.Event()

        async def on_call(call: Call) -> None:
            await waits.wait()
            await call.json(call.response({}))

        rig.server.handlers["tools/call"] = on_call
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        priming = await reply.event()
        assert priming is not None
        await rig.written()
        await rig.crash()
        again = await rig.client.listen(priming.id)
        (only,) = await again.messages()
        assert (only["id"], only["error"]["code"]) == (1, -31004)
        waits.set()


async def test_a_server_that_forgot_the_session_meanwhile(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 1)
    await hear(reply, 1)
    await rig.written()
    await rig.crash()

    async def on_get(seen: Seen) -> None:
        await seen.respond(404)

    rig.server.on_get = on_get
    again = await rig.client.listen(reply.last_id)
    (only,) = await again.messages()
    assert only["id"] == 1
    assert "error" in only


async def test_each_call_of_a_batch_is_answered() -> None:
    async with crash_rig() as rig:
        await rig.client.initialize("2025-03-26")
        done = asyncio.Event()

        async def on_list(call: Call) -> None:
            await done.wait()
            await call.json(call.response({"tools": []}))

        rig.server.handlers["tools/list"] = on_list
        reply = await rig.client.send([rpc("tools/call", {"name": "t"}, 1), rpc("tools/list", {}, 2)])
        await until(lambda: rig.streams)
        await say(rig.streams[0], 1, 1)
        await hear(reply, 1)
        await rig.written()
        await rig.crash()
        again = await rig.client.listen(reply.last_id)
        errors = await again.messages()
        assert {(error["id"], error["error"]["code"]) for error in errors} == {(1, -31004), (2, -31004)}
        done.set()


async def test_the_standalone_stream_goes_on_where_it_was(rig: Crash) -> None:
    listening = await rig.client.listen()
    upstream = await rig.server.listens()
    await say(upstream, 1, 2)
    assert await hear(listening, 2) == [1, 2]
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(listening.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u2"
    await say(more, 3, 4)
    assert await hear(again, 2) == [3, 4]
    assert len(rig.server.listening) == 1


@pytest.mark.parametrize("had_listened", [True, False])
async def test_the_standalone_stream_goes_on_before_its_client_comes_back_for_it(
    rig: Crash, had_listened: bool
) -> None:
    """Its client may call first, and a server drops what it has to ask when there is no stream."""
    if had_listened:
        await rig.client.listen()
        await rig.server.listens()
        await rig.written()
    await rig.crash()
    await rig.client.call("tools/list")
    if had_listened:
        await rig.server.listens(2)
    else:
        await rig.client.call("tools/list")
        assert rig.server.got("GET") == []


@pytest.mark.parametrize("comes_first", [True, False])
async def test_a_standalone_stream_that_cannot_says_what_may_have_changed(
    rig: Crash, comes_first: bool
) -> None:
    """Whichever stream the client comes back for first: the number of an event that it has is no other's."""
    listening = await rig.client.listen()
    upstream = await rig.server.listens()
    await upstream.send(note(1))
    assert await hear(listening, 1) == [1]
    call, stream = await rig.begin()
    await say(stream, 1, 1)
    assert await hear(call, 1) == [1]
    await rig.written()
    rig.stop_writing()
    await upstream.send(note(2))
    await upstream.send(note(3))
    held = rig.session.core.book.standalone
    await until(lambda: held.log.last_seq == 3)
    assert held.log.handed_out == 1
    await rig.crash()
    if not comes_first:
        await rig.client.listen(call.last_id)
        await rig.server.listens(2)
    again = await rig.client.listen(listening.last_id)
    told = {(await again.message())["method"] for _ in range(3)}
    assert told == {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
    second = await rig.server.listens(2)
    await second.send(note(4))
    assert (await again.message())["params"] == {"n": 4}


@pytest.mark.parametrize("is_listened_to", [True, False])
async def test_a_place_in_a_stream_of_an_upstream_session_that_was_lost_is_none_in_the_next(
    rig: Crash, is_listened_to: bool
) -> None:
    """Servers count their events from one: the next session may have others under these ids."""
    listening = await rig.client.listen()
    upstream = await rig.server.listens()
    await say(upstream, 1, 2)
    assert await hear(listening, 2) == [1, 2]
    on_get, rig.server.on_get = rig.server.on_get, None
    if is_listened_to:
        rig.server.restart()
        upstream.cut()
        await rig.server.listens(2)
    else:
        await rig.session.parting.prepare()
        rig.server.restart()
        assert "result" in await rig.client.call("tools/list", {}, 9)
    await rig.written()
    rig.server.on_get = on_get
    await rig.crash()
    again = await rig.client.listen(listening.last_id)
    told = {(await again.message())["method"] for _ in range(3)}
    assert all(method.endswith("list_changed") for method in told)
    await rig.server.listens(3 if is_listened_to else 2)
    assert rig.resumed == []


async def test_an_answer_finds_who_asked_before_the_crash(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await stream.send({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}, id="u1")
    question = await reply.message()
    await rig.written()
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    _, more = await rig.asked_again()
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await rig.client.send(answer)).status == 202
    seen = await rig.server.answer_to("q1")
    assert seen.json["result"] == {"action": "accept"}
    await more.send(result(stream.seen.json["id"]), id="u2")
    assert await again.messages() == [result(1)]


async def test_a_question_never_leaves_before_the_store_has_it(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 1)
    assert await hear(reply, 1) == [1]
    await rig.written()
    rig.stop_writing()
    await stream.send({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}, id="u2")
    held = next(held for held in rig.session.core.book.all if held.request_id == 1)
    await until(lambda: held.log.last_seq == 2)
    assert held.log.handed_out == 1
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    _, more = await rig.asked_again()
    await more.send({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": {}}, id="u2")
    question = await again.message()
    answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept"}}
    assert (await rig.client.send(answer)).status == 202
    await rig.server.answer_to("q1")


async def test_no_question_does_because_another_one_follows(rig: Crash) -> None:
    reply, stream = await rig.begin()
    await say(stream, 1, 1)
    assert await hear(reply, 1) == [1]
    await rig.written()
    rig.stop_writing()
    for name in ("q1", "q2"):
        await stream.send({"jsonrpc": "2.0", "id": name, "method": "elicitation/create", "params": {}})
    held = stream_of_call(rig)
    await until(lambda: held.log.last_seq == 3)
    assert held.log.handed_out == 1


async def test_a_stream_is_known_as_soon_as_the_client_knows_it(rig: Crash) -> None:
    rig.stop_writing()
    call = rpc("tools/call", {"name": "t", "_meta": {"progressToken": "p"}}, 1)
    beginning = asyncio.create_task(rig.client.send(call))
    await until(lambda: rig.streams)
    await say(rig.streams[0], 1, 2)
    held = await stream_with(rig, 2)
    (given,) = (reader for reader in [held._reader] if reader is not None)  # pyright: ignore[reportPrivateUsage]
    assert given.unprimed
    rig.start_writing()
    assert await hear(await beginning, 2) == [1, 2]


async def test_a_session_is_known_as_soon_as_the_client_knows_it(rig: Crash) -> None:
    await rig.crash()
    reply = await rig.client.begin("logging/setLevel", {"level": "info"}, 1)
    assert (await reply.json())["result"] == {}


async def test_one_that_was_ended_is_not(rig: Crash) -> None:
    assert (await rig.client.delete()).status == 200
    await rig.crash()
    await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)


async def test_ids_are_new_after_the_crash(rig: Crash) -> None:
    """The server would take a number that it has seen for the request it was of."""
    _, stream = await rig.begin(id=1)
    await rig.written()
    await rig.crash()
    _, other = await rig.begin(id=2)
    assert abs(other.seen.json["id"] - stream.seen.json["id"]) > 1_000


async def test_stopping_leaves_a_running_call_to_the_next(rig: Crash) -> None:
    """Not only a crash: what did not end within the drain goes on in the next process."""
    reply, stream = await rig.begin()
    await say(stream, 1, 2)
    assert await hear(reply, 2) == [1, 2]
    await rig.first.drain(0.0)
    assert rig.server.got("DELETE") == []
    assert rig.server.got("notifications/cancelled") == []
    await rig.crash()
    again = await rig.client.listen(reply.last_id)
    cursor, more = await rig.asked_again()
    assert cursor == "u2"
    await more.send(result(stream.seen.json["id"]), id="u3")
    assert await again.messages() == [result(1)]


async def test_strict_nothing_is_repeated() -> None:
    """With each event in the store before it leaves, the server is asked from the very last one on."""
    async with crash_rig(strict=True) as rig:
        await rig.client.initialize()
        reply, stream = await rig.begin()
        await say(stream, 1, 3)
        assert await hear(reply, 3) == [1, 2, 3]
        await rig.crash()
        again = await rig.client.listen(reply.last_id)
        cursor, more = await rig.asked_again()
        assert cursor == "u3"
        await more.send(result(stream.seen.json["id"]), id="u4")
        assert await again.messages() == [result(1)]

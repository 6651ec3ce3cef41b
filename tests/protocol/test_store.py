"""A store that fails or hangs: what it would have kept waits for it, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from shadowcat import ReverseProxy
from shadowcat.app import machinery
from shadowcat.core.ledger import Held, Refusal, SessionChange, StoredSession
from shadowcat.proxy import aside, reader, registry
from shadowcat.proxy.writer import Durability
from shadowcat.stores.memory import MemoryStore
from tests.rig.cases import refused
from tests.rig.client import Client, client_of
from tests.rig.server import Call, Handler
from tests.rig.stand import Stand, stand
from tests.rig.wait import happens, soon, until

PROMPT = Durability(gather_s=0.0, patience_s=0.2, retry_first_s=0.01, retry_cap_s=0.02)
STRICT = Durability(strict=True, gather_s=0.0, patience_s=0.2, retry_first_s=0.01, retry_cap_s=0.02)


class FailingStore(MemoryStore):
    """Fails at what it is told to; without `gate` open it hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = ""
        self.chokes_on: str | None = None
        """A session that it does not take, as a full one does not take what is large."""
        self.writes_until_it_hangs = -1
        self.closed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def _try(self, what: str) -> None:
        await self.gate.wait()
        if what == self.failing:
            raise OSError("no space left on device")

    async def claim(self, session_id: str, node: str) -> StoredSession | Held | None:
        await self._try("claim")
        return await super().claim(session_id, node)

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        await self._try("write")
        if self.writes_until_it_hangs == 0:
            self.gate.clear()
            await self.gate.wait()
        self.writes_until_it_hangs -= 1
        if any(change.session_id == self.chokes_on for change in changes):
            raise OSError("too much")
        return await super().write(changes)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture(params=[True, False], ids=["json", "sse"])
async def rig(store: FailingStore, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    script = {"answers_json": request.param}
    async with stand(store=store, durability=PROMPT, script=script) as found:
        yield found


@pytest.fixture
async def strict_rig(store: FailingStore) -> AsyncIterator[Stand]:
    async with stand(store=store, durability=STRICT, script={"answers_json": False}) as found:
        yield found


async def fails(rig: Stand, store: FailingStore) -> None:
    """The store fails, and the proxy has noticed."""
    store.failing = "write"
    rig.session().core.ledger.record_changed()
    await until(lambda: rig.writer.is_failing)


async def test_a_session_that_cannot_be_stored_is_served(rig: Stand, store: FailingStore) -> None:
    store.failing = "write"
    await rig.client.initialize()
    assert len(rig.server.got("notifications/initialized")) == 1
    assert "result" in await rig.client.call("logging/setLevel", {"level": "info"})
    rig.server.restart()
    assert "result" in await rig.client.call()
    assert rig.server.got("logging/setLevel")[-1].json["params"] == {"level": "info"}
    assert rig.writer.is_failing
    assert rig.writer.failures > 0


async def test_what_was_missed_is_written_when_the_store_is_back(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    await fails(rig, store)
    await rig.client.call("logging/setLevel", {"level": "info"})
    store.failing = ""
    assert await rig.writer.flush(5.0)
    assert not rig.writer.is_failing
    assert rig.client.session_id is not None
    stored = await store.read(rig.client.session_id)
    assert stored is not None
    assert b"info" in stored.record


async def test_what_is_on_its_way_to_the_store_is_not_there_yet(rig: Stand, store: FailingStore) -> None:
    """After the first success two are written at once: none waits any more, and a crash would lose both."""
    clients = [rig.client, await rig.another_client(), await rig.another_client()]
    store.failing = "write"
    for client in clients:
        await client.initialize()
    store.writes_until_it_hangs, store.failing = 1, ""
    await until(lambda: not store.gate.is_set())
    assert not rig.writer.is_failing
    assert len(rig.writer) == 2
    store.gate.set()
    await until(lambda: not len(rig.writer))
    for client in clients:
        assert client.session_id is not None
        assert await store.read(client.session_id) is not None


async def _is_set_aside(rig: Stand, store: FailingStore) -> Client:
    """The first client's session is refused, while that of the one returned is taken."""
    other = await rig.another_client()
    await rig.client.initialize()
    await other.initialize()
    store.chokes_on = rig.client.session_id
    rig.session().core.ledger.record_changed()
    async with soon():
        while not rig.writer.set_aside:
            taken = rig.writer.changes_written
            rig.session(other).core.ledger.record_changed()
            await until(lambda taken=taken: rig.writer.changes_written > taken)
    await until(lambda: not rig.writer.is_failing)
    return other


async def test_a_session_that_the_store_does_not_take_is_offered_again(
    rig: Stand, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "ASIDE_S", 0.05)
    await _is_set_aside(rig, store)
    await rig.client.call("logging/setLevel", {"level": "info"})
    assert len(rig.writer)
    store.chokes_on = None
    await until(lambda: not len(rig.writer))
    assert rig.client.session_id is not None
    stored = await store.read(rig.client.session_id)
    assert stored is not None
    assert b"info" in stored.record


async def test_a_session_that_the_store_does_not_take_is_offered_at_the_end(
    rig: Stand, store: FailingStore
) -> None:
    await _is_set_aside(rig, store)
    assert not await rig.writer.flush(5.0)
    await rig.client.call("logging/setLevel", {"level": "info"})
    store.chokes_on = None
    assert await rig.writer.flush(5.0)
    assert rig.client.session_id is not None
    stored = await store.read(rig.client.session_id)
    assert stored is not None
    assert b"info" in stored.record


async def test_strict_a_session_that_the_store_does_not_take_is_refused_alone(
    strict_rig: Stand, store: FailingStore
) -> None:
    rig = strict_rig
    other = await _is_set_aside(rig, store)
    assert (await rig.client.call())["error"]["data"]["reason"] == "store_unavailable"
    assert "result" in await other.call()
    store.chokes_on = None
    assert await rig.writer.flush(5.0)
    assert "result" in await rig.client.call(id=2)


async def test_a_store_that_hangs_holds_nothing_up_for_long(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    store.gate.clear()
    assert "result" in await rig.client.call()
    assert "result" in await rig.client.call(id=2)
    other = await rig.another_client()
    await other.initialize()
    assert (await rig.client.delete()).status == 200
    store.gate.set()


async def test_a_session_that_cannot_be_deleted_ends(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    listening = await rig.client.listen()
    await rig.server.listens()
    await fails(rig, store)
    assert (await rig.client.delete()).status == 200
    assert await listening.messages() == []
    await rig.server.gets("DELETE")
    assert rig.proxy.shared.log_budget.used == 0
    assert rig.client.session_id is not None
    assert await store.read(rig.client.session_id) is not None
    await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)
    store.failing = ""
    assert await rig.writer.flush(5.0)
    assert await store.read(rig.client.session_id) is None


async def test_a_store_that_cannot_tell_makes_no_session_unknown(rig: Stand, store: FailingStore) -> None:
    """On 404 a client gives its session up."""
    store.failing = "claim"
    rig.client.session_id = "0" * 32
    error = await refused(await rig.client.begin("tools/list", id=7), 503, -31002, 7)
    assert error["data"]["reason"] == "store_unavailable"


async def test_a_session_that_ends_is_not_brought_back(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    store.gate.clear()
    ending = asyncio.create_task(rig.client.delete())
    await until(lambda: not len(rig.proxy.relay.sessions))
    await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)
    store.gate.set()
    assert (await ending).status == 200
    assert not len(rig.proxy.relay.sessions)


@pytest.mark.parametrize("durability", [PROMPT, STRICT])
@pytest.mark.parametrize("id", ["u1", None])
async def test_who_calls_in_a_session_that_is_removed_elsewhere_is_told(
    store: FailingStore, durability: Durability, id: str | None
) -> None:
    """Nothing is stored any more, so nothing is held back for that."""

    async def hold(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor", {"n": 1}, id=id)
        await happens(call.seen.dropped)

    async with stand(store=store, durability=durability) as rig:
        rig.server.handlers["tools/call"] = hold
        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
        assert (await reply.message())["params"] == {"n": 1}
        assert rig.client.session_id is not None
        assert await store.remove(rig.client.session_id)
        rig.session().core.ledger.record_changed()
        (last,) = await reply.messages()
        assert (last["id"], last["error"]["data"]["reason"]) == (1, "session_ended")
        await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)
        await until(lambda: rig.server.got("DELETE"))


async def test_strict_who_calls_in_a_session_that_is_deleted_is_told(strict_rig: Stand) -> None:
    async def hold(call: Call) -> None:
        stream = await call.stream()
        await stream.notify("notifications/vendor", {"n": 1}, id="u1")
        await happens(call.seen.dropped)

    rig = strict_rig
    rig.server.handlers["tools/call"] = hold
    await rig.client.initialize()
    reply = await rig.client.begin("tools/call", {"name": "t"}, 1)
    assert (await reply.message())["params"] == {"n": 1}
    assert (await rig.client.delete()).status == 200
    (last,) = await reply.messages()
    assert (last["id"], last["error"]["data"]["reason"]) == (1, "session_ended")


async def test_a_store_that_forgot_everything_gets_it_again(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    await rig.client.call()
    assert rig.client.session_id is not None
    before = await store.read(rig.client.session_id)
    await store.remove(rig.client.session_id)
    store._ended.clear()  # pyright: ignore[reportPrivateUsage] - as FLUSHALL would
    rig.session().core.ledger.record_changed()
    await until(lambda: len(store._sessions))  # pyright: ignore[reportPrivateUsage]
    assert await store.read(rig.client.session_id) == before


async def test_a_session_ended_in_the_store_ends(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    listening = await rig.client.listen()
    await rig.server.listens()
    assert rig.client.session_id is not None
    await store.remove(rig.client.session_id)
    rig.session().core.ledger.record_changed()
    assert await listening.messages() == []
    await rig.server.gets("DELETE")
    await refused(await rig.client.begin("tools/list", id=7), 404, -32600, 7)


async def test_a_session_removed_from_the_store_ends_unasked(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REMOVED_S", 0.01)
    async with stand(store=store, durability=PROMPT) as rig:
        await rig.client.initialize()
        listening = await rig.client.listen()
        await rig.server.listens()
        assert rig.client.session_id is not None
        await store.remove(rig.client.session_id)
        assert await listening.messages() == []
        await rig.server.gets("DELETE")


async def test_a_session_that_somebody_else_took_over_is_let_go_of(rig: Stand, store: FailingStore) -> None:
    """Its upstream session is the other one's now: it is not ended."""
    await rig.client.initialize()
    await rig.client.call()
    async with (
        ReverseProxy({rig.server.name: rig.server.url}, port=0, store=store) as second,
        client_of(second.port) as client,
    ):
        client.session_id, client.version = rig.client.session_id, rig.client.version
        assert "result" in await client.call()
        rig.session().core.ledger.record_changed()
        await until(lambda: not len(rig.proxy.relay.sessions))
        assert rig.counters.sessions_lost == 1
        assert "result" in await client.call(id=2)
        assert rig.server.got("DELETE") == []


async def test_a_store_is_closed_once(rig: Stand, store: FailingStore) -> None:
    await rig.proxy.drain(0.0)
    await rig.proxy.aclose()
    assert store.closed == 1


async def test_a_store_that_hangs_is_not_waited_for_at_the_end(
    store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machinery, "STORE_S", 0.1)
    monkeypatch.setattr(machinery, "UPSTREAMS_S", 0.1)
    monkeypatch.setattr(store, "aclose", asyncio.Event().wait)
    async with stand(store=store, durability=PROMPT) as rig:
        await rig.client.initialize()
        store.gate.clear()
        async with soon():
            await rig.proxy.drain(grace_s=0.1)
    store.gate.set()


async def test_strict_nothing_is_begun_that_cannot_be_stored(strict_rig: Stand, store: FailingStore) -> None:
    rig = strict_rig
    await rig.client.initialize()
    assert "result" in await rig.client.call()
    await fails(rig, store)
    rig.server.requests.clear()
    error: dict[str, Any] = (await rig.client.call(id=2))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31002, "store_unavailable")
    assert rig.server.requests == []
    other = await rig.another_client()
    reply = await other.begin("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, id=1)
    assert reply.status == 503
    assert "retry-after" in reply.headers
    store.failing = ""
    await until(lambda: not rig.writer.is_failing)
    assert "result" in await rig.client.call(id=3)


async def test_strict_nothing_leaves_that_is_not_stored(strict_rig: Stand, store: FailingStore) -> None:
    rig = strict_rig
    await rig.client.initialize()
    listening = await rig.client.listen()
    upstream = await rig.server.listens()
    await upstream.notify("notifications/one")
    assert (await listening.message())["method"] == "notifications/one"
    store.gate.clear()
    await upstream.notify("notifications/two")
    await upstream.notify("notifications/three")
    two = asyncio.create_task(listening.message())
    standalone = rig.session().core.book.standalone
    await until(lambda: standalone.log.last_seq == 3)
    assert standalone.log.handed_out == 1
    store.gate.set()
    assert (await two)["method"] == "notifications/two"
    assert standalone.stored_to >= 2


async def progressing(call: Call) -> None:
    stream = await call.stream()
    await stream.notify("notifications/vendor")
    await stream.send({"jsonrpc": "2.0", "id": call.id, "result": {}})


@pytest.mark.parametrize("handler", [None, progressing])
async def test_strict_a_call_that_the_store_lets_say_nothing_has_an_outcome(
    strict_rig: Stand, store: FailingStore, monkeypatch: pytest.MonkeyPatch, handler: Handler | None
) -> None:
    """A stream that ends without any id leaves both official clients waiting for as long as they ever wait."""
    monkeypatch.setattr(reader, "HELD_BACK_S", 0.1)
    rig = strict_rig
    await rig.client.initialize()
    assert await rig.writer.flush(5.0)
    if handler is not None:
        rig.server.handlers["tools/call"] = handler
    store.gate.clear()
    error = (await rig.client.call(id=7))["error"]
    assert (error["code"], error["data"]["reason"]) == (-31004, "store_unavailable")
    store.gate.set()
    assert "result" in await rig.client.call(id=8)

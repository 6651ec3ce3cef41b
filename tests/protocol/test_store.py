"""A store that fails: what it would have kept is lost, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shadowcat.core.session import SessionRecord
from shadowcat.stores.memory import MemoryStore
from tests.rig.cases import refused
from tests.rig.stand import Stand, stand
from tests.rig.wait import until


class FailingStore(MemoryStore):
    """Fails at what it is told to; `gate` holds its deletes up."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = ""
        self.closed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def _try(self, what: str) -> None:
        if what == self.failing:
            raise OSError("no space left on device")

    async def get(self, session_id: str) -> SessionRecord | None:
        self._try("get")
        return await super().get(session_id)

    async def put(self, record: SessionRecord) -> None:
        self._try("put")
        await super().put(record)

    async def delete(self, session_id: str) -> None:
        await self.gate.wait()
        self._try("delete")
        await super().delete(session_id)

    async def aclose(self) -> None:
        self.closed += 1
        await super().aclose()


@pytest.fixture
def store() -> FailingStore:
    return FailingStore()


@pytest.fixture(params=[True, False], ids=["json", "sse"])
async def rig(store: FailingStore, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with stand(store=store, script={"answers_json": request.param}) as found:
        yield found


async def test_a_session_that_cannot_be_stored_is_served(rig: Stand, store: FailingStore) -> None:
    store.failing = "put"
    await rig.client.initialize()
    assert len(rig.server.got("notifications/initialized")) == 1
    assert "result" in await rig.client.call("logging/setLevel", {"level": "info"})
    rig.server.restart()
    assert "result" in await rig.client.call()
    assert rig.server.got("logging/setLevel")[-1].json["params"] == {"level": "info"}
    assert rig.counters.store_failures > 0


async def test_a_session_that_cannot_be_deleted_ends(rig: Stand, store: FailingStore) -> None:
    await rig.client.initialize()
    listening = await rig.client.listen()
    await rig.server.listens()
    store.failing = "delete"
    assert (await rig.client.delete()).status == 200
    assert await listening.messages() == []
    await rig.server.gets("DELETE")
    assert rig.proxy.shared.log_budget.used == 0


async def test_a_store_that_cannot_tell_makes_no_session_unknown(rig: Stand, store: FailingStore) -> None:
    """On 404 a client gives its session up."""
    store.failing = "get"
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


async def test_a_store_is_closed_once(rig: Stand, store: FailingStore) -> None:
    await rig.proxy.drain(0.0)
    await rig.proxy.aclose()
    assert store.closed == 1

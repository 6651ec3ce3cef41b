"""What happens is told once, where it happens."""

from __future__ import annotations

from shadowcat import ReverseProxy
from shadowcat.clock import ManualClock
from shadowcat.proxy.news import Happening, News, What
from tests.admin.stores import ASYNC, FailingStore
from tests.rig.client import client_of, rpc
from tests.rig.stand import Stand, stand
from tests.rig.wait import until

INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)


def heard_by(rig: Stand) -> list[Happening]:
    heard: list[Happening] = []
    rig.proxy.shared.news.listen(heard.append)
    return heard


async def test_the_life_of_a_session() -> None:
    async with stand() as rig:
        heard = heard_by(rig)
        await rig.client.initialize()
        id = rig.client.session_id
        rig.server.restart()
        await rig.client.call()
        await rig.client.delete()
        assert heard == [
            Happening(What.SESSION_OPENED, id, "a"),
            Happening(What.SESSION_REOPENED, id, "a"),
            Happening(What.SESSION_ENDED, id, "a"),
        ]


async def test_trouble_with_an_upstream_is_told_once() -> None:
    async with stand() as rig:
        clock = rig.proxy.shared.upstreams._clock = ManualClock()
        heard = heard_by(rig)
        await rig.server.listener.close()
        for _ in range(3):
            assert (await rig.client.post(INITIALIZE)).status == 503
            clock.advance(2.0)
        trouble = rig.proxy.shared.upstreams.trouble("a")
        assert trouble is not None
        assert (clock.monotonic() - trouble.since, clock.monotonic() - trouble.last_at) == (6.0, 2.0)
        assert list(rig.proxy.shared.upstreams.faults.items()) == [(("a", trouble.kind), 3)]
        await rig.server.listener.open()
        await rig.client.initialize()
        assert [(told.what, told.upstream) for told in heard] == [
            (What.UPSTREAM_TROUBLE, "a"),
            (What.UPSTREAM_ANSWERS, "a"),
            (What.SESSION_OPENED, "a"),
        ]
        assert rig.proxy.shared.upstreams.trouble("a") is None


async def test_a_store_that_fails() -> None:
    store = FailingStore()
    async with stand(store=store, durability=ASYNC) as rig:
        await rig.client.initialize()
        heard = heard_by(rig)
        store.is_failing = True
        rig.session().core.ledger.record_changed()
        await until(lambda: rig.writer.is_failing)
        store.is_failing = False
        await until(lambda: not rig.writer.is_failing)
        assert [told.what for told in heard] == [What.STORE_FAILING, What.STORE_WORKS]


async def test_a_session_that_changes_hands() -> None:
    store = FailingStore()
    async with stand(store=store, durability=ASYNC) as rig:
        heard = heard_by(rig)
        await rig.client.initialize()
        async with ReverseProxy({"a": rig.server.url}, port=0, store=store) as other:
            taken: list[Happening] = []
            other.shared.news.listen(taken.append)
            async with client_of(other.port) as client:
                client.session_id, client.version = rig.client.session_id, rig.client.version
                assert "result" in await client.call()
            assert [told.what for told in taken] == [What.SESSION_REVIVED]
            rig.session().core.ledger.record_changed()
            await until(lambda: len(heard) == 2)
        assert heard[1] == Happening(What.SESSION_LOST, rig.client.session_id, "a", "fenced")


def test_who_stopped_listening_hears_nothing() -> None:
    news, heard = News(), []
    news.listen(heard.append)
    news.ignore(heard.append)
    news.tell(What.STORE_WORKS)
    assert heard == []

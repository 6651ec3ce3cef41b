"""A client whose standalone stream is open counts on hearing what the server says from then on."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.core.backoff import Backoff
from shadowcat.proxy import listening
from tests.rig.stand import stand
from tests.rig.wait import happens, soon
from tests.rig.wire import Seen


async def test_it_opens_when_that_of_the_server_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "OPENING_S", 20.0)
    opens = asyncio.Event()

    async def on_get(seen: Seen) -> None:
        await happens(opens)
        await seen.begin("text/event-stream")
        await happens(seen.dropped)

    async with stand(script={"offers_get": False, "on_get": on_get}) as rig:
        await rig.client.initialize()
        listens = asyncio.create_task(rig.client.listen())
        await rig.server.gets("GET")
        # The proxy answers another request meanwhile, but not this one.
        await rig.client.call("ping")
        assert not listens.done()
        opens.set()
        async with soon():
            assert (await listens).status == 200


async def test_it_does_not_wait_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "OPENING_S", 0.01)

    async def on_get(seen: Seen) -> None:
        await happens(seen.dropped)

    async with stand(script={"offers_get": False, "on_get": on_get}) as rig:
        await rig.client.initialize()
        async with soon():
            assert (await rig.client.listen()).status == 200


@pytest.mark.parametrize("is_broken", [True, False])
async def test_that_of_a_session_that_a_call_opened_again_opens_at_once(
    monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    """Not once the wait is over that its end began: servers drop what they have to ask meanwhile."""
    monkeypatch.setattr(listening, "Backoff", lambda: Backoff(1_000.0, 1_000.0))
    async with stand() as rig:
        await rig.client.initialize()
        hearing = await rig.client.listen()
        before = await rig.server.listens()
        if is_broken:
            await before.end()
        rig.server.restart()
        await rig.client.call()
        async with soon():
            now = await rig.server.listens(2)
            if not is_broken:
                await happens(before.seen.dropped)
        await now.notify("notifications/message", {"n": 1})
        while (message := await hearing.message())["method"] != "notifications/message":
            pass
        assert message["params"] == {"n": 1}


async def test_a_session_that_is_opened_again_for_a_client_that_does_not_listen_has_none() -> None:
    async with stand() as rig:
        await rig.client.initialize()
        rig.server.restart()
        await rig.client.call()
        await rig.client.call()
        assert rig.server.got("GET") == []

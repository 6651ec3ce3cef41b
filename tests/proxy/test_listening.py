"""Following the upstream's standalone stream, where the session goes on over another upstream session."""

from __future__ import annotations

import asyncio
import random

import pytest

from shadowcat.proxy import listening
from shadowcat.proxy.listening import Listening
from shadowcat.proxy.recovery import Recovery
from tests.rig.stand import stand
from tests.rig.wait import DEADLINE_S, happens, soon, until
from tests.rig.wire import Seen


async def test_a_client_waits_for_the_stream_of_the_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "OPENING_S", 2 * DEADLINE_S)
    released = asyncio.Event()
    async with stand(script={"offers_get": False}) as rig:

        async def hold(seen: Seen) -> None:
            if len(rig.server.got("GET")) == 1:
                await happens(seen.dropped)
            else:
                await happens(released)
                await seen.respond(405)

        rig.server.on_get = hold
        await rig.client.initialize()
        core = rig.session().core
        recovery = Recovery(core)
        followed = Listening(core, recovery)
        followed.start()
        await rig.server.gets("GET")
        waiting = [asyncio.create_task(followed.opened())]
        await asyncio.sleep(0)
        assert recovery.on_reopened is not None
        recovery.on_reopened()
        waiting.append(asyncio.create_task(followed.opened()))
        await rig.server.gets("GET", 2)
        assert not any(task.done() for task in waiting)
        released.set()
        async with soon():
            await asyncio.gather(*waiting)
        await followed.stop()


async def test_the_wait_goes_on_growing_with_the_new_session_unless_the_stream_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    async with stand() as rig:
        await rig.client.initialize()
        core = rig.session().core
        recovery = Recovery(core)
        followed = Listening(core, recovery)
        followed.start()
        for count in (1, 2):
            await (await rig.server.listens(count)).end()
        await rig.server.listens(3)
        assert recovery.on_reopened is not None
        recovery.on_reopened()
        stream = await rig.server.listens(4)
        assert tries_of(followed) == 2
        await stream.notify("notifications/message", {"data": "x"})
        await until(lambda: any(b'"x"' in said for said in core.book.standalone.log.data_after(0)))
        recovery.on_reopened()
        await rig.server.listens(5)
        assert tries_of(followed) == 0
        await followed.stop()


def tries_of(followed: Listening) -> int:
    return followed._following.backoff.tries  # pyright: ignore[reportPrivateUsage]

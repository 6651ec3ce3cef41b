"""Answers of a client's, where what becomes of them is a matter of turns of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from tests.rig.server import Call
from tests.rig.stand import stand
from tests.rig.wait import happens, soon


async def test_an_answer_is_for_the_server_that_asked_and_for_no_later_one() -> None:
    async with stand() as rig:
        await rig.client.initialize()

        @rig.server.on("tools/call")
        async def on_call(call: Call) -> None:
            stream = await call.stream()
            await stream.request(7, "roots/list")
            await happens(stream.over)

        reply = await rig.client.begin("tools/call", {"name": "t"})
        question = await reply.message()
        session = rig.session()
        giving = asyncio.create_task(session.receive(jsonrpc.result(question["id"], {"roots": []})))
        # It has been taken, and is about to be sent.
        await asyncio.sleep(0)
        assert not session.core.correlator.is_unanswered(question["id"])
        session.core.correlator.lose_upstream()
        with pytest.raises(Fault) as caught:
            async with soon():
                await giving
        assert caught.value.kind is FaultKind.UPSTREAM_SESSION_LOST
        assert not [seen for seen in rig.server.requests if seen.body and seen.rpc == ""]

"""Following what an upstream says, where it is stopped at odd moments."""

from __future__ import annotations

import asyncio

import pytest

from shadowcat.core.correlate import InFlight
from shadowcat.proxy.inbound import follow, until_stopped
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from tests.rig.stand import stand
from tests.rig.wait import until


class Silent:
    """A server's stream on which nothing comes."""

    cursor = None

    def __init__(self) -> None:
        self.is_closed = False

    def __aiter__(self) -> Silent:
        return self

    async def __anext__(self) -> list[Message]:
        return await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        self.is_closed = True


async def test_a_call_that_was_cancelled_before_its_stream_was_read_ends() -> None:
    """A server that honours the cancellation says nothing more, and some leave the stream open."""
    async with stand() as rig:
        await rig.client.initialize()
        core = rig.session().core
        request = jsonrpc.request(1, "tools/call")
        entry, _ = core.correlator.begin(request)
        core.correlator.cancelled_by_client(
            jsonrpc.notification("notifications/cancelled", {"requestId": request.id})
        )
        source, stream = Silent(), core.book.new(request.id)
        following = asyncio.create_task(follow(core, request, entry, source, stream))
        try:
            # A deadline that cancels it would end it for the test.
            await until(following.done)
        finally:
            following.cancel()
        assert source.is_closed
        assert core.correlator.is_idle
        assert stream.log.last_seq == 0


@pytest.mark.parametrize("is_interrupted", [False, True])
async def test_whoever_else_cancels_is_obeyed_although_the_call_was_stopped(is_interrupted: bool) -> None:
    entry: InFlight[Stream] = InFlight(1, 1, "tools/call")
    waiting = asyncio.create_task(until_stopped(entry, Silent().__anext__()))
    await until(lambda: entry.interrupt is not None)
    entry.cancelled = True
    if is_interrupted:
        assert entry.interrupt is not None
        entry.interrupt()
    waiting.cancel()
    await asyncio.wait((waiting,), timeout=20)
    assert waiting.cancelled()

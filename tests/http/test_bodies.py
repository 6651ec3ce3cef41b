"""The bodies of all requests together have a bound, with a part of it for those who send little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from shadowcat.http.limits import KIB, ServerLimits
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server
from tests.http.kit import GET, Wire, happens, post, serving, until, wire_to

LARGE = 100 * KIB
SMALL = 1 * KIB
# Four large ones, of which one's room is kept for small ones.
LIMITS = ServerLimits(body_bytes=LARGE, bodies_bytes=1, pipelined=2)


@dataclass
class Rig:
    server: Server
    stack: AsyncExitStack
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0

    @property
    def held(self) -> int:
        return self.server.statistics().body_bytes

    async def sends(self, *pieces: bytes) -> Wire:
        wire = await self.stack.enter_async_context(wire_to(self.server))
        await wire.send(*pieces)
        return wire

    async def is_filled(self) -> list[Wire]:
        wires = [await self.sends(post(b"x" * LARGE)) for _ in range(3)]
        await until(lambda: self.running == 3)
        assert self.held == 3 * LARGE
        return wires


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async def handle(request: Request) -> Response:
        found.running += 1
        await happens(found.may_end)
        return Response(200, [], b"%d" % len(request.body))

    async with serving(handle, LIMITS) as server, AsyncExitStack() as stack:
        found = Rig(server, stack)
        yield found
        found.may_end.set()


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_too_much_together_is_refused_and_told_when_to_come_back(rig: Rig, is_chunked: bool) -> None:
    waiting = await rig.is_filled()
    body = b"x" * LARGE
    chunked = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    refused = await rig.sends(chunked % (LARGE, body) if is_chunked else post(body))
    answer = await refused.answer()
    assert (answer.status, answer.closes) == (503, True)
    assert answer.headers[b"retry-after"] == b"5"
    assert rig.held == 3 * LARGE
    rig.may_end.set()
    for wire in waiting:
        assert (await wire.answer()).body == b"%d" % LARGE
    await until(lambda: rig.held == 0)
    assert (await (await rig.sends(post(body))).answer()).status == 200


async def test_who_sends_little_is_served_all_the_same(rig: Rig) -> None:
    await rig.is_filled()
    small = await rig.sends(post(b"x" * SMALL))
    nothing = await rig.sends(GET)
    await until(lambda: rig.running == 5)
    rig.may_end.set()
    assert (await small.answer()).body == b"%d" % SMALL
    assert (await nothing.answer()).body == b"0"


async def test_room_comes_back_whatever_becomes_of_a_request(rig: Rig) -> None:
    half = post(b"x" * LARGE)[: -LARGE // 2]
    unfinished = await rig.sends(half)
    await until(lambda: rig.held > 0)
    unfinished.abort()
    await until(lambda: rig.held == 0)
    pipelining = await rig.sends(post(b"x" * SMALL), post(b"y" * SMALL))
    await until(lambda: rig.running == 1 and rig.held == 2 * SMALL)
    pipelining.abort()
    await until(lambda: rig.held == SMALL)
    rig.may_end.set()
    await until(lambda: rig.held == 0)
    too_large = await rig.sends(
        post(b"x" * LARGE).replace(b"content-length: 10", b"content-length: 20"), b"x"
    )
    assert (await too_large.answer()).status == 413
    await until(lambda: rig.held == 0)


async def test_requests_with_a_known_head_are_counted_too(rig: Rig) -> None:
    rig.may_end.set()
    wire = await rig.sends()
    for _ in range(4):
        await wire.send(post(b"x" * SMALL))
        assert (await wire.answer()).status == 200
    await until(lambda: rig.held == 0)

"""What is sent together at the end of a turn of the loop: in order, and whole, whatever else happens in that turn."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shadowcat.errors import FaultKind
from shadowcat.http.client import OutgoingHead
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.turn import Sender, Turn
from tests.http.kit import Recorder, Wire, post, scripted, serving, soon, using, wire_to

LONG = b"y" * 20_000
MORE = b"z" * 100_000


class Pair:
    """A sender, and the other end of its connection."""

    def __init__(self, transport: asyncio.Transport, other: socket.socket, turn: Turn) -> None:
        self.transport = transport
        self._other = other
        self.sender = Sender(transport, turn, asyncio.get_running_loop())

    def arrived(self) -> bytes:
        try:
            return self._other.recv(1_000_000)
        except BlockingIOError:
            return b""

    async def arrives(self, count: int) -> bytes:
        async with soon():
            return b"".join([await self._read() for _ in range(count)])

    async def _read(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._other, 1)


@asynccontextmanager
async def pair(turn: Turn) -> AsyncIterator[Pair]:
    ours, other = socket.socketpair()
    ours.setblocking(False)
    other.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        yield Pair(transport, other, turn)
    finally:
        transport.abort()
        other.close()
        await asyncio.sleep(0)


async def test_it_leaves_at_the_end_of_the_turn() -> None:
    turn = Turn()
    async with pair(turn) as one, pair(turn) as two:
        one.sender.write(b"1")
        two.sender.write(b"2")
        assert one.sender.held
        assert one.arrived() + two.arrived() == b""
        assert await one.arrives(1) + await two.arrives(1) == b"12"
        assert not one.sender.held


async def to_itself(one: Pair) -> None:
    """It has as many turns of the loop to itself as it takes."""
    for _ in range(8):
        one.sender.write(b"-")
        assert one.arrived() == b""
        assert await one.arrives(1) == b"-"


async def test_an_answer_that_had_nobody_to_leave_with_for_long_waits_for_nobody() -> None:
    turn = Turn(may_hurry=True)
    async with pair(turn) as one, pair(turn) as two:
        await to_itself(one)
        one.sender.write(b"1")
        assert not one.sender.held
        two.sender.write(b"a")
        one.sender.write(b"2")
        assert (one.sender.held, two.sender.held) == (b"2", b"a")
        assert await one.arrives(2) + await two.arrives(1) == b"12a"
        # Now there were two.
        one.sender.write(b"3")
        assert one.sender.held
        assert await one.arrives(1) == b"3"


async def test_an_answer_on_a_connection_that_broke_hurts_nobody() -> None:
    turn = Turn(may_hurry=True)
    async with pair(turn) as one:
        await to_itself(one)
        one.transport.abort()
        one.sender.write(b"1")
        assert not one.sender.held


async def test_a_request_always_leaves_at_the_end_of_the_turn() -> None:
    turn = Turn()
    async with pair(turn) as one:
        await to_itself(one)
        await to_itself(one)


async def test_the_order_is_that_of_the_calls() -> None:
    async with pair(Turn()) as one:
        one.sender.write(b"a")
        one.sender.write(b"b")
        one.sender.write(b"c")
        one.sender.write(LONG)
        one.sender.write(b"d")
        one.sender.write_two(b"e", b"f")
        one.sender.write(b"g")
        assert await one.arrives(6 + len(LONG) + 1) == b"abc" + LONG + b"defg"


async def test_what_is_not_to_wait_leaves_at_once_and_in_its_order() -> None:
    async with pair(Turn()) as one:
        one.sender.write(b"a")
        one.sender.write_now(b"b")
        assert not one.sender.held
        assert one.arrived() == b"ab"


async def test_many_do_not_wait_for_more() -> None:
    turn = Turn()
    async with pair(turn) as first, pair(turn) as last:
        first.sender.write(b"1")
        others = [Sender(last.transport, turn, asyncio.get_running_loop()) for _ in range(63)]
        for other in others:
            other.write(b"x")
        assert first.arrived() == b"1"
        assert last.arrived() == b"x" * 63
        last.sender.write(b"2")
        assert await last.arrives(1) == b"2"


async def test_a_connection_that_broke_meanwhile_hurts_no_other() -> None:
    turn = Turn()
    async with pair(turn) as broken, pair(turn) as whole:
        broken.sender.write(b"1")
        whole.sender.write(b"2")
        broken.transport.abort()
        assert await whole.arrives(1) == b"2"
        assert not broken.sender.held


async def test_short_and_long_answers_keep_their_order() -> None:
    bodies = [b"a", LONG, b"b", MORE, b"c"]
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(b"".join(post(body) for body in bodies))
        assert [(await wire.answer()).body for _ in bodies] == bodies


async def test_the_last_answer_is_not_cut_off_by_the_end_it_announces() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(post(b"a", b"connection: close"))
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"a", True)
        assert await wire.rest() == b""


async def test_what_a_server_said_before_the_request_left_is_no_answer() -> None:
    """One that lets go of a silent connection may say 408 first, and that may be read in the turn of a request."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[ClientResponse] = loop.create_future()
    serves: asyncio.Future[Wire] = loop.create_future()

    async def two_answers(wire: Wire) -> None:
        for _ in range(2):
            await wire.head_of_request()
            await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        serves.set_result(wire)
        await asyncio.wait((outcome,))

    class Asking(asyncio.Protocol):
        """Passes a request on in the frame of its read."""

        def data_received(self, data: bytes) -> None:
            if client.ask(head, b"", Timeouts(), outcome.set_result) is None:
                outcome.set_exception(AssertionError("no connection was free"))

    asked, asker = socket.socketpair()
    asked.setblocking(False)
    with asker:
        async with using() as client, scripted(two_answers) as script, soon():
            head = OutgoingHead(script.origin, "GET", "/", [])
            # A connection is not looked at again when it has just been found to be kept open.
            await (await client.send_again(head)).read(0)
            await (await client.send_again(head)).read(0)
            wire = await serves
            asking, _ = await loop.create_connection(Asking, sock=asked)
            # Both are readable before the loop looks, the request's cause first.
            asker.send(b"now")
            sock = wire.writer.get_extra_info("socket")
            os.write(sock.fileno(), b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n")
            fault = (await outcome).fault
            asking.abort()
    assert fault is not None
    assert (fault.kind, fault.sent) == (FaultKind.UPSTREAM_UNAVAILABLE, False)

"""A TCP proxy that does what networks do: connections are slow, cut up, half-open, reset, swallowed or refused."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tests.rig.wait import Changed

# From Linux's headers; Python names neither.
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 6

READ_BYTES = 64 * 1024


class Way(Enum):
    OPEN = "open"
    STOPPED = "stopped"
    """Nothing is read any more: what is sent fills the buffers in between, and nobody is told."""
    SWALLOWED = "swallowed"
    """Everything is accepted and nothing arrives."""


@dataclass(eq=False)
class Direction:
    """One way through a connection, and what is done to it."""

    way: Way = Way.OPEN
    slice_bytes: int = READ_BYTES
    """Sent on in pieces of at most this size, each in a turn of the event loop of its own."""
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    reset_at: int | None = None
    """The whole connection is reset once this many bytes have gone this way."""
    forwarded: int = 0


@dataclass(eq=False)
class Plan:
    """What becomes of one connection."""

    up: Direction = field(default_factory=Direction)
    """From the client to the server."""
    down: Direction = field(default_factory=Direction)


class Passage:
    """One connection through the wire: two sockets and what goes between them."""

    def __init__(self, wire: Wire, plan: Plan) -> None:
        self.plan = plan
        self.is_over = False
        self._wire = wire
        self._writers: list[asyncio.StreamWriter] = []

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._wire.target)
        except OSError:
            self.reset()
            return
        self._writers.append(up_writer)
        pumps = [
            asyncio.ensure_future(self._pump(reader, up_writer, self.plan.up)),
            asyncio.ensure_future(self._pump(up_reader, writer, self.plan.down)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.reset()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        try:
            while data := await reader.read(READ_BYTES):
                if not await self._send_on(data, writer, direction):
                    return
            await self._open(direction)
            if not writer.is_closing() and writer.can_write_eof():
                writer.write_eof()
        except ConnectionError:
            # The other side is told the same way.
            self.reset()

    async def _send_on(self, data: bytes, writer: asyncio.StreamWriter, direction: Direction) -> bool:
        while data:
            if direction.way is Way.SWALLOWED:
                return True
            await self._open(direction)
            piece, data = data[: direction.slice_bytes], data[direction.slice_bytes :]
            room = None if direction.reset_at is None else direction.reset_at - direction.forwarded
            if room is not None and len(piece) >= room:
                if room > 0:
                    writer.write(piece[:room])
                    direction.forwarded += room
                    await writer.drain()
                self.reset()
                return False
            wait_s = direction.latency_s + len(piece) / (direction.bytes_per_s or float("inf"))
            # At least a turn of the loop, so that pieces leave as pieces.
            await asyncio.sleep(wait_s)
            if self.is_over or writer.transport.is_closing():
                # Broken meanwhile.
                self.reset()
                return False
            writer.write(piece)
            direction.forwarded += len(piece)
            await writer.drain()
        return True

    async def _open(self, direction: Direction) -> None:
        """Waits until the direction is not stopped."""
        if direction.way is Way.STOPPED:
            await self._wire.changed.until(lambda: direction.way is not Way.STOPPED, within_s=600.0)

    def reset(self) -> None:
        """Both ends get an RST, as from a machine that forgot the connection."""
        self.is_over = True
        for writer in self._writers:
            reset(writer)


class Wire:
    """Stands between whoever connects to `port` and the server at `target`."""

    def __init__(self, target: int, plan: Callable[[], Plan] = Plan) -> None:
        self.target = target
        self.plan = plan
        """Makes the plan of each new connection."""
        self.passages: list[Passage] = []
        self.accepted = 0
        self.port = 0
        self.changed = Changed()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def accept(self) -> None:
        """Opens the port, or the same one again."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """New connections are refused; those there are go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        passage = Passage(self, self.plan())
        self.passages.append(passage)
        self.accepted += 1
        self.changed.tell()
        try:
            await passage.run(reader, writer)
        except asyncio.CancelledError:
            # Only `close` cancels, and it waits; the server's own callback must not take it for a failure.
            passage.reset()
        finally:
            self._tasks.discard(task)
            self.passages.remove(passage)
            self.changed.tell()

    def each(self, change: Callable[[Plan], None]) -> None:
        """Changes every open connection and, by its effect on the plans, what is going on in it."""
        for passage in self.passages:
            change(passage.plan)
        self.changed.tell()

    def half_open(self) -> None:
        """Servers still see their clients; clients hear nothing more."""

        def stop_down(plan: Plan) -> None:
            plan.down.way = Way.STOPPED

        self.each(stop_down)

    def black_hole(self) -> None:
        def swallow(plan: Plan) -> None:
            plan.up.way = plan.down.way = Way.SWALLOWED

        self.each(swallow)

    def heal(self) -> None:
        def open_both(plan: Plan) -> None:
            plan.up.way = plan.down.way = Way.OPEN

        self.each(open_both)

    def reset_all(self) -> None:
        for passage in list(self.passages):
            passage.reset()

    async def close(self) -> None:
        await self.refuse()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def wire_to(target: int, plan: Callable[[], Plan] = Plan) -> AsyncIterator[Wire]:
    wire = Wire(target, plan)
    await wire.accept()
    try:
        yield wire
    finally:
        await wire.close()


def vanish(writer: asyncio.StreamWriter) -> None:
    """As a machine that lost its power: from here on the system throws away what comes, unconfirmed (Linux)."""
    drop_all = (ctypes.c_uint16 * 4)(_BPF_RETURN)
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    sock: Any = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with an RST instead of a goodbye."""
    if not writer.transport.is_closing():
        sock: Any = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

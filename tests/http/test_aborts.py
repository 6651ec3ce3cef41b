"""A thousand exchanges cut at random points, by either side: afterwards nothing is left of them."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shadowcat.errors import Fault
from shadowcat.http.client import Client, Origin
from shadowcat.http.connection import Connection
from shadowcat.http.limits import KIB, ClientLimits
from shadowcat.http.message import Request, Response
from shadowcat.http.server import Server
from tests.http.kit import (
    Certificates,
    Recorder,
    Wire,
    get,
    open_files,
    origin_of,
    post,
    serving,
    soon,
    until,
    using,
)

EXCHANGES = 1000
TOGETHER = 25


class Moody:
    """Answers whole, in a stream or not at all, as the path asks; a stream takes many turns of the loop."""

    def __init__(self) -> None:
        self.open_bodies = 0

    async def __call__(self, request: Request) -> Response:
        match request.path:
            case "/whole":
                return Response(200, [], request.body * 2)
            case "/stream":
                return Response(200, [], self.body(request.body))
            case _:
                gone = asyncio.Event()
                request.cancel_on_disconnect(gone.set)
                await gone.wait()
                return Response(204)

    async def body(self, chunk: bytes) -> AsyncIterator[bytes]:
        self.open_bodies += 1
        try:
            for _ in range(20):
                yield chunk
                await asyncio.sleep(0)
        finally:
            self.open_bodies -= 1


PATHS = ("/whole", "/stream", "/never")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def exchange(client: Client, origin: Origin, path: str, body: bytes, patience: int) -> None:
    """Reads at most `patience` pieces, then gives up; a fault is as good an end as any here."""
    try:
        response = await client.send(origin, "POST", path, [], body)
        try:
            async for _ in response:
                patience -= 1
                if patience < 0:
                    return
        finally:
            await response.aclose()
    except Fault:
        pass


async def client_gives_up(client: Client, server: Server, chance: random.Random) -> None:
    """Cancelled after a random number of turns: in line, connecting, before the head, inside the body."""
    path = chance.choice(PATHS)
    body = b"x" * chance.choice([0, 10, 300 * KIB])
    patience = chance.choice([0, 1, 3, 1000])
    task = asyncio.create_task(exchange(client, origin_of(server), path, body, patience))
    await turns(chance.randint(0, 60))
    if path == "/never" or chance.random() < 0.7:
        task.cancel()
    async with soon():
        await asyncio.wait([task])


async def server_breaks_off(client: Client, server: Server, chance: random.Random) -> None:
    """Its connection is aborted under it after a random number of turns."""
    path = chance.choice(PATHS)
    task = asyncio.create_task(
        exchange(client, origin_of(server), path, b"x" * chance.choice([10, 300 * KIB]), 1000)
    )
    await turns(chance.randint(0, 60))
    while not task.done():
        connections = list(server._serving.connections)
        if connections:
            connection = chance.choice(connections)
            assert isinstance(connection, Connection)
            connection.abort()
        await turns(5)


async def raw_client_breaks_off(client: Client, server: Server, chance: random.Random) -> None:
    """Any part of a request, by turns with FIN and with RST, by turns after reading some of the answer."""
    raw = chance.choice(
        [get("/never"), post(b"x" * 100).replace(b"/ ", b"/stream "), get("/stream") * 20, b"garbage\r\n"]
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    wire = Wire(reader, writer)
    try:
        await wire.send(raw[: chance.randint(0, len(raw))])
        await turns(chance.randint(0, 10))
        if chance.random() < 0.5:
            linger = b"\1\0\0\0\0\0\0\0"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    except ConnectionError:
        pass
    finally:
        wire.abort()


Abort = Callable[[Client, Server, random.Random], Awaitable[None]]


async def abort_a_thousand_times(abort: Abort, client: Client, server: Server, seed: int) -> None:
    chance = random.Random(seed)
    left = EXCHANGES

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await abort(client, server, chance)

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(some())


@pytest.mark.parametrize("abort", [client_gives_up, server_breaks_off, raw_client_breaks_off])
async def test_nothing_is_left(abort: Abort, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Recorder()):
        pass  # the loop's first server opens a file that it keeps
    tasks, files = asyncio.all_tasks(), open_files()
    handler = Moody()
    limits = ClientLimits(connections_per_origin=10, idle_s=0.1)
    async with serving(handler) as server, using(limits) as client:
        await abort_a_thousand_times(abort, client, server, seed=7)
        await until(lambda: client.statistics() == {})
        await until(lambda: server.statistics().connections == 0)
        await until(lambda: asyncio.all_tasks() == tasks)
        assert handler.open_bodies == 0
    await until(lambda: open_files() == files)
    assert caplog.messages == []


async def test_nothing_is_left_over_tls(certificates: Certificates) -> None:
    async with serving(Recorder()):
        pass
    tasks, files = asyncio.all_tasks(), open_files()
    limits = ClientLimits(connections_per_origin=10, idle_s=0.1)
    chance = random.Random(7)
    body = b"x" * 100 * KIB
    async with (
        serving(Moody(), tls=certificates.server.context()) as server,
        using(limits, certificates.client.context()) as client,
    ):
        origin = origin_of(server, "https")
        for _ in range(100):
            some = [
                asyncio.create_task(exchange(client, origin, chance.choice(PATHS), body, 2)) for _ in range(5)
            ]
            await turns(chance.randint(0, 100))
            for task in some:
                task.cancel()
            await asyncio.wait(some)
        await until(lambda: client.statistics() == {})
        await until(lambda: server.statistics().connections == 0)
        await until(lambda: asyncio.all_tasks() == tasks)
    await until(lambda: open_files() == files)


async def test_the_pool_serves_on_after_the_aborts() -> None:
    async with serving(Moody()) as server, using(ClientLimits(connections_per_origin=3)) as client:
        await abort_a_thousand_times(client_gives_up, client, server, seed=11)
        response = await client.send(origin_of(server), "POST", "/whole", [], b"ab")
        assert await response.read(10) == b"abab"

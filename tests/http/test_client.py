"""The client against the real server and against servers that misbehave on purpose."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shadowcat.errors import Fault, FaultKind
from shadowcat.http import outgoing
from shadowcat.http.client import Client, Origin
from shadowcat.http.connection import Connection
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import KIB, MIB, ClientLimits, ServerLimits, Timeouts
from shadowcat.http.message import HeaderList, Request, Response
from shadowcat.http.outgoing import OutgoingConnection
from shadowcat.http.pool import PoolStatistics
from shadowcat.http.reader import RequestReader
from tests.http.kit import (
    Certificates,
    Recorder,
    Wire,
    happens,
    open_files,
    origin_of,
    saying,
    scripted,
    serving,
    soon,
    until,
    using,
    wire_to,
)

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMIT = MIB


async def get(client: Client, origin: Origin, target: str = "/", **timeouts: Any) -> ClientResponse:
    async with soon():
        return await client.send(origin, "GET", target, [], b"", Timeouts(**timeouts))


async def read(client: Client, origin: Origin, target: str = "/", **timeouts: Any) -> bytes:
    response = await get(client, origin, target, **timeouts)
    async with soon():
        return await response.read(LIMIT)


async def fault_of(client: Client, origin: Origin, **timeouts: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        await read(client, origin, **timeouts)
    await until(lambda: taken(client) == 0)
    return caught.value


def taken(client: Client) -> int:
    return sum(pool.taken for pool in client.statistics().values())


def idle(client: Client) -> int:
    return sum(pool.idle for pool in client.statistics().values())


def waiting(client: Client) -> int:
    return sum(pool.waiting for pool in client.statistics().values())


class Held:
    """A handler that answers each request when told, and notes in which order they came."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.may_end = asyncio.Semaphore(0)

    async def __call__(self, request: Request) -> Response:
        self.targets.append(request.path)
        await self.may_end.acquire()
        return Response(200, [], request.target)


# Good answers.


async def test_a_request_as_the_server_sees_it() -> None:
    handler = Recorder()
    async with serving(handler) as server, using() as client:
        origin = origin_of(server)
        response = await client.send(origin, "POST", "/a?b", [(b"x", b"y")], b"hello")
        assert response.status == 200
        assert await response.read(LIMIT) == b"hello"
    request = handler.requests[0]
    assert (request.method, request.target, request.body) == ("POST", b"/a?b", b"hello")
    host = origin.authority.encode()
    assert dict(request.headers) == {b"host": host, b"x": b"y", b"content-length": b"5"}


async def test_an_address_that_is_not_admitted_hears_nothing() -> None:
    heard: list[bytes] = []
    judged: list[tuple[str, str]] = []

    async def hear(wire: Wire) -> None:
        heard.append(await wire.rest())

    def judge(origin: Origin, address: str) -> bool:
        judged.append((origin.host, address))
        return False

    async with scripted(hear) as script:
        client = Client(admits=judge)
        try:
            fault = await fault_of(client, Origin("http", "localhost", script.origin.port))
        finally:
            await client.aclose()
        assert (fault.kind, fault.reason, fault.sent) == (FaultKind.FORBIDDEN, "foreign_target", False)
        assert judged == [("localhost", "127.0.0.1")]
        await until(lambda: bool(heard))
    assert heard == [b""]


async def test_a_large_body_both_ways() -> None:
    body = bytes(range(256)) * (12 * KIB)
    async with serving(Recorder()) as server, using() as client:
        response = await client.send(origin_of(server), "POST", "/", [], body)
        assert await response.read(4 * MIB) == body


async def test_one_connection_serves_many_requests() -> None:
    async with serving(Recorder()) as server, using() as client:
        for _ in range(10):
            await read(client, origin_of(server))
        assert server.statistics().connections == 1
        assert client.statistics() == {origin_of(server): PoolStatistics(idle=1, taken=0, waiting=0)}


async def test_the_connection_is_free_before_the_body_is_read() -> None:
    async with serving(Recorder()) as server, using() as client:
        origin = origin_of(server)
        first = await client.send(origin, "POST", "/", [], b"first")
        second = await client.send(origin, "POST", "/", [], b"second")
        assert (await first.read(LIMIT), await second.read(LIMIT)) == (b"first", b"second")
        assert server.statistics().connections == 1


async def test_a_stream_arrives_piece_by_piece() -> None:
    more = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await more.wait()
        yield b"two"

    async def handle(request: Request) -> Response:
        return Response(200, [], body())

    async with serving(handle) as server, using() as client:
        response = await get(client, origin_of(server))
        async with soon():
            assert await anext(response) == b"one"
            assert not response.complete
            more.set()
            assert [piece async for piece in response] == [b"two"]
        assert response.complete


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"],
)
async def test_a_body_that_ends_with_the_connection(head: bytes) -> None:
    async with scripted(saying(head, b"hel", b"lo")) as script, using() as client:
        assert await read(client, script.origin) == b"hello"
        assert (taken(client), idle(client)) == (0, 0)


async def test_informational_answers_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nx: early\r\n\r\n"
    late = b"HTTP/1.1 200 OK\r\nx: late\r\ncontent-length: 2\r\n\r\nok"
    for pieces in ((early + late,), (early[:40], early[40:], late)):
        async with scripted(saying(*pieces)) as script, using() as client:
            response = await get(client, script.origin)
            assert dict(response.headers) == {b"x": b"late", b"content-length": b"2"}
            assert await response.read(LIMIT) == b"ok"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_body(status: int) -> None:
    async def handle(request: Request) -> Response:
        return Response(status)

    async with serving(handle) as server, using() as client:
        for _ in range(2):
            assert await read(client, origin_of(server)) == b""
        assert server.statistics().connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_gets_none_from_its_length(status: int) -> None:
    """RFC 9112 6.3: whatever it says of one. What follows it is nobody's."""
    head = b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n"

    async def play(wire: Wire) -> None:
        for body in (b"", b"hi"):
            await wire.head_of_request()
            await wire.send(head % (status, len(body)) + body)
        assert await wire.rest() == b""

    async with scripted(play) as script, using() as client:
        for _ in range(2):
            assert await read(client, script.origin) == b""


async def test_white_space_around_values_is_not_part_of_them() -> None:
    head = b"HTTP/1.1 200 OK\r\nx: \t y z \t\r\nempty:\r\ncontent-length: 0\r\n\r\n"
    async with scripted(saying(head)) as script, using() as client:
        response = await get(client, script.origin)
    assert (response.headers.get(b"x"), response.headers.get(b"empty")) == (b"y z", b"")


# What is refused before anything is sent.


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/a b", []),
        ("GET", "/\r\nx: y", []),
        ("GET /", "/", []),
        ("GET", "", []),
        ("GET", "/", [(b"x", b"y\r\nz: w")]),
        ("GET", "/", [(b"x\r\nz", b"y")]),
        ("HEAD", "/", []),
    ],
)
async def test_a_request_that_is_not_one(method: str, target: str, headers: HeaderList) -> None:
    async with serving(Recorder()) as server, using() as client:
        with pytest.raises(ValueError, match=r"."):
            await client.send(origin_of(server), method, target, headers)
        assert taken(client) == 0
        assert server.statistics().connections == 0


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        ("http://a/b?c", Origin("http", "a", 80), "a"),
        ("https://a", Origin("https", "a", 443), "a"),
        ("http://A:8080", Origin("http", "a", 8080), "a:8080"),
        ("https://[::1]:1", Origin("https", "::1", 1), "[::1]:1"),
    ],
)
def test_origin_of_a_url(url: str, origin: Origin, authority: str) -> None:
    assert Origin.of(url) == origin
    assert Origin.of(url).authority == authority


@pytest.mark.parametrize("url", ["ftp://a", "a", "http://", "http://u:p@a", "http://u@a", "http://a:99999"])
def test_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Origin.of(url)


# Connections that end.


async def test_a_connection_that_closed_unheard_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end is in the kernel, the loop has not had a turn to tell us: nothing was written, so nobody need know."""
    monkeypatch.setattr(outgoing, "_TRUSTED_S", 0.0)
    async with scripted(one_answer_each(close := asyncio.Event())) as script, using() as client:
        await read(client, script.origin)
        assert idle(client) == 1
        raw = script.connections[0].writer.get_extra_info("socket")
        with socket.fromfd(raw.fileno(), raw.family, raw.type) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        assert await read(client, script.origin) == b"ok"
        assert len(script.connections) == 2
        close.set()


def one_answer_each(close: asyncio.Event) -> Any:
    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(OK)
        await close.wait()

    return play


async def test_a_connection_that_closed_while_idle_is_forgotten() -> None:
    close = asyncio.Event()
    async with scripted(one_answer_each(close)) as script, using() as client:
        await read(client, script.origin)
        assert idle(client) == 1
        close.set()
        await until(lambda: idle(client) == 0)
        assert await read(client, script.origin) == b"ok"


async def test_a_server_that_closes_after_each_answer_without_a_word_loses_no_request() -> None:
    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        wire.writer.write(OK)
        wire.writer.write_eof()

    async def read_many(origin: Origin, client: Client) -> None:
        for _ in range(20):
            assert await read(client, origin) == b"ok"

    async with scripted(play) as script, using() as client:
        await asyncio.gather(*(read_many(script.origin, client) for _ in range(10)))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_connection_lost_before_the_head_leaves_the_outcome_unknown(said: bytes) -> None:
    async with scripted(saying(said)) as script, using() as client:
        fault = await fault_of(client, script.origin)
        assert (fault.kind, fault.sent) == (FaultKind.OUTCOME_UNKNOWN, True)
        assert len(script.connections) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ],
)
async def test_a_truncated_body_is_no_body(said: bytes) -> None:
    async with scripted(saying(said)) as script, using() as client:
        response = await get(client, script.origin)
        with pytest.raises(Fault) as caught:
            await response.read(LIMIT)
        assert (caught.value.kind, caught.value.sent) == (FaultKind.OUTCOME_UNKNOWN, True)
        assert (taken(client), idle(client)) == (0, 0)


async def test_a_body_cut_by_a_reset_does_not_end_well() -> None:
    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        raw = wire.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.abort()

    async with scripted(play) as script, using() as client:
        fault = await fault_of(client, script.origin)
        assert fault.kind is FaultKind.OUTCOME_UNKNOWN


async def test_nobody_listens() -> None:
    async with serving(Recorder()) as server:
        origin = origin_of(server)
    async with using() as client:
        fault = await fault_of(client, origin)
    assert (fault.kind, fault.reason) == (FaultKind.UPSTREAM_UNAVAILABLE, "connection_refused")
    assert not fault.sent


async def test_a_name_nobody_has() -> None:
    async with using() as client:
        fault = await fault_of(client, Origin("http", "nobody.invalid", 80))
    assert (fault.kind, fault.sent) == (FaultKind.UPSTREAM_UNAVAILABLE, False)


async def test_a_connection_that_closes_before_its_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(wire: Wire) -> None:
        pass

    async with scripted(play) as script, using() as client:
        connect = client._connect

        async def connect_and_linger(*args: Any) -> OutgoingConnection:
            connection = await connect(*args)
            await until(lambda: connection.is_closed)
            return connection

        monkeypatch.setattr(client, "_connect", connect_and_linger)
        fault = await fault_of(client, script.origin)
    assert (fault.kind, fault.sent) == (FaultKind.UPSTREAM_UNAVAILABLE, False)


# Answers that are none.

BAD_HEADS = {
    "no HTTP": b"hello\r\n\r\n",
    "status in words": b"HTTP/1.1 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
    "version 3.0": b"HTTP/3.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "length and coding": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
    "coding and length": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "length in hex": b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok",
    "gzip coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nok",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": b"HTTP/1.1 200 OK\r\nx: \0\r\ncontent-length: 0\r\n\r\n",
    "CR in a value": b"HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n",
    "head of 40 KiB": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40 * KIB + b"\r\ncontent-length: 0\r\n\r\n",
    "unended head of 1 MiB": b"HTTP/1.1 200 OK\r\nx: " + b"y" * MIB,
    "101 fields": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"\r\n",
}
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BAD_BODIES = {
    "chunk size in words": CHUNKED + b"five\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "chunk size of 2^72": CHUNKED + b"f" * 18 + b"\r\n",
    "CR in a chunk extension": CHUNKED + b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "chunk extension without end": CHUNKED + b"5;" + b"a" * MIB,
    "trailer without end": CHUNKED + b"0\r\nx: " + b"y" * MIB,
    "101 trailers": CHUNKED + b"0\r\n" + b"x: y\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("said", (BAD_HEADS | BAD_BODIES).values(), ids=BAD_HEADS | BAD_BODIES)
async def test_an_answer_that_is_none(said: bytes) -> None:
    """It is refused, its connection is not used again, and the next request gets its own answer."""
    answers = [said, OK]

    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(answers.pop(0))
        await wire.rest()

    async with scripted(play) as script, using() as client:
        fault = await fault_of(client, script.origin)
        assert (fault.kind, fault.sent) == (FaultKind.UPSTREAM_INVALID, True)
        assert await read(client, script.origin) == b"ok"
        assert len(script.connections) == 2


POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"


@pytest.mark.parametrize(
    "more", [POISON, POISON[:20], b"x", b"\0"], ids=["answer", "half an answer", "x", "NUL"]
)
@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "a moment later"])
async def test_what_nobody_asked_for_is_no_answer_to_the_next_request(more: bytes, together: bool) -> None:
    go_on = asyncio.Event()
    answers = [OK + more if together else OK, OK]

    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(answers.pop(0))
        if not together and answers:
            await go_on.wait()
            await wire.send(more)
        await wire.rest()

    async with scripted(play) as script, using() as client:
        assert await read(client, script.origin) == b"ok"
        go_on.set()
        if not together:
            await until(lambda: idle(client) == 0)
        assert await read(client, script.origin) == b"ok"
        assert len(script.connections) == 2


async def test_a_body_larger_than_allowed() -> None:
    async with serving(Recorder()) as server, using() as client:
        response = await client.send(origin_of(server), "POST", "/", [], b"x" * MIB)
        with pytest.raises(Fault) as caught:
            await response.read(MIB // 2)
        fault = caught.value
        assert (fault.kind, fault.reason) == (FaultKind.UPSTREAM_INVALID, "answer_too_large")
        assert fault.message == f"The answer is larger than {MIB // 2} bytes"
        await until(lambda: taken(client) == 0)


async def test_an_answer_before_the_request_was_taken_ends_the_connection() -> None:
    """Where the server stopped reading is unknown."""

    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        wire.writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
        await wire.send(OK)
        await asyncio.Event().wait()

    async with scripted(play) as script, using() as client:
        response = await client.send(script.origin, "POST", "/", [], b"x" * 64 * MIB)
        assert await response.read(LIMIT) == b"ok"
        assert (taken(client), idle(client)) == (0, 0)
        # And what it did not take is not held for it.
        connection = response._connection
        assert isinstance(connection, OutgoingConnection)
        transport = connection._transport
        await until(lambda: not transport.get_write_buffer_size())


# Deadlines of each phase.


@contextmanager
def full_listener() -> Iterator[Origin]:
    """A port that lets connections wait for ever: its line is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = [socket.socket() for _ in range(4)]
        for member in crowd:
            member.setblocking(False)
            member.connect_ex(address)
        try:
            yield Origin("http", *address)
        finally:
            for member in crowd:
                member.close()


async def test_connect_deadline() -> None:
    with full_listener() as origin:
        async with using() as client:
            fault = await fault_of(client, origin, connect_s=0.1)
    assert (fault.kind, fault.reason) == (FaultKind.UPSTREAM_UNAVAILABLE, "connect_timeout")
    assert not fault.sent


async def test_pool_deadline() -> None:
    held = Held()
    async with serving(held) as server, using(ClientLimits(connections_per_origin=1)) as client:
        first = asyncio.create_task(read(client, origin_of(server)))
        await until(lambda: len(held.targets) == 1)
        with pytest.raises(Fault) as caught:
            await read(client, origin_of(server), pool_s=0.05)
        assert (caught.value.kind, caught.value.reason) == (FaultKind.OVER_CAPACITY, "no_connection_free")
        assert not caught.value.sent
        assert waiting(client) == 0
        held.may_end.release()
        assert await first == b"/"


async def test_a_line_that_is_full() -> None:
    held = Held()
    limits = ClientLimits(connections_per_origin=1, waiting_per_origin=0)
    async with serving(held) as server, using(limits) as client:
        first = asyncio.create_task(read(client, origin_of(server)))
        await until(lambda: len(held.targets) == 1)
        with pytest.raises(Fault) as caught:
            await read(client, origin_of(server))
        assert (caught.value.kind, caught.value.reason) == (FaultKind.OVER_CAPACITY, "too_many_waiting")
        held.may_end.release()
        await first


@pytest.mark.parametrize(
    ("said", "timeouts", "reason"),
    [
        (b"", {"head_s": 0.1}, "head"),
        (b"HTTP/1.1 200 OK\r\n", {"head_s": 0.1}, "head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", {"head_s": 0.1}, "head"),
        (b"", {"total_s": 0.1}, "total"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", {"gap_s": 0.1}, "gap"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", {"gap_s": 0.1}, "gap"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", {"total_s": 0.1}, "total"),
    ],
)
async def test_deadline(said: bytes, timeouts: dict[str, float], reason: str) -> None:
    async def play(wire: Wire) -> None:
        await wire.head_of_request()
        await wire.send(said)
        await wire.rest()  # the client closes

    async with scripted(play) as script, using() as client:
        fault = await fault_of(client, script.origin, **timeouts)
        assert (fault.kind, fault.reason, fault.sent) == (FaultKind.DEADLINE, reason, True)


# Flow control.


class Flood:
    """Pieces of a megabyte each until the client leaves; `sent` counts those the transport accepted."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.sent = 0
        self.closed = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        return Response(200, [], self.body() if request.path == "/flood" else b"ok")

    async def body(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.pieces):
                yield b"x" * MIB
                self.sent += 1
        finally:
            self.closed.set()


async def test_an_unread_body_pauses_the_server() -> None:
    flood = Flood(100)
    async with serving(flood) as server, using() as client:
        origin = origin_of(server)
        response = await get(client, origin, "/flood")
        for _ in range(500):  # each is several turns of the loop, more than a hundred megabytes need
            await read(client, origin)
        assert flood.sent < 30
        size = 0
        async with soon():
            async for piece in response:
                size += len(piece)
        assert size == 100 * MIB
        assert idle(client) == 2


async def test_giving_up_a_body_frees_the_slot_and_tells_the_server() -> None:
    flood = Flood(1000)
    async with serving(flood) as server, using(ClientLimits(connections_per_origin=1)) as client:
        for _ in range(3):
            response = await get(client, origin_of(server), "/flood")
            assert await anext(response)
            await response.aclose()
            assert taken(client) == 0
            await happens(flood.closed)
            flood.closed.clear()
        assert await read(client, origin_of(server)) == b"ok"
        assert flood.sent < 1000


async def paused(
    client: Client, origin: Origin, **timeouts: float | None
) -> tuple[ClientResponse, OutgoingConnection]:
    """A response of which so much is unread that its connection is no longer read."""
    response = await get(client, origin, "/flood", **timeouts)
    (connection,) = client._connections
    await until(lambda: connection._paused)
    return response, connection


async def test_the_time_a_reader_takes_is_not_the_servers() -> None:
    """Neither while it asks for nothing, nor right after it goes on."""
    async with serving(Flood(100)) as server, using() as client:
        response, connection = await paused(client, origin_of(server), gap_s=100.0)
        loop = asyncio.get_running_loop()
        start = loop.time()
        connection.sweep(start + 1000.0)
        await until(lambda: loop.time() > start)
        assert await anext(response)
        connection.sweep(start + 1000.0)
        response.arrival()
        connection.sweep(start + 100.0)
        assert response.fault is None
        connection.sweep(loop.time() + 1000.0)
        with pytest.raises(Fault, match="deadline"):
            await response.read(LIMIT * 1000)


async def test_nothing_is_read_until_the_reader_has_use_for_it() -> None:
    async with serving(Flood(100)) as server, using() as client:
        response, connection = await paused(client, origin_of(server))
        assert await anext(response)
        assert connection._paused
        response.pause()
        assert await anext(response)
        response.pause()
        assert connection._paused
        await response.aclose()


class Turns:
    """How many reads there were in each turn of the loop."""

    def __init__(self, up_to_bytes: int) -> None:
        self.reads: list[int] = [0]
        self._left = up_to_bytes
        self._count()

    def _count(self) -> None:
        if self._left > 0:
            self.reads.append(0)
            asyncio.get_running_loop().call_soon(self._count)

    def at_once(self, data: bytes) -> bool:
        self.reads[-1] += 1
        self._left -= len(data)
        return self._left > 0


async def test_a_fast_server_leaves_others_their_turn() -> None:
    async with serving(Flood(100)) as server, using() as client:
        response, _ = await paused(client, origin_of(server))
        response.take()
        turns = Turns(50 * MIB)
        async with soon():
            await response.arrival(turns)
        assert max(turns.reads) == 1
        await response.aclose()


async def test_a_pause_outlasts_the_turn_that_is_left_to_others() -> None:
    async with serving(Flood(100)) as server, using() as client:
        response, connection = await paused(client, origin_of(server))
        response.take()
        async with soon():
            await response.arrival(Turns(5 * MIB))
        # The reads that fill it are full ones now.
        await until(lambda: connection._paused)
        held = response.held_bytes
        for _ in range(50):
            await asyncio.sleep(0)
        assert response.held_bytes == held
        await response.aclose()


async def test_a_pause_that_comes_after_the_end_is_none_of_the_next_response() -> None:
    async with serving(Recorder()) as server, using() as client:
        response = await get(client, origin_of(server))
        await until(lambda: response.complete)
        response.pause()
        assert await read(client, origin_of(server)) == b""
        assert idle(client) == 1


async def test_what_arrived_before_a_paused_connection_broke_can_be_read() -> None:
    async with serving(Flood(100)) as server, using() as client:
        response, _ = await paused(client, origin_of(server))
        await client.aclose()
        assert len(await anext(response)) > ClientLimits().buffered_bytes
        with pytest.raises(Fault) as caught:
            await anext(response)
        assert caught.value.kind is FaultKind.OUTCOME_UNKNOWN


async def test_of_connections_that_are_closed_nothing_is_left_for_the_collector() -> None:
    def left() -> list[object]:
        return [
            found
            for found in gc.get_objects()
            if isinstance(found, Connection | RequestReader | OutgoingConnection)
        ]

    async with serving(Flood(100)) as server:
        gc.collect()
        gc.disable()
        try:
            async with using() as client:
                await read(client, origin_of(server))
                response, _ = await paused(client, origin_of(server))
                await response.aclose()
            del response, _
            async with wire_to(server) as wire:
                await wire.send(b"POST / HTTP/1.1\r\n")
                assert left()
            await until(lambda: not left())
        finally:
            gc.enable()


# Idle connections.


async def test_idle_connections_are_reaped() -> None:
    async with serving(Recorder()) as server, using(ClientLimits(idle_s=0.05)) as client:
        await read(client, origin_of(server))
        await until(lambda: client.statistics() == {})
        await until(lambda: server.statistics().connections == 0)


async def test_more_idle_connections_than_are_kept() -> None:
    held = Held()
    async with serving(held) as server, using(ClientLimits(idle_per_origin=2)) as client:
        reads = [asyncio.create_task(read(client, origin_of(server))) for _ in range(5)]
        await until(lambda: len(held.targets) == 5)
        for _ in range(5):
            held.may_end.release()
        await asyncio.gather(*reads)
        assert (idle(client), taken(client)) == (2, 0)
        await until(lambda: server.statistics().connections == 2)


@pytest.mark.parametrize(
    ("header", "keep_s"),
    [
        (b"timeout=3", 2.0),
        (b"max=5, Timeout=3", 2.0),
        (b"timeout=1", 0.0),
        (b"timeout=0", 0.0),
        (b"timeout=9999999999999", 60.0),
        (b"timeout=x", 60.0),
        (b"timeout", 60.0),
        (b"max=3", 60.0),
    ],
)
async def test_the_servers_keep_alive_is_believed_within_bounds(header: bytes, keep_s: float) -> None:
    async def handle(request: Request) -> Response:
        return Response(200, [(b"keep-alive", header)])

    async with serving(handle) as server, using(ClientLimits(idle_s=60.0)) as client:
        await read(client, origin_of(server))
        assert [connection.keep_s for connection in client._connections] == [keep_s]
        if not keep_s:
            await until(lambda: client.statistics() == {})


# Waiting in line.


async def test_who_waits_is_served_in_turn() -> None:
    held = Held()
    async with serving(held) as server, using(ClientLimits(connections_per_origin=1)) as client:
        reads: list[asyncio.Task[bytes]] = []
        for number in range(6):
            reads.append(asyncio.create_task(read(client, origin_of(server), f"/{number}")))
            await until(lambda: taken(client) == 1 and waiting(client) == len(reads) - 1)
        reads.pop(3).cancel()
        for _ in range(5):
            held.may_end.release()
        assert await asyncio.gather(*reads) == [b"/0", b"/1", b"/2", b"/4", b"/5"]
        assert held.targets == ["/0", "/1", "/2", "/4", "/5"]
        assert server.statistics().connections == 1
        assert client.statistics()[origin_of(server)] == PoolStatistics(idle=1, taken=0, waiting=0)


@pytest.mark.parametrize("reusable", [True, False], ids=["a connection", "the right to open one"])
async def test_a_waiter_cancelled_as_it_is_granted_passes_it_on(
    reusable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()

    async def handle(request: Request) -> Response:
        response = await held(request)
        response.headers = [] if reusable else [(b"connection", b"close")]
        return response

    client = Client(ClientLimits(connections_per_origin=1))
    freed = client.freed
    waiters: list[asyncio.Task[bytes]] = []

    def freed_and_cancelled(*args: Any) -> None:
        freed(*args)
        if len(waiters) == 3:
            waiters.pop(0).cancel()

    monkeypatch.setattr(client, "freed", freed_and_cancelled)
    async with serving(handle) as server:
        origin = origin_of(server)
        first = asyncio.create_task(read(client, origin, "/first"))
        await until(lambda: len(held.targets) == 1)
        for number in range(3):
            waiters.append(asyncio.create_task(read(client, origin, f"/{number}")))
            await until(lambda: waiting(client) == len(waiters))
        for _ in range(3):
            held.may_end.release()
        assert await first == b"/first"
        assert await asyncio.gather(*waiters) == [b"/1", b"/2"]
        assert (taken(client), waiting(client)) == (0, 0)
        await client.aclose()
    assert held.targets == ["/first", "/1", "/2"]


async def test_a_failed_connect_lets_the_next_one_try() -> None:
    async with serving(Recorder()) as server:
        origin = origin_of(server)
    async with using(ClientLimits(connections_per_origin=1)) as client:
        faults = await asyncio.gather(*(read(client, origin) for _ in range(5)), return_exceptions=True)
        assert [fault.reason for fault in faults if isinstance(fault, Fault)] == ["connection_refused"] * 5
        assert (taken(client), waiting(client)) == (0, 0)


@pytest.mark.parametrize("moment", ["connecting", "waiting for the head", "reading the body"])
async def test_a_cancelled_request_frees_its_slot(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    flood = Flood(1000)
    begun = asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        return await (held if moment == "waiting for the head" else flood)(request)

    async with serving(handle) as server, using() as client:
        if moment == "connecting":

            async def connect(*_: Any) -> OutgoingConnection:
                begun.set()
                await asyncio.Event().wait()
                raise AssertionError

            monkeypatch.setattr(client, "_connect", connect)

        async def use() -> None:
            response = await client.send(origin_of(server), "GET", "/flood", [])
            try:
                async for _ in response:
                    pass
            finally:
                await response.aclose()

        task = asyncio.create_task(use())
        await happens(begun)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (taken(client), idle(client)) == (0, 0)


# Closing.


async def test_a_closed_client_sends_nothing_and_keeps_nothing() -> None:
    held = Held()
    async with serving(Recorder()):
        pass  # the loop's first server opens a file that it keeps
    before = open_files()
    async with serving(held) as server:
        client = Client(ClientLimits(connections_per_origin=1))
        tasks = [asyncio.create_task(read(client, origin_of(server))) for _ in range(4)]
        await until(lambda: len(held.targets) == 1 and waiting(client) == 3)
        await client.aclose()
        faults = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(fault.reason for fault in faults if isinstance(fault, Fault)) == [
            "client_closed"
        ] * 3 + ["given_up"]
        with pytest.raises(Fault, match="unavailable"):
            await read(client, origin_of(server))
        assert len(held.targets) == 1
    await until(lambda: open_files() == before)


async def test_a_client_closed_while_it_connects_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Recorder()) as server, using() as client:
        connect = client._connect
        begun, may_connect = asyncio.Event(), asyncio.Event()

        async def connect_late(*args: Any) -> OutgoingConnection:
            begun.set()
            await may_connect.wait()
            return await connect(*args)

        monkeypatch.setattr(client, "_connect", connect_late)
        task = asyncio.create_task(read(client, origin_of(server)))
        await happens(begun)
        await client.aclose()
        may_connect.set()
        with pytest.raises(Fault, match="unavailable"):
            await task
        await until(lambda: server.statistics().connections == 0)
        assert taken(client) == 0


# Other ways to connect.


async def test_unix_socket(tmp_path: Path) -> None:
    handler = Recorder()
    path = str(tmp_path / "socket")
    async with serving(handler, unix_path=path), using() as client:
        assert await read(client, Origin("http", "somewhere", 80, path)) == b""
    assert handler.requests[0].headers.get(b"host") == b"somewhere"


async def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    handler = Recorder()
    async with serving(handler, host="::1") as server, using() as client:
        port = server.port
        assert await read(client, Origin("http", "::1", port)) == b""
    assert handler.requests[0].headers.get(b"host") == b"[::1]:%d" % port
    assert handler.requests[0].peer is not None
    assert handler.requests[0].peer.address == "::1"


async def test_tls(certificates: Certificates) -> None:
    async with (
        serving(Recorder(), tls=certificates.server.context()) as server,
        using(tls=certificates.client.context()) as client,
    ):
        for _ in range(3):
            response = await client.send(origin_of(server, "https"), "POST", "/", [], b"x" * MIB)
            assert len(await response.read(LIMIT)) == MIB
        assert server.statistics().connections == 1


async def test_mutual_tls(certificates: Certificates) -> None:
    async with (
        serving(Recorder(), tls=certificates.server_mutual.context()) as server,
        using(tls=certificates.client_mutual.context()) as client,
    ):
        assert await read(client, origin_of(server, "https")) == b""


async def test_a_certificate_of_a_stranger_is_not_trusted(certificates: Certificates) -> None:
    handler = Recorder()
    async with (
        serving(handler, tls=certificates.server.context()) as server,
        using(tls=certificates.stranger.context()) as client,
    ):
        fault = await fault_of(client, origin_of(server, "https"))
    assert (fault.kind, fault.reason) == (FaultKind.UPSTREAM_UNAVAILABLE, "tls_failed")
    assert not fault.sent
    assert handler.requests == []


async def test_a_certificate_for_another_name_is_not_trusted(certificates: Certificates) -> None:
    async with (
        serving(Recorder(), host="127.0.0.2", tls=certificates.server.context()) as server,
        using(tls=certificates.client.context()) as client,
    ):
        fault = await fault_of(client, Origin("https", "127.0.0.2", server.port))
    assert fault.reason == "tls_failed"
    assert not fault.sent


async def test_without_an_authority_of_ours_the_systems_are_trusted(certificates: Certificates) -> None:
    async with serving(Recorder(), tls=certificates.server.context()) as server, using() as client:
        assert (await fault_of(client, origin_of(server, "https"))).reason == "tls_failed"


async def test_a_closed_tls_client_leaves_no_file_open(certificates: Certificates) -> None:
    async with serving(Recorder()):
        pass
    before = open_files()
    async with (
        serving(Recorder(), ServerLimits(), tls=certificates.server.context()) as server,
        using(tls=certificates.client.context()) as client,
    ):
        await read(client, origin_of(server, "https"))
    await until(lambda: open_files() == before)

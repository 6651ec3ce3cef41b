"""The server's side of a good request, and how connections end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shadowcat.http import connection as connection_module
from shadowcat.http import server as server_module
from shadowcat.http.connection import Connection
from shadowcat.http.limits import KIB, MIB, ServerLimits
from shadowcat.http.message import Headers, Request, Response, encode_fields
from shadowcat.http.server import Server
from shadowcat.http.serving import Serving
from tests.http.kit import (
    GET,
    Certificates,
    Recorder,
    Wire,
    get,
    happens,
    open_files,
    post,
    serving,
    soon,
    until,
    wire_to,
)

HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


class Slow:
    """A handler that answers when told; it counts those that got to their end."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = 0
        self.requests: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        self.started.set()
        await self.may_end.wait()
        self.ended += 1
        return Response(200, [], request.target)


class Stream:
    """A handler whose body is `chunks`, then whatever `end` does; it notes how far it got and that it was closed."""

    def __init__(self, chunks: int, size: int = 64 * KIB, status: int = 200) -> None:
        self.chunks = chunks
        self.size = size
        self.status = status
        self.produced = 0
        self.piece = b""
        """The last one."""
        self.closed = asyncio.Event()

    async def __call__(self, request: Request) -> Response:
        return Response(self.status, [], self.body())

    async def body(self) -> AsyncIterator[bytes]:
        try:
            for _ in range(self.chunks):
                self.piece = b"x" * self.size
                yield self.piece
                self.produced += 1
            await self.end()
        finally:
            self.closed.set()

    async def end(self) -> None:
        pass


class Endless(Stream):
    async def end(self) -> None:
        await asyncio.Event().wait()


# Keep-alive and pipelining.


async def test_keep_alive() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        for number in range(5):
            await wire.send(post(b"%d" % number))
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.closes) == (200, b"%d" % number, False)
        assert server.statistics().connections == 1
        assert server.statistics().requests == 5


async def test_connection_close_is_obeyed() -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(CLOSE + GET)
        assert (await wire.answer()).closes
        assert await wire.rest() == b""
    assert len(handler.requests) == 1


async def test_every_answer_is_dated() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(GET + b"garbage\r\n\r\n")
        for _ in range(2):
            assert (await wire.answer()).headers[b"date"].endswith(b" GMT")


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Also when the first takes longest; none starts before the one before it has been answered."""
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as wire:
        await wire.send(get("/0") + get("/1"), get("/2"))
        await happens(slow.started)
        assert [request.target for request in slow.requests] == [b"/0"]
        slow.may_end.set()
        assert [(await wire.answer()).body for _ in range(3)] == [b"/0", b"/1", b"/2"]


async def test_a_long_pipeline_is_not_read_ahead_of_its_answers() -> None:
    slow = Slow()
    async with serving(slow, ServerLimits(pipelined=4)) as server, wire_to(server) as wire:
        await wire.send(get("/0"))
        await happens(slow.started)
        feeding = asyncio.create_task(wire.send(*[post(b"x" * MIB)] * 20))
        slow.may_end.set()
        for _ in range(21):
            assert (await wire.answer()).status == 200
        await feeding
    assert slow.ended == 21


async def test_a_pipeline_of_small_requests_in_one_packet() -> None:
    handler = Recorder()
    async with serving(handler, ServerLimits(pipelined=4)) as server, wire_to(server) as wire:
        await wire.send(b"".join(post(b"%d" % number) for number in range(300)))
        assert [int((await wire.answer()).body) for _ in range(300)] == list(range(300))


async def test_a_refusal_waits_behind_the_running_request() -> None:
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as wire:
        await wire.send(GET + b"garbage\r\n\r\n")
        await happens(slow.started)
        slow.may_end.set()
        assert [(await wire.answer()).status, (await wire.answer()).status] == [200, 400]
        assert await wire.rest() == b""


async def test_a_long_running_request_is_not_timed_out() -> None:
    """The engine's deadlines are for what the client owes."""
    slow = Slow()
    limits = ServerLimits(head_wait_s=0.05, body_wait_s=0.05, idle_s=0.05, stall_s=0.05, linger_s=0.05)
    async with serving(slow, limits) as server, wire_to(server) as idle, wire_to(server) as wire:
        await wire.send(GET)
        assert await idle.rest() == b""  # by now the sweeper has passed all of these
        slow.may_end.set()
        assert (await wire.answer()).status == 200


# Versions, methods, expectations.


@pytest.mark.parametrize("fields", [b"", b"connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(fields: bytes) -> None:
    """A 1.0 client that asks to keep the connection would wait for a header that nobody sends."""
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(b"GET / HTTP/1.0\r\n" + fields + b"\r\n" + GET)
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await wire.rest() == b""
    assert len(handler.requests) == 1


async def test_a_stream_to_http_1_0_ends_with_the_connection() -> None:
    async with serving(Stream(3, size=4)) as server, wire_to(server) as wire:
        await wire.send(HTTP10)
        head = await wire.head()
        assert b"transfer-encoding" not in head.headers
        assert b"content-length" not in head.headers
        assert await wire.rest() == b"x" * 12


async def test_head_has_the_length_and_no_body() -> None:
    async def handle(request: Request) -> Response:
        return Response(200, [], b"hello")

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n" + GET)
        assert (await wire.head()).headers[b"content-length"] == b"5"
        assert (await wire.answer()).body == b"hello"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_a_stream_where_no_body_may_be(method: str, status: int) -> None:
    stream = Stream(3, size=4, status=status)
    async with serving(stream) as server, wire_to(server) as wire:
        for _ in range(2):
            await wire.send(f"{method} / HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            head = await wire.head()
            assert head.status == status
            assert (b"transfer-encoding" in head.headers) == (status == 200)
    assert stream.produced == 0


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_body(status: int) -> None:
    async def handle(request: Request) -> Response:
        return Response(status)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET + GET)
        for _ in range(2):
            answer = await wire.head()
            assert answer.status == status
            assert b"content-length" not in answer.headers


async def test_expect_continue() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        assert (await wire.head()).status == 100
        await wire.send(b"hello")
        assert (await wire.answer()).body == b"hello"


async def test_a_body_that_would_be_refused_is_not_asked_for() -> None:
    async with serving(Recorder(), ServerLimits(body_bytes=4)) as server, wire_to(server) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        assert (await wire.answer()).status == 413


async def test_http_1_0_knows_no_100() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello")
        assert (await wire.head()).status == 200


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n"
WITH_LENGTH = b"POST /1 HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"content-length: 5\r\n\r\nhello"
WITH_CHUNKS = (
    b"POST /1 HTTP/1.1\r\nhost: a\r\n"
    + UPGRADE
    + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
WITHOUT_BODY = b"GET /1 HTTP/1.1\r\nhost: a\r\n" + UPGRADE + b"\r\n"


@pytest.mark.parametrize("cut", [False, True], ids=["in one packet", "byte by byte"])
@pytest.mark.parametrize(
    ("raw", "body"),
    [(WITHOUT_BODY, b""), (WITH_LENGTH, b"hello"), (WITH_CHUNKS, b"hello")],
    ids=["GET", "POST", "chunked POST"],
)
async def test_upgrade_is_ignored(raw: bytes, body: bytes, cut: bool) -> None:
    """The body is the request's own (Java's client sends such); read as a request it would be a smuggled one."""
    handler = Recorder()
    raw = raw + get("/2") + raw + get("/2")
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(*([raw[i : i + 1] for i in range(len(raw))] if cut else [raw]))
        assert [(await wire.answer()).body for _ in range(4)] == [body, b"", body, b""]
    assert handler.targets == [b"/1", b"/2"] * 2


async def test_a_request_inside_an_upgrading_body_is_not_served() -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(post(get("/smuggled"), b"connection: upgrade", b"upgrade: websocket"))
        assert (await wire.answer()).body == get("/smuggled")
    assert handler.targets == [b"/"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (post(b"x" * 100, b"connection: upgrade", b"upgrade: h2c"), 413),
        (WITH_CHUNKS.replace(b"5\r\nhello", b"b\r\nhello world"), 413),
        (WITH_CHUNKS.replace(b"5\r\nhello", b"5\r\nhello!"), 400),
    ],
)
async def test_limits_hold_for_an_upgrading_body(raw: bytes, status: int) -> None:
    handler = Recorder()
    async with serving(handler, ServerLimits(body_bytes=10)) as server, wire_to(server) as wire:
        await wire.send(raw)
        assert (await wire.answer()).status == status
        assert await wire.rest() == b""
    assert handler.requests == []


async def test_an_upgrading_request_may_be_the_last() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(post(b"hello", b"connection: close, upgrade", b"upgrade: h2c") + GET)
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"hello", True)
        assert await wire.rest() == b""


async def test_thousands_of_upgrades_in_one_packet() -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(WITHOUT_BODY * 2000)
        for _ in range(2000):
            assert (await wire.answer()).status == 200


# Streams and flow control.


async def test_a_stream_is_chunked_and_the_connection_kept() -> None:
    async with serving(Stream(3, size=5)) as server, wire_to(server) as wire:
        await wire.send(GET + GET)
        for _ in range(2):
            assert (await wire.answer()).body == b"x" * 15


async def test_a_slow_reader_pauses_its_producer() -> None:
    stream = Stream(1000)
    async with (
        serving(stream) as server,
        wire_to(server, small_buffer=True) as wire,
        wire_to(server) as other,
    ):
        await wire.send(GET)
        head = await wire.head()
        assert head.status == 200
        # The producer never waits by itself: unpaused it would have come to its end before anybody else's turn.
        await other.send(CLOSE.replace(b"GET", b"HEAD"))
        await other.rest()
        assert stream.produced * stream.size < 16 * MIB
        size = 0
        while chunk := await wire.chunk():
            size += len(chunk)
        assert size == 1000 * stream.size


async def stall(wire: Wire) -> None:
    """Reads nothing from here on: what asyncio read ahead is bounded, and so is the kernel's."""
    wire.writer.transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]
    await wire.send(GET)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
async def test_of_a_stream_that_nobody_reads_one_piece_is_held_once(
    certificates: Certificates, is_tls: bool
) -> None:
    stream = Stream(1000)
    server_tls, client_tls = (
        (certificates.server.context(), certificates.client.context()) if is_tls else (None, None)
    )
    async with (
        serving(stream, tls=server_tls) as server,
        wire_to(server, tls=client_tls, small_buffer=True) as wire,
    ):
        await stall(wire)
        (connection,) = server._serving.connections
        assert isinstance(connection, Connection)
        await until(lambda: connection._gate.is_closed and stream.produced > 0)
        # As it is written: with the length before it, and over TLS what that adds to it.
        assert connection._transport.get_write_buffer_size() < 1.1 * stream.size
        references = sys.getrefcount(stream.piece)
        # The stream's own, and that of the question.
        assert references == 2


@pytest.mark.parametrize("chunks", [1000, 0], ids=["stream", "whole body"])
async def test_a_client_that_accepts_nothing_is_cut_off(chunks: int) -> None:
    stream = Stream(chunks)

    async def handle(request: Request) -> Response:
        return await stream(request) if chunks else Response(200, [], b"x" * 64 * MIB)

    async with (
        serving(handle, ServerLimits(stall_s=0.2)) as server,
        wire_to(server, small_buffer=True) as wire,
    ):
        await stall(wire)
        await until(lambda: server.statistics().slow_closed == 1)
        if chunks:
            await happens(stream.closed)
        await until(lambda: server.statistics().connections == 0)


async def test_a_slow_reader_of_a_last_answer_gets_all_of_it() -> None:
    """The moment of lingering begins when everything has been sent."""
    body = b"x" * 8 * MIB

    async def handle(request: Request) -> Response:
        return Response(200, [], body)

    limits = ServerLimits(linger_s=0.05, head_wait_s=0.2)
    async with (
        serving(handle, limits) as server,
        wire_to(server, small_buffer=True) as wire,
        wire_to(server) as other,
    ):
        await wire.send(CLOSE)
        await wire.head()
        assert await other.rest() == b""  # closed as silent, later than linger_s
        assert len(await wire.rest()) == len(body)


# Clients that leave.


async def test_a_handler_hears_that_its_client_left() -> None:
    started, gone = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> Response:
        request.cancel_on_disconnect(gone.set)
        started.set()
        await gone.wait()
        return Response(200)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        await happens(started)
        wire.abort()
        await happens(gone)
        await until(lambda: server.statistics().connections == 0)


async def test_who_asks_late_hears_at_once() -> None:
    request = Request("GET", b"/", Headers())
    request.client_gone()
    heard: list[bool] = []
    request.cancel_on_disconnect(lambda: heard.append(True))
    assert heard == [True]


async def test_without_asking_the_handler_runs_to_its_end() -> None:
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as wire:
        await wire.send(GET + GET)
        await happens(slow.started)
        heard = asyncio.Event()
        slow.requests[0].cancel_on_disconnect(heard.set)
        wire.abort()
        await happens(heard)
        assert server.statistics().connections == 1
        slow.may_end.set()
        await until(lambda: server.statistics().connections == 0)
    assert slow.ended == 1, "the pipelined one was not started for nobody"


async def test_a_client_that_leaves_ends_the_stream() -> None:
    stream = Endless(1)
    async with serving(stream) as server, wire_to(server) as wire:
        await wire.send(GET)
        await wire.head()
        wire.abort()
        await happens(stream.closed)
        await until(lambda: server.statistics().connections == 0)


async def test_a_client_that_leaves_a_full_stream_ends_it() -> None:
    stream = Stream(1000)
    async with serving(stream) as server, wire_to(server, small_buffer=True) as wire:
        await stall(wire)
        await until(lambda: stream.produced > 0)
        wire.abort()
        await happens(stream.closed)
    assert stream.produced < stream.chunks


async def test_a_stream_for_a_client_that_already_left_is_closed_unread() -> None:
    slow = Slow()
    closed = asyncio.Event()

    class Body:
        read = 0

        def __aiter__(self) -> Body:
            return self

        async def __anext__(self) -> bytes:
            self.read += 1
            return b"x"

        async def aclose(self) -> None:
            closed.set()

    body = Body()

    async def handle(request: Request) -> Response:
        await slow(request)
        return Response(200, [], body)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        await happens(slow.started)
        heard = asyncio.Event()
        slow.requests[0].cancel_on_disconnect(heard.set)
        wire.abort()
        await happens(heard)
        slow.may_end.set()
        await happens(closed)
    assert body.read == 0


async def test_a_body_that_ignores_its_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    closed = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        yield b"y"

    async def handle(request: Request) -> Response:
        return Response(200, [], Closing(body(), closed))

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        assert await wire.head()
        assert await wire.chunk() == b"x"
        wire.abort()
        await happens(closed)
        await until(lambda: server.statistics().connections == 0)
    assert caplog.messages == []


class Closing:
    """A body that sets an event when it is closed."""

    def __init__(self, body: AsyncIterator[bytes], closed: asyncio.Event) -> None:
        self._body = body
        self._closed = closed

    def __aiter__(self) -> Closing:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._body)

    async def aclose(self) -> None:
        self._closed.set()


# Handlers that fail.


class Broken(Exception):
    pass


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.ERROR, "shadowcat.http")
    return caplog


async def test_a_failing_handler_is_a_500_and_the_end(quiet: pytest.LogCaptureFixture) -> None:
    async def handle(request: Request) -> Response:
        raise Broken("secret")

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET + GET)
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (500, True)
        assert b"secret" not in answer.body
        assert await wire.rest() == b""
    assert quiet.messages == ["the handler of GET / failed"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_injected_header_is_a_500(quiet: pytest.LogCaptureFixture, streamed: bool) -> None:
    stream = Stream(1)

    async def handle(request: Request) -> Response:
        body = stream.body() if streamed else b""
        return Response(200, [(b"x", b"y\r\nset-cookie: z")], body)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        answer = await wire.answer()
        assert answer.status == 500
        assert b"set-cookie" not in answer.headers
        assert await wire.rest() == b""
    assert stream.produced == 0


@pytest.mark.parametrize(
    "field", [(b"x", b"a\r\nb: c"), (b"x", b"a\nb"), (b"x", b"a\rb"), (b"x\r\ny", b"a"), (b"x", b"\0")]
)
def test_encode_fields_refuses_line_ends(field: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="line end"):
        encode_fields([(b"good", b"value"), field])


async def test_a_stream_that_fails_is_not_ended_cleanly(quiet: pytest.LogCaptureFixture) -> None:
    class Failing(Stream):
        async def end(self) -> None:
            raise Broken

    async with serving(Failing(1, size=3)) as server, wire_to(server) as wire:
        await wire.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()
    assert quiet.messages == ["the handler of GET / failed"]


async def test_a_handler_that_cancels_itself_leaves_nobody_waiting() -> None:
    async def handle(request: Request) -> Response:
        raise asyncio.CancelledError

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()
        await until(lambda: server.statistics().connections == 0)


# Draining.


async def test_drain_answers_who_comes_back_and_says_that_it_is_the_last() -> None:
    """A client that reuses its connection cannot know that the drain has begun while its request was on its way."""
    recorder = Recorder()
    async with serving(recorder) as server, wire_to(server) as used, wire_to(server) as fresh:
        await used.send(GET)
        assert not (await used.answer()).closes
        draining = asyncio.create_task(server.drain(20.0))
        await asyncio.sleep(0)
        for wire in (used, fresh):
            wire.writer.write(post(b"late"))
            answer = await wire.answer()
            assert (answer.status, answer.body, answer.closes) == (200, b"late", True)
            assert await wire.rest() == b""
            wire.abort()
        async with soon():
            await draining
    assert len(recorder.requests) == 3


async def test_drain_waits_neither_for_who_was_silent_for_long_nor_for_it_to_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "_PARTING_S", 1000.0)
    async with serving(Recorder(), ServerLimits(linger_s=1000.0)) as server, wire_to(server) as wire:
        await wire.send(GET)
        assert not (await wire.answer()).closes
        [connection] = server._serving.connections
        assert isinstance(connection, Connection)
        connection._silent_since -= 1000.0
        async with soon():
            await server.drain(1000.0)
        assert await wire.rest() == b""


async def test_who_was_told_that_it_may_come_back_is_heard_once_more_in_a_drain() -> None:
    """Its stream had begun before, when nobody knew that it would be the last of its connection."""
    may_end = asyncio.Event()

    async def handle(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"begun"
            await may_end.wait()

        return Response(200, [], body() if request.method == "GET" else request.body)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        assert not (await wire.head()).closes
        draining = asyncio.create_task(server.drain(20.0))
        assert await wire.chunk() == b"begun"
        may_end.set()
        assert await wire.chunk() == b""
        await wire.send(post(b"late"))
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"late", True)
        wire.abort()
        async with soon():
            await draining


async def test_a_request_that_arrived_before_the_end_of_its_connection_is_answered() -> None:
    """Though nobody had told us yet when the connection had been idle for too long."""
    async with serving(Recorder(), ServerLimits(idle_s=0.2)) as server, wire_to(server) as wire:
        await wire.send(GET)
        await wire.answer()
        sock = wire.writer.get_extra_info("socket")
        os.write(sock.fileno(), post(b"late"))
        # Without a turn of the loop in between, in which it would be read.
        server._sweep(asyncio.get_running_loop().time() + 10.0)
        answer = await wire.answer()
        assert (answer.status, answer.body) == (200, b"late")


async def test_drain_lets_the_running_finish_closes_the_idle_and_takes_no_more() -> None:
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as busy, wire_to(server) as idle:
        await busy.send(GET + GET)
        await happens(slow.started)
        port = server.port
        draining = asyncio.create_task(server.drain(20.0))
        assert await idle.rest() == b""
        idle.abort()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        slow.may_end.set()
        answer = await busy.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await busy.rest() == b""
        busy.abort()
        async with soon():
            await draining
        assert server.statistics().connections == 0
    assert slow.ended == 1


async def test_drain_serves_who_was_connected_before_it_was_noticed() -> None:
    """Their connections wait in the system's queue, and would be reset with the listening socket."""
    async with serving(Recorder()) as server:
        address = ("127.0.0.1", server.port)
        # All of it without a turn of the loop, in which they would be accepted.
        waiting = [socket.create_connection(address) for _ in range(3)]
        for sock in waiting:
            sock.sendall(GET)
        server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        async with soon():
            await server.drain(10.0)
        for sock in waiting:
            with sock:
                assert sock.recv(100).startswith(b"HTTP/1.1 200")


async def test_who_waits_at_a_shared_socket_is_left_to_whoever_else_has_it() -> None:
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as ours:
        server = Server(recorder)
        await server.listen(sock=ours.dup())
        # Without a turn of the loop, in which it would be accepted.
        with socket.create_connection(ours.getsockname()) as waiting:
            waiting.sendall(GET)
            async with soon():
                await server.drain(10.0)
            assert recorder.requests == []
            async with serving(recorder) as next_one:
                await next_one.listen(sock=ours.dup())
                await until(lambda: bool(recorder.requests))
    assert [request.peer and request.peer.is_late for request in recorder.requests] == [False]


async def test_who_comes_before_the_listener_closes_is_late_and_served() -> None:
    recorder = Recorder()
    async with serving(recorder) as server:
        address = ("127.0.0.1", server.port)
        # All of it without a turn of the loop, in which they would be accepted.
        waiting = [socket.create_connection(address)]
        server.begin_to_drain()
        waiting.append(socket.create_connection(address))
        for number, sock in enumerate(waiting):
            sock.sendall(get(f"/{number}"))
        await until(lambda: len(recorder.requests) == 2)
        waiting.append(socket.create_connection(address))
        waiting[-1].sendall(get("/2"))
        server.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        assert server.port == address[1]
        async with soon():
            await server.drain(10.0)
        for sock in waiting:
            with sock:
                told = sock.recv(1000)
                assert told.startswith(b"HTTP/1.1 200")
                assert b"connection: close" in told
    late = {request.path for request in recorder.requests if request.peer and request.peer.is_late}
    assert late == {"/1", "/2"}


@pytest.mark.parametrize("begin", [Server.begin_to_drain, Server.stop_accepting])
async def test_clients_who_keep_coming_do_not_keep_the_loop(
    begin: Callable[[Server], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "BACKLOG", 3)
    async with serving(Recorder()) as server:
        address = ("127.0.0.1", server.port)
        clients: list[socket.socket] = []
        accept = socket.socket.accept

        def accept_as_one_more_comes(listening: socket.socket) -> tuple[socket.socket, Any]:
            assert len(clients) < 50
            clients.append(socket.create_connection(address))
            return accept(listening)

        monkeypatch.setattr(socket.socket, "accept", accept_as_one_more_comes)
        begin(server)
        monkeypatch.undo()
        for client in clients:
            client.close()
        async with soon():
            await server.drain(10.0)
        assert len(clients) == 4


@pytest.mark.parametrize("begin", [Server.begin_to_drain, Server.stop_accepting])
async def test_a_server_without_a_file_left_drains(begin: Callable[[Server], None]) -> None:
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as busy:
        await busy.send(GET)
        await happens(slow.started)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            begin(server)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        slow.may_end.set()
        assert (await busy.answer()).closes


@pytest.mark.parametrize("begin", [Server.begin_to_drain, Server.stop_accepting])
async def test_an_idle_connection_ends_soon_though_others_run_on(begin: Callable[[Server], None]) -> None:
    slow = Slow()
    async with (
        serving(slow, ServerLimits(head_wait_s=600.0)) as server,
        wire_to(server) as busy,
        wire_to(server) as idle,
    ):
        await busy.send(GET)
        await happens(slow.started)
        begin(server)
        assert await idle.rest() == b""
        slow.may_end.set()
        assert (await busy.answer()).closes


async def test_drain_hears_out_a_request_that_is_arriving() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhe")
        assert (await wire.head()).status == 100
        draining = asyncio.create_task(server.drain(20.0))
        await asyncio.sleep(0)
        await wire.send(b"llo")
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"hello", True)
        wire.abort()
        async with soon():
            await draining


@pytest.mark.parametrize("size", [40 * KIB, 8 * MIB])
async def test_drain_does_not_cut_an_answer_off(size: int) -> None:
    """Nor one of which the last bytes are still in our buffers."""
    slow = Slow()

    async def handle(request: Request) -> Response:
        await slow(request)
        return Response(200, [], b"x" * size)

    async with serving(handle) as server, wire_to(server, small_buffer=True) as wire:
        await wire.send(GET)
        await happens(slow.started)
        draining = asyncio.create_task(server.drain(20.0))
        slow.may_end.set()
        assert len((await wire.answer()).body) == size
        wire.abort()
        async with soon():
            await draining


async def test_drain_ends_what_does_not_end() -> None:
    slow = Slow()
    async with serving(slow) as server, wire_to(server) as wire:
        await wire.send(GET)
        await happens(slow.started)
        async with soon():
            await server.drain(0.05)
        assert server.statistics().connections == 0
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await wire.answer()
    assert slow.ended == 0


async def test_what_waits_behind_a_stream_that_ends_with_the_server_is_not_begun() -> None:
    may_end = asyncio.Event()
    begun: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await may_end.wait()

    async def handle(request: Request) -> Response:
        begun.append(request.target)
        return Response(200, [], body())

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(get("/1") + get("/2"))
        await until(lambda: begun == [b"/1"])
        await wire.reader.readuntil(b"x\r\n")
        may_end.set()
        await server.aclose()
    assert begun == [b"/1"]


async def test_a_stream_begun_before_the_drain_says_that_it_is_the_last() -> None:
    slow = Slow()

    async def handle(request: Request) -> Response:
        await slow(request)
        return await Stream(2, size=3)(request)

    async with serving(handle) as server, wire_to(server) as wire:
        await wire.send(GET)
        await happens(slow.started)
        draining = asyncio.create_task(server.drain(20.0))
        await asyncio.sleep(0)
        slow.may_end.set()
        answer = await wire.answer()
        assert (answer.body, answer.closes) == (b"x" * 6, True)
        wire.abort()
        async with soon():
            await draining


# Listening.


async def test_too_many_connections() -> None:
    async with serving(Recorder(), ServerLimits(connections=2)) as server:
        async with wire_to(server) as one, wire_to(server) as two:
            for wire in (one, two):
                await wire.send(GET)
                assert (await wire.answer()).status == 200
            async with wire_to(server) as third:
                answer = await third.answer()
                assert (answer.status, answer.closes) == (503, True)
                assert answer.headers[b"retry-after"] == b"5"
                assert await third.rest() == b""
        await until(lambda: server.statistics().connections == 0)
        async with wire_to(server) as wire:
            await wire.send(GET)
            assert (await wire.answer()).status == 200


class Gone(asyncio.Transport):
    """Of a client that has just reset its connection, as asyncio's own loop finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_client_that_is_gone_before_it_can_be_refused_is_let_go_of() -> None:
    served = Serving(Recorder(), ServerLimits(connections=0))
    connection, gone = Connection(served, is_late=False), Gone()
    connection.connection_made(gone)
    assert gone.is_aborted
    connection.connection_lost(None)
    assert not served.connections


async def test_unix_socket(tmp_path: Path) -> None:
    handler = Recorder()
    path = str(tmp_path / "socket")
    async with serving(handler, unix_path=path):
        wire = Wire(*await asyncio.open_unix_connection(path))
        await wire.send(post(b"hello"))
        assert (await wire.answer()).body == b"hello"
        wire.abort()
    assert handler.requests[0].peer is not None
    assert handler.requests[0].peer.address == ""


async def test_the_peer_is_named() -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(GET)
        await wire.answer()
    assert handler.requests[0].peer is not None
    assert handler.requests[0].peer.address == "127.0.0.1"


async def test_several_listeners() -> None:
    async with serving(Recorder()) as server:
        await server.listen("127.0.0.1")
        assert len({sock.getsockname()[1] for sock in server.sockets}) == 2


async def test_closing_leaves_nothing_open() -> None:
    async with serving(Recorder()):
        pass  # the loop's first server opens a file that it keeps
    before = open_files()
    async with serving(Endless(1)) as server, wire_to(server) as busy, wire_to(server) as idle:
        await busy.send(GET)
        await busy.head()
        await idle.send(b"GET")
        await until(lambda: server.statistics().connections == 2)
        async with soon():
            await server.aclose()
        assert server.statistics().connections == 0
    await until(lambda: open_files() == before)


# TLS.


async def test_tls(certificates: Certificates) -> None:
    async with (
        serving(Recorder(), tls=certificates.server.context()) as server,
        wire_to(server, tls=certificates.client.context()) as wire,
    ):
        for _ in range(3):
            await wire.send(post(b"hello"))
            assert (await wire.answer()).body == b"hello"


async def test_one_who_waits_and_speaks_no_tls_is_no_fault_of_ours(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(Recorder(), tls=certificates.server.context()) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as waiting:
            waiting.sendall(GET)
            server.begin_to_drain()
            async with soon():
                await server.drain(10.0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_tls_refusal_arrives_before_the_close(certificates: Certificates) -> None:
    async with (
        serving(Recorder(), ServerLimits(body_bytes=10), tls=certificates.server.context()) as server,
        wire_to(server, tls=certificates.client.context()) as wire,
    ):
        await wire.send(post(b"x" * 100_000))
        assert (await wire.answer()).status == 413
        assert await wire.rest() == b""


async def test_tls_last_answer_is_whole(certificates: Certificates) -> None:
    body = b"x" * 8 * MIB

    async def handle(request: Request) -> Response:
        return Response(200, [], body)

    async with (
        serving(handle, ServerLimits(linger_s=0.05), tls=certificates.server.context()) as server,
        wire_to(server, tls=certificates.client.context(), small_buffer=True) as wire,
    ):
        await wire.send(CLOSE)
        assert len((await wire.answer()).body) == len(body)
        assert await wire.rest() == b""


async def test_tls_slow_reader_pauses_its_producer(certificates: Certificates) -> None:
    stream = Stream(1000)
    async with (
        serving(stream, tls=certificates.server.context()) as server,
        wire_to(server, tls=certificates.client.context(), small_buffer=True) as wire,
    ):
        await wire.send(GET)
        await wire.head()
        assert stream.produced * stream.size < 16 * MIB
        wire.abort()
        await happens(stream.closed)
    assert stream.produced < stream.chunks


async def test_tls_client_that_never_says_goodbye_is_cut_off(certificates: Certificates) -> None:
    limits = ServerLimits(stall_s=0.1, linger_s=0.1)
    async with (
        serving(Recorder(), limits, tls=certificates.server.context()) as server,
        wire_to(server, tls=certificates.client.context()) as wire,
    ):
        await stall(wire)
        await until(lambda: server.statistics().requests == 1)
        await wire.send(b"garbage\r\n\r\n")
        await until(lambda: server.statistics().connections == 0)


async def test_mutual_tls_names_the_client(certificates: Certificates) -> None:
    handler = Recorder()
    async with (
        serving(handler, tls=certificates.server_mutual.context()) as server,
        wire_to(server, tls=certificates.client_mutual.context()) as wire,
    ):
        await wire.send(GET)
        assert (await wire.answer()).status == 200
    peer = handler.requests[0].peer
    assert peer is not None
    assert peer.certificate is not None
    assert (("commonName", "somebody"),) in peer.certificate["subject"]


async def test_mutual_tls_serves_nobody_without_a_certificate(certificates: Certificates) -> None:
    handler = Recorder()
    async with serving(handler, tls=certificates.server_mutual.context()) as server:
        try:
            async with wire_to(server, tls=certificates.client.context()) as wire:
                await wire.send(GET)
                assert await wire.rest() == b""
        except OSError:
            pass  # a reset or an SSL error, if that is seen first
        assert server.statistics().connections == 0
    assert handler.requests == []

"""A server that is a forward proxy's: targets that name a host, tunnels with HTTP inside, and what neither may hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shadowcat.http.limits import ServerLimits
from shadowcat.http.message import Peer, Request, Response
from shadowcat.http.server import Server
from shadowcat.http.serving import Forwarding, Handler
from tests.http.kit import GET, Recorder, happens, serving, wire_to

CONNECT = b"CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n"
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)


def absolute(target: bytes, host: bytes = b"a", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (method, target, host)


def connect(*fields: bytes, target: bytes = b"a:80") -> bytes:
    return b"\r\n".join([b"CONNECT %b HTTP/1.1" % target, b"host: a:80", *fields, b"", b""])


@asynccontextmanager
async def forwarding(handler: Handler, limits: ServerLimits | None = None) -> AsyncIterator[Server]:
    def refuse_tls(peer: Peer) -> str:
        assert peer.tunnel is not None
        return f"no TLS to {peer.tunnel.decode()}"

    server = Server(handler, limits, Forwarding(refuse_tls))
    await server.listen("127.0.0.1")
    try:
        yield server
    finally:
        await server.aclose()


def tunnels(handler: Recorder) -> list[bytes | None]:
    return [request.peer.tunnel if request.peer else None for request in handler.requests]


async def test_a_target_that_names_a_host_comes_whole() -> None:
    handler = Recorder()
    async with forwarding(handler) as server, wire_to(server) as wire:
        for target, host in (
            (b"http://a/x?y", b"a"),
            (b"http://A:3000", b"a:3000"),
            (b"HTTP://a:80/", b"a"),
            (b"http://a/", b"a:80"),
            (b"https://[::1]:443/", b"[::1]"),
            (b"/x", b"a"),
        ):
            await wire.send(absolute(target, host))
            assert (await wire.answer()).status == 200
            assert handler.targets[-1] == target


async def test_the_same_request_again_is_the_same() -> None:
    """A head that repeats is not parsed again; what was made of it must still name the host."""
    handler = Recorder()
    raw = b"POST http://a/x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
    async with forwarding(handler) as server, wire_to(server) as wire:
        for _ in range(3):
            await wire.send(raw)
            assert (await wire.answer()).body == b"hi"
    assert handler.targets == [b"http://a/x"] * 3


@pytest.mark.parametrize("early", [True, False], ids=["in one piece", "after the answer"])
@pytest.mark.parametrize("fields", [(), (b"connection: close",), (b"proxy-connection: close",)])
async def test_requests_inside_a_tunnel(early: bool, fields: tuple[bytes, ...]) -> None:
    handler = Recorder()
    async with forwarding(handler) as server, wire_to(server) as wire:
        await wire.send(connect(*fields) + (GET if early else b""))
        opened = await wire.head()
        assert (opened.status, opened.closes, b"content-length" in opened.headers) == (200, False, False)
        if not early:
            await wire.send(GET)
        for _ in range(2):
            assert (await wire.answer()).status == 200
            await wire.send(GET)
        await wire.answer()
    assert handler.targets == [b"a:80", b"/", b"/", b"/"]
    assert tunnels(handler) == [None, b"a:80", b"a:80", b"a:80"]


async def test_a_tunnel_after_other_requests() -> None:
    handler = Recorder()
    before = b"POST http://a/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    async with forwarding(handler) as server, wire_to(server) as wire:
        await wire.send(before)
        await wire.answer()
        await wire.send(CONNECT)
        assert (await wire.head()).status == 200
        # Known from before, and inside a tunnel read as any server reads it.
        await wire.send(before)
        await wire.answer()
    assert list(zip(handler.targets, tunnels(handler), strict=True)) == [
        (b"http://a/x", None),
        (b"a:80", None),
        (b"/x", b"a:80"),
    ]


@pytest.mark.parametrize(
    ("inside", "status"),
    [(CONNECT, 405), (absolute(b"http://b/"), 421), (b"junk\r\n\r\n", 400), (b"\0\0\0\0", 400)],
    ids=["a tunnel", "another host", "junk", "binary"],
)
async def test_what_a_tunnel_may_not_hold(inside: bytes, status: int) -> None:
    handler = Recorder()
    async with forwarding(handler) as server, wire_to(server) as wire:
        await wire.send(CONNECT)
        await wire.head()
        await wire.send(inside + GET)
        refusal = await wire.answer()
        assert (refusal.status, refusal.closes) == (status, True)
        assert await wire.rest() == b""
    assert handler.targets == [b"a:80"]


@pytest.mark.parametrize("early", [True, False], ids=["in one piece", "after the answer"])
@pytest.mark.parametrize("size", [1, len(CLIENT_HELLO)])
async def test_tls_inside_a_tunnel(early: bool, size: int) -> None:
    handler = Recorder()
    async with forwarding(handler) as server, wire_to(server) as wire:
        await wire.send(CONNECT + (CLIENT_HELLO[:size] if early else b""))
        assert (await wire.head()).status == 200
        if not early:
            await wire.send(CLIENT_HELLO[:size])
        refusal = await wire.answer()
        assert (refusal.status, refusal.closes, refusal.body) == (400, True, b"no TLS to a:80\n")
    assert handler.targets == [b"a:80"]


async def test_tls_where_nobody_asked_for_a_tunnel() -> None:
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(CLIENT_HELLO)
        refusal = await wire.answer()
        assert (refusal.status, refusal.body) == (400, b"this is TLS, and plain HTTP is spoken here\n")


async def test_a_tunnel_that_is_refused_carries_nothing() -> None:
    seen: list[Request] = []

    async def refuse(request: Request) -> Response:
        seen.append(request)
        return Response(403, [], b"not there")

    async with forwarding(refuse) as server, wire_to(server) as wire:
        await wire.send(CONNECT + GET)
        refusal = await wire.answer()
        assert (refusal.status, refusal.closes, refusal.body) == (403, True, b"not there")
        assert await wire.rest() == b""
    assert [request.method for request in seen] == ["CONNECT"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (connect(target=b"a"), 400),
        (connect(target=b"a:"), 400),
        (connect(target=b"u@a:80"), 400),
        (connect(target=b"http://a:80/"), 400),
        (connect(target=b"/"), 400),
        (connect(b"content-length: 2") + b"hi", 400),
        (connect(b"transfer-encoding: chunked"), 400),
        (b"CONNECT a:80 HTTP/1.1\r\n\r\n", 400),
        (absolute(b"http://b/"), 421),
        (absolute(b"http://a:81/"), 421),
        (absolute(b"http://a:443/"), 421),
        (absolute(b"http://u:p@a/"), 421),
        (absolute(b"ftp://a/"), 400),
        (absolute(b"http:///x"), 421),
        (absolute(b"http://a/", method=b"TRACE"), 405),
        (absolute(b"http://a/" + b"x" * 9_000), 414),
    ],
)
async def test_a_head_that_is_refused(raw: bytes, status: int) -> None:
    handler = Recorder()
    async with forwarding(handler) as server, wire_to(server) as wire:
        await wire.send(raw)
        refusal = await wire.answer()
        assert (refusal.status, refusal.closes) == (status, True)
    assert handler.requests == []


async def test_an_idle_tunnel_is_closed() -> None:
    async with forwarding(Recorder(), ServerLimits(idle_s=0.2)) as server, wire_to(server) as wire:
        await wire.send(CONNECT)
        assert (await wire.head()).status == 200
        assert await wire.rest() == b""


async def test_a_client_that_goes_while_its_tunnel_is_judged() -> None:
    asked, judged = asyncio.Event(), asyncio.Event()

    async def think(request: Request) -> Response:
        asked.set()
        await judged.wait()
        return Response(200)

    async with forwarding(think) as server:
        async with wire_to(server) as wire:
            await wire.send(CONNECT + GET)
            await happens(asked)
        judged.set()
        await server.drain(5)
        assert server.statistics().connections == 0

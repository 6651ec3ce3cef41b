"""Clients that name their server: what a forward proxy does for them, and what it does for nobody."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from shadowcat.app import proxy as app
from shadowcat.app.forward import ForwardProxy, name_of
from shadowcat.core.targets import TargetRules
from shadowcat.proxy.shared import Phase
from shadowcat.proxy.targets import Targets
from tests.rig.client import ACCEPT, JSON, Client, Reply, rpc
from tests.rig.old_server import old_server
from tests.rig.server import Call, McpServer, mcp_server
from tests.rig.wait import happens, soon, until
from tests.rig.wire import Listener, Seen

LOOPBACK = TargetRules(loopback=True)
INITIALIZE = rpc(
    "initialize",
    {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "rig", "version": "1"}},
    0,
)


class Through(Client):
    """A client of a server that is told of a proxy: it names the server in every request."""

    def __init__(self, proxy: int, url: str) -> None:
        super().__init__(proxy, url)
        self.authority = url.split("/")[2]

    async def request(
        self, method: str, fields: Iterable[tuple[str, str]] = (), body: bytes | None = None, path: str = ""
    ) -> Reply:
        fields = list(fields)
        if not any(name.lower() == "host" for name, _ in fields):
            fields.insert(0, ("Host", self.authority))
        if path.startswith("/"):
            path = f"http://{self.authority}{path}"
        return await super().request(method, fields, body, path)


class Stand:
    def __init__(self, proxy: ForwardProxy, stack: AsyncExitStack) -> None:
        self.proxy = proxy
        self._stack = stack

    async def server(self, **script: Any) -> McpServer:
        return await self._stack.enter_async_context(mcp_server(**script))

    def client(self, url: str) -> Through:
        client = Through(self.proxy.port, url)
        self._stack.callback(client.close)
        return client


@asynccontextmanager
async def forwarding(rules: TargetRules = LOOPBACK, **options: Any) -> AsyncIterator[Stand]:
    async with AsyncExitStack() as stack, ForwardProxy(rules, port=0, **options) as proxy:
        yield Stand(proxy, stack)


async def reason_of(reply: Reply) -> str:
    error = json.loads(await reply.body())["error"]
    return error.get("data", {}).get("reason", "")


# MCP to a server that is named.


async def test_a_session() -> None:
    async with forwarding() as stand:
        server = await stand.server()
        client = stand.client(server.url)
        await client.initialize()
        assert (await client.call())["result"]
        assert len(server.sessions) == 1
        assert client.session_id not in server.sessions
        assert (await client.delete()).status == 200
        assert not server.sessions


async def test_a_modern_request() -> None:
    async with forwarding() as stand:
        server = await stand.server()
        reply = await stand.client(server.url).ask("tools/call", {"name": "t", "arguments": {}})
        assert "result" in await reply.json()
        assert server.got("tools/call")[0].get("mcp-method") == "tools/call"


async def test_a_session_goes_on_when_its_server_was_restarted() -> None:
    async with forwarding() as stand:
        server = await stand.server()
        client = stand.client(server.url)
        await client.initialize()
        server.restart()
        assert (await client.call())["result"]
        assert len(server.got("initialize")) == 2


async def test_a_session_is_its_servers_own() -> None:
    async with forwarding() as stand:
        one, two = await stand.server(name="one"), await stand.server(name="two")
        client = stand.client(one.url)
        await client.initialize()
        for url in (two.url, f"{one.url}/", f"{one.url}?x=1"):
            other = stand.client(url)
            other.session_id, other.version = client.session_id, client.version
            assert (await other.begin("tools/call")).status == 404
            assert (await other.listen()).status == 404
            assert (await other.delete()).status == 404
        assert not two.requests
        assert (await client.call())["result"]


async def test_a_server_that_is_away_is_not_another_one() -> None:
    async with forwarding() as stand:
        server = await stand.server()
        await stand.client(server.url).initialize()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            lost = stand.client(f"http://127.0.0.1:{nobody.getsockname()[1]}/mcp")
            reply = await lost.post(INITIALIZE)
        assert (reply.status, await reason_of(reply)) == (503, "connection_refused")
        assert len(server.got("initialize")) == 1


async def test_inside_a_tunnel() -> None:
    async with forwarding() as stand, wire(stand.proxy.port) as (reader, writer):
        server = await stand.server()
        authority = server.url.split("/")[2]
        writer.write(
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode()
        )
        assert await status(reader) == 200
        for _ in range(2):
            writer.write(posted("/mcp", authority, INITIALIZE))
            assert await status(reader) == 200
            assert len(server.got("initialize")) >= 1


async def test_a_client_of_the_old_transport() -> None:
    async with forwarding() as stand, old_server() as server:
        client = stand.client(server.url)
        stream = await client.request("GET", [("Accept", "text/event-stream")])
        first = await stream.event()
        assert first is not None
        assert first.event == "endpoint"
        posted = await client.post(INITIALIZE, path=first.data)
        assert posted.status == 202
        assert (await stream.message())["result"]["protocolVersion"]


async def test_clients_of_the_old_transport_whose_urls_differ_in_their_queries() -> None:
    async with forwarding() as stand, old_server() as server:
        for key in ("a", "b"):
            client = stand.client(f"{server.url}?key={key}")
            stream = await client.request("GET", [("Accept", "text/event-stream")])
            first = await stream.event()
            assert first is not None
            assert (await client.post(INITIALIZE, path=first.data)).status == 202
            assert (await stream.message())["result"]["protocolVersion"]
        # One that is nobody's any more is not the server's to answer.
        nobodys = first.data.partition("=")[0] + "=" + 32 * "0"
        assert (await client.post(INITIALIZE, path=nobodys)).status == 404


async def test_servers_that_hang_end_their_clients_sessions_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_FRONT_S", 1.0)
    async with forwarding() as stand:
        server = await stand.server()
        server.handlers["initialize"] = lambda call: happens(call.seen.dropped)
        for key in range(1, 31):
            client = stand.client(f"{server.url}?key={key}")
            stream = await client.request("GET", [("Accept", "text/event-stream")])
            first = await stream.event()
            assert first is not None
            assert (await client.post(INITIALIZE, path=first.data)).status == 202
            await server.gets("initialize", key)
        async with soon(10):
            await stand.proxy.drain(0)


async def test_a_server_of_the_old_transport() -> None:
    async with forwarding() as stand, old_server() as server:
        client = stand.client(server.url)
        await client.initialize()
        assert (await client.call())["result"]


# Who may be named.


@pytest.mark.parametrize(
    "named",
    [
        "example.com",
        "127.0.0.1.example.com",
        "localhost.example.com",
        "localhost.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "169.254.169.254",
    ],
)
async def test_a_target_that_is_not_allowed(named: str) -> None:
    async with forwarding() as stand:
        reply = await stand.client(f"http://{named}/mcp").post(INITIALIZE)
        assert (reply.status, await reason_of(reply)) == (403, "foreign_target")
        reply = await client_at(stand).request("CONNECT", [("Host", named)], path=f"{named}:80")
        assert (reply.status, await reason_of(reply)) == (403, "foreign_target")


def client_at(stand: Stand) -> Client:
    return Client(stand.proxy.port)


async def test_where_a_target_leads_to_is_judged_too(caplog: pytest.LogCaptureFixture) -> None:
    class LeadsAstray(TargetRules):
        def admits(self, host: str, address: str) -> bool:
            assert (host, address) == ("127.0.0.1", "127.0.0.1")
            return False

    async with forwarding(LeadsAstray(loopback=True)) as stand:
        server = await stand.server()
        reply = await stand.client(server.url).post(INITIALIZE)
        assert (reply.status, await reason_of(reply)) == (403, "foreign_target")
        reply = await stand.client(server.url).request("GET", path="/x")
        assert (reply.status, await reason_of(reply)) == (403, "foreign_target")
        assert not server.requests
    assert "127.0.0.1 resolves to 127.0.0.1, which is not allowed" in caplog.text


async def test_the_proxy_itself_is_no_target() -> None:
    async with forwarding() as stand:
        for host in ("127.0.0.1", "localhost", "127.0.0.2", "[::ffff:127.0.0.1]"):
            reply = await stand.client(f"http://{host}:{stand.proxy.port}/mcp").post(INITIALIZE)
            assert (reply.status, await reason_of(reply)) == (403, "target_is_the_proxy")


async def test_what_names_no_server() -> None:
    async with forwarding() as stand:
        reply = await client_at(stand).post(INITIALIZE)
        assert (reply.status, await reason_of(reply)) == (400, "no_target")
        reply = await client_at(stand).request("POST", [("Host", "a")], b"{}", "https://a/mcp")
        body = await reply.body()
        assert (reply.status, b"--upstream" in body, b"https_target" in body) == (400, True, True)


async def test_tls_in_a_tunnel_is_told_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async with forwarding() as stand, wire(stand.proxy.port) as (reader, writer):
        writer.write(b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\n\r\n")
        assert await status(reader) == 200
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        async with soon():
            told = await reader.read()
    assert told.startswith(b"HTTP/1.1 400 ")
    assert b"--upstream" in told
    assert "speaks TLS to 127.0.0.1:443" in caplog.text
    assert "--upstream" in caplog.text


async def test_a_host_that_is_not_the_tunnels() -> None:
    async with forwarding() as stand, wire(stand.proxy.port) as (reader, writer):
        server, other = await stand.server(), await stand.server()
        authority = server.url.split("/")[2]
        writer.write(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert await status(reader) == 200
        writer.write(posted("/mcp", other.url.split("/")[2], INITIALIZE))
        assert await status(reader) == 403
        assert not server.requests
        assert not other.requests


@pytest.mark.parametrize("origin", ["http://evil.example", "null"])
async def test_a_page_from_elsewhere(origin: str) -> None:
    async with forwarding() as stand:
        server = await stand.server()
        reply = await stand.client(server.url).post(INITIALIZE, ("Origin", origin))
        assert (reply.status, await reason_of(reply)) == (403, "foreign_origin")
        assert not server.requests


async def test_pages_that_are_allowed_later() -> None:
    async with forwarding() as stand:
        server = await stand.server()
        page = ("Origin", "http://friend.example")
        assert (await stand.client(server.url).post(INITIALIZE, page)).status == 403
        stand.proxy.guard.allow(frozenset({"other.example"}), frozenset({page[1]}))
        assert (await stand.client(server.url).post(INITIALIZE, page)).status == 200


async def test_targets_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    async with forwarding() as stand:
        targets = stand.proxy.shared.upstreams
        assert isinstance(targets, Targets)
        monkeypatch.setattr(targets, "_most", 3)
        server = await stand.server()
        first = stand.client(f"{server.url}?0")
        await first.initialize()
        for number in range(1, 3):
            await stand.client(f"{server.url}?{number}").ask("tools/list")
        refused = await stand.client(f"{server.url}?3").ask("tools/list")
        assert (refused.status, await reason_of(refused)) == (503, "too_many_targets")
        monkeypatch.setattr("shadowcat.proxy.targets.IDLE_S", -1.0)
        assert (await stand.client(f"{server.url}?3").ask("tools/list")).status == 200
        assert len(targets) == 2
        assert (await first.call())["result"]


# What is no MCP.


@asynccontextmanager
async def web() -> AsyncIterator[tuple[str, list[Seen]]]:
    heard: list[Seen] = []

    async def answer(seen: Seen) -> None:
        heard.append(seen)
        headers = {
            "WWW-Authenticate": "Bearer",
            "Connection": "x-hop",
            "X-Hop": "1",
            "Proxy-Authenticate": "no",
        }
        await seen.respond(201, b'{"issuer":"x"}', "application/json", headers)

    listener = Listener(answer)
    await listener.open()
    try:
        yield f"http://127.0.0.1:{listener.port}", heard
    finally:
        await listener.close()


async def test_what_is_no_mcp_is_relayed_as_it_is() -> None:
    async with forwarding() as stand, web() as (url, heard):
        client = stand.client(f"{url}/.well-known/oauth-authorization-server?x=1")
        fields = [
            ("Accept", "application/json"),
            ("Authorization", "Bearer t"),
            ("Proxy-Authorization", "Basic secret"),
            ("Proxy-Connection", "keep-alive"),
            ("Connection", "x-mine"),
            ("X-Mine", "1"),
        ]
        reply = await client.request("GET", fields)
        assert (reply.status, await reply.body()) == (201, b'{"issuer":"x"}')
        assert reply.headers["www-authenticate"] == "Bearer"
        assert not {"x-hop", "proxy-authenticate"} & reply.headers.keys()
        [seen] = heard
        assert seen.target == "/.well-known/oauth-authorization-server?x=1"
        assert seen.get("authorization") == "Bearer t"
        assert not {"proxy-authorization", "proxy-connection", "x-mine"} & {name for name, _ in seen.headers}
        await client.post({"redirect_uris": ["http://127.0.0.1/cb"]}, path="/register")
        await client.request(
            "POST", [("Content-Type", "application/x-www-form-urlencoded")], b"grant_type=x", "/token"
        )
        assert [seen.body for seen in heard[1:]] == [
            b'{"redirect_uris": ["http://127.0.0.1/cb"]}',
            b"grant_type=x",
        ]


async def test_one_that_stops_relays_no_more_than_what_belongs_to_a_call() -> None:
    async def ask(call: Call) -> None:
        stream = await call.stream()
        await stream.request("q1", "roots/list")
        await call.answered("q1")
        await stream.send(call.response({}))
        await stream.end()

    async with forwarding() as stand:
        server = await stand.server()
        server.handlers["tools/call"] = ask
        client = stand.client(server.url)
        await client.initialize(capabilities={"roots": {}})
        reply = await client.begin("tools/call", {"name": "t"})
        question = await reply.message()
        draining = asyncio.create_task(stand.proxy.drain(60.0))
        await until(lambda: stand.proxy.shared.phase is Phase.DRAINING)
        plain = await client.request("GET", [("Accept", "application/json")])
        assert (plain.status, await reason_of(plain)) == (503, "proxy_stops")
        given = await client.send({"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}})
        assert given.status == 202
        assert (await reply.messages())[-1]["result"] == {}
        async with soon():
            await draining


async def test_cookies_stay_apart() -> None:
    cookies = [b"a=1; Expires=Wed, 09 Jun 2027 10:18:14 GMT", b"b=2; Path=/, x", b"c=3"]
    fields = b"".join(b"Set-Cookie: %b\r\n" % cookie for cookie in cookies)

    async def answer(seen: Seen) -> None:
        await seen.raw(b"HTTP/1.1 200 OK\r\nVary: a\r\n%bVary: b\r\nContent-Length: 0\r\n\r\n" % fields)

    listener = Listener(answer)
    await listener.open()
    try:
        async with forwarding() as stand, soon():
            reader, writer = await asyncio.open_connection("127.0.0.1", stand.proxy.port)
            url = f"http://127.0.0.1:{listener.port}/login"
            writer.write(f"GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{listener.port}\r\n\r\n".encode())
            lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            writer.close()
    finally:
        await listener.close()
    assert [line for line in lines if line.startswith(b"set-cookie")] == [
        b"set-cookie: " + cookie for cookie in cookies
    ]
    assert b"vary: a, b" in lines


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}',
        b'{"id":1,"method":"tools/call"}',
        b'{"id":1,"Method":"tools/call"}',
        b'{"id":1,"meth\\u006fd":"tools/call"}',
        b'{"id":1,"x":1,"x":2}',
        b'[{"id":1,"method":"tools/call"}]',
        b"\xff\xfe{\x00}\x00",
        b"junk",
        b"",
    ],
)
async def test_what_a_lenient_server_might_take_for_mcp_does_not_pass_as_something_else(body: bytes) -> None:
    async with forwarding() as stand, web() as (url, heard):
        for kind in ("application/json", "text/plain"):
            reply = await stand.client(f"{url}/mcp").post(body, plain=[ACCEPT, ("Content-Type", kind)])
            assert 400 <= reply.status < 500
        assert not heard


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"method":"tools/call"}',
        b'{"\\u006asonrpc":"2.0","id":1,"method":"tools/call"}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call"}'.encode("utf-16"),
    ],
)
async def test_nor_where_it_is_called_a_form(body: bytes) -> None:
    async with forwarding() as stand, web() as (url, heard):
        form = ("Content-Type", "application/x-www-form-urlencoded")
        reply = await stand.client(f"{url}/mcp").post(body, plain=[ACCEPT, form])
        assert 400 <= reply.status < 500
        assert not heard


async def test_a_stream_that_nobody_asked_for_is_not_relayed() -> None:
    dropped = asyncio.Event()

    async def stream(seen: Seen) -> None:
        await seen.begin("text/event-stream; charset=utf-8")
        await happens(seen.dropped)
        dropped.set()

    listener = Listener(stream)
    await listener.open()
    try:
        async with forwarding() as stand:
            client = stand.client(f"http://127.0.0.1:{listener.port}/mcp")
            reply = await client.request("GET", [("Accept", "*/*")])
            assert (reply.status, await reason_of(reply)) == (406, "accept")
            await happens(dropped)
    finally:
        await listener.close()


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD"])
async def test_methods_that_no_client_of_mcp_needs(method: str) -> None:
    async with forwarding() as stand, web() as (url, heard):
        reply = await stand.client(f"{url}/x").request(method, [JSON], b"{}")
        assert reply.status == 405
        assert not heard


def test_names_of_targets_hold_no_queries() -> None:
    assert name_of("http://127.0.0.1:3000/mcp") == "127.0.0.1:3000/mcp"
    assert "secret" not in name_of("http://a/mcp?key=secret")
    assert name_of("http://a/mcp?key=1") != name_of("http://a/mcp?key=2")


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with soon():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def posted(path: str, authority: str, message: Any) -> bytes:
    body = json.dumps(message).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len(body)}\r\n"
    return (
        head.encode()
        + b"".join(f"{name}: {value}\r\n".encode() for name, value in (ACCEPT, JSON))
        + b"\r\n"
        + body
    )


async def status(reader: asyncio.StreamReader) -> int:
    async with soon():
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        for line in head.split("\r\n"):
            name, _, value = line.partition(": ")
            if name.lower() == "content-length":
                await reader.readexactly(int(value))
    return int(head.split(" ")[1])

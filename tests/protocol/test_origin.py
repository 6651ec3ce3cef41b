"""Who may speak to the endpoint: web pages, host names, preflights."""

from __future__ import annotations

import asyncio
import json

import pytest

from shadowcat.downstream.streamable import EndpointOptions
from tests.rig.cases import case, refused
from tests.rig.client import ACCEPT, JSON, modern, routing, rpc
from tests.rig.stand import Stand, stand
from tests.rig.wait import soon

FOREIGN = [
    "https://evil.com",
    "null",
    "http://localhost.evil.com",
    "http://evil.com/localhost",
    "http://localhost@evil.com",
    "http://127.0.0.1.evil.com",
    "file://localhost",
    "localhost",
    "",
    "http://evil.com, http://localhost",
    "http://localhost:99999",
]


@pytest.mark.case("A01")
@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "OPTIONS", "PUT"])
async def test_a_foreign_page_is_refused(session: Stand, method: str, origin: str) -> None:
    fields = [*session.client.in_session(), ("Origin", origin)]
    if method == "POST":
        reply = await session.client.post(rpc("tools/list", {}, 7), *fields)
    else:
        reply = await session.client.request(method, [("Accept", "text/event-stream"), *fields])
    await refused(reply, 403, -32600)
    assert "access-control-allow-origin" not in reply.headers
    assert session.server.requests == []


@pytest.mark.case("A01")
@pytest.mark.parametrize("origin", FOREIGN[:3])
async def test_a_foreign_page_is_refused_in_the_modern_era(rig: Stand, origin: str) -> None:
    fields = [*routing("tools/list"), ("Origin", origin)]
    await refused(await rig.client.post(modern("tools/list"), *fields), 403, -32600)
    assert rig.server.requests == []


async def test_a_host_that_is_allowed_no_more_is_refused_on_open_connections_too() -> None:
    async with stand(endpoint=EndpointOptions(allow_hosts=frozenset({"a.example"}))) as rig:
        await rig.client.initialize()
        body = json.dumps(rpc("tools/list", {}, 1))
        fields = [ACCEPT, JSON, *rig.client.in_session(), ("Host", "a.example")]
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        asked = f"POST /mcp HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.proxy.port)
        try:
            async with soon():
                for _ in range(2):
                    writer.write(asked)
                    assert (await reader.readline()).split()[1] == b"200"
                    await reader.readuntil(b'"id":1')
                    await reader.readuntil(b"}}")
                rig.proxy.guard.allow(frozenset({"b.example"}), frozenset())
                writer.write(asked)
                assert (await reader.readline()).split()[1] == b"403"
        finally:
            writer.close()


@pytest.mark.case("A01")
async def test_two_origins_are_none(session: Stand) -> None:
    fields = [*session.client.in_session(), ("Origin", "http://localhost"), ("Origin", "http://localhost")]
    await refused(await session.client.post(rpc("tools/list", {}, 7), *fields), 403, -32600)


@pytest.mark.parametrize(
    "origin", ["http://localhost:1234", "http://127.0.0.1", "https://[::1]:8", "HTTP://LOCALHOST"]
)
async def test_pages_of_this_machine_may(session: Stand, origin: str) -> None:
    fields = [*session.client.in_session(), ("Origin", origin)]
    reply = await session.client.post(rpc("tools/list", {}, 7), *fields)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == origin
    assert "mcp-session-id" in reply.headers["access-control-expose-headers"]
    assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com", "169.254.169.254", "127.0.0.1.nip.io:80"])
async def test_a_rebound_name_is_refused(session: Stand, host: str) -> None:
    fields = [*session.client.in_session(), ("Host", host)]
    await refused(await session.client.post(rpc("tools/list", {}, 7), *fields), 403, -32600)
    assert session.server.requests == []


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        case("A01", "mcp.example", "https://app.example", 200, note="allowed"),
        case("A01", "mcp.example", "https://app.example:444", 403, note="port"),
        case("A01", "mcp.example", "http://app.example", 403, note="scheme"),
        case("A01", "mcp.example", "http://localhost", 403, note="loopback means nothing here"),
        pytest.param("other.example", "https://app.example", 403, id="host"),
    ],
)
async def test_a_public_listener_has_its_own_lists(host: str, origin: str, status: int) -> None:
    endpoint = EndpointOptions(
        allow_hosts=frozenset({"mcp.example"}), allow_origins=frozenset({"https://app.example"})
    )
    async with stand(host="0.0.0.0", endpoint=endpoint) as rig:
        fields = [*routing("tools/list"), ("Host", host), ("Origin", origin)]
        reply = await rig.client.post(modern("tools/list"), *fields)
        assert reply.status == status
        assert len(rig.server.requests) == (status == 200)


async def test_a_preflight(session: Stand) -> None:
    reply = await session.client.request(
        "OPTIONS",
        [
            ("Origin", "http://localhost:1234"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "Content-Type, Mcp-Param-Region, X-Other"),
        ],
    )
    assert reply.status == 204
    assert reply.headers["access-control-allow-origin"] == "http://localhost:1234"
    assert {"GET", "POST", "DELETE"} <= set(reply.headers["access-control-allow-methods"].split(", "))
    allowed = set(reply.headers["access-control-allow-headers"].split(", "))
    assert {"authorization", "content-type", "accept", "last-event-id", "mcp-session-id"} <= allowed
    assert {"mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region"} <= allowed
    assert "x-other" not in allowed
    assert session.server.requests == []


async def test_options_without_a_page_is_no_preflight(session: Stand) -> None:
    assert (await session.client.request("OPTIONS")).status == 405

"""A Redis that can never work is told of at the start, in one line that says what to do and tells no secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from shadowcat.core.ledger import SessionChange
from shadowcat.errors import StoreUnusable
from shadowcat.stores.redis import RedisFailed, RedisLimits, RedisStore
from tests.faults.wire import wire_to
from tests.http.kit import Certificates
from tests.rig.redis_server import RedisServer, redis_server

PASSWORD = "hunter2-hunter2"
OPENING = SessionChange("a", 1, is_whole=True, record=b"record")
SHORT = RedisLimits(connect_s=0.2, reply_s=0.2)


async def why_unusable(url: str, limits: RedisLimits | None = None) -> str:
    async with aclosing(RedisStore(url, limits)) as store:
        with pytest.raises(StoreUnusable) as raised:
            await store.check()
    assert "\n" not in str(raised.value)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@asynccontextmanager
async def speaking(said: bytes) -> AsyncIterator[int]:
    """A server that says that, whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1024):
                writer.write(said)
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def tls_server(directory: Path, issued: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(
        directory,
        port="0",
        tls_port="0",
        tls_cert_file=str(issued / "server.pem"),
        tls_key_file=str(issued / "server.key"),
        tls_auth_clients="no",
    ) as server:
        await server.ask("CONFIG", "SET", "tls-port", server.port)
        yield server


@pytest.fixture
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates")
    Certificates.issue(directory)
    return directory


async def test_a_redis_that_works_is_fine(redis: RedisServer) -> None:
    for url in (redis.url, redis.socket_url):
        async with aclosing(RedisStore(url)) as store:
            await store.check()
            await store.check()
            assert not await store.write([OPENING])


async def test_nothing_is_opened_before_it_has_to_be(redis: RedisServer) -> None:
    async with wire_to(redis.port) as wire, aclosing(RedisStore(f"redis://127.0.0.1:{wire.port}")) as store:
        assert not await store.write([])
        assert wire.accepted == 0
        await store.read("a")
        await store.read("a")
        assert wire.accepted == 1


async def test_a_password_opens(tmp_path: Path) -> None:
    async with redis_server(tmp_path, requirepass=PASSWORD) as server:
        for url in (
            f"redis://:{PASSWORD}@127.0.0.1:{server.port}",
            f"redis://default:{PASSWORD}@127.0.0.1:{server.port}/3",
            f"redis+unix://:{PASSWORD}@{server.socket}",
        ):
            async with aclosing(RedisStore(url)) as store:
                await store.check()
                await store.remove("a")


async def test_a_wrong_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with redis_server(tmp_path, requirepass="another") as server:
        why = await why_unusable(f"redis://:{PASSWORD}@127.0.0.1:{server.port}")
        assert why == f"redis at 127.0.0.1:{server.port}: it refuses the user name or password in its URL"
        assert "wants a password" in await why_unusable(server.url)
    assert PASSWORD not in caplog.text


async def test_nobody_there(redis: RedisServer) -> None:
    await redis.kill()
    assert "refused" in (await why_unusable(redis.url)).lower()
    redis.socket.unlink()
    assert str(redis.socket) in await why_unusable(redis.socket_url)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not Redis", id="http"),
        pytest.param(b"+OK\r\n" * 4, "what answers there is not Redis", id="yes-to-all"),
        pytest.param(b"*many\r\n", "what answers there is not Redis", id="no-number"),
        pytest.param(b"x" * 200_000, "what answers there is not Redis", id="no-line"),
        pytest.param(b"", "no answer in time", id="silent"),
        pytest.param(b"-ERR unknown command `HELLO`, with args\r\n", "is too old: Redis 6.2", id="redis-5"),
        pytest.param(
            b"%4\r\n$7\r\nversion\r\n$5\r\n6.0.9\r\n$5\r\nproto\r\n:3\r\n"
            b"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n" * 3,
            "6.0.9 is too old: Redis 6.2",
            id="redis-6.0",
        ),
        pytest.param(b"-DENIED Redis is running in protected mode\r\n", "protected mode", id="protected"),
    ],
)
async def test_something_else_there(said: bytes, why: str) -> None:
    async with speaking(said) as port:
        assert why in await why_unusable(f"redis://:{PASSWORD}@127.0.0.1:{port}", SHORT)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400\r\n\r\n", b"+OK\r\n" * 4, b"x" * 200_000])
async def test_something_that_no_password_is_sent_to(said: bytes) -> None:
    async with speaking(said) as port:
        why = await why_unusable(f"redis://127.0.0.1:{port}", SHORT)
        assert why.endswith("what answers there is not Redis")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"replicaof": "127.0.0.1 1", "replica_serve_stale_data": "yes"}, "it is a read-only replica"),
        ({"cluster_enabled": "yes"}, "Redis Cluster, which is not supported"),
    ],
)
async def test_one_that_cannot_be_written(tmp_path: Path, settings: dict[str, str], why: str) -> None:
    async with redis_server(tmp_path, **settings) as server:
        assert why in await why_unusable(server.url)


async def test_a_user_that_may_not(redis: RedisServer) -> None:
    await redis.ask("ACL", "SETUSER", "guest", "on", f">{PASSWORD}", "+hello")
    why = await why_unusable(f"redis://guest:{PASSWORD}@127.0.0.1:{redis.port}")
    assert "no permissions" in why


async def test_what_a_newer_version_wrote_is_left_alone(redis: RedisServer) -> None:
    await redis.ask("SET", "shadowcat:format", "2")
    assert "a newer version" in await why_unusable(redis.url)
    async with aclosing(RedisStore(redis.url + "?namespace=mine")) as store:
        await store.check()


async def test_namespaces_do_not_meet(redis: RedisServer) -> None:
    one, two = (RedisStore(f"{redis.url}?namespace={name}") for name in ("one", "two"))
    async with aclosing(one), aclosing(two):
        await one.write([OPENING])
        assert await two.read("a") is None
        assert await two.remove("a") is False
        await two.expire(0.0)
        assert await one.read("a") is not None


async def test_tls(tmp_path: Path, issued: Path) -> None:
    async with tls_server(tmp_path, issued) as server:
        store = RedisStore(f"rediss://127.0.0.1:{server.port}?ca_file={issued / 'ca.pem'}")
        await store.check()
        assert not await store.write([OPENING])
        assert await store.read("a") is not None
        await store.aclose()


async def test_tls_with_an_authority_nobody_trusts(tmp_path: Path, issued: Path) -> None:
    async with tls_server(tmp_path, issued) as server:
        why = await why_unusable(f"rediss://127.0.0.1:{server.port}")
        assert "TLS failed: unable to get local issuer certificate" in why
        why = await why_unusable(f"rediss://127.0.0.1:{server.port}?ca_file={issued / 'other.pem'}")
        assert "TLS failed" in why


async def test_tls_on_one_side_only(tmp_path: Path, issued: Path, redis: RedisServer) -> None:
    directory = tmp_path / "tls"
    directory.mkdir()
    async with tls_server(directory, issued) as server:
        why = await why_unusable(f"redis://127.0.0.1:{server.port}", SHORT)
        assert "if it wants TLS, its URL begins with rediss://" in why
    why = await why_unusable(f"rediss://127.0.0.1:{redis.port}", SHORT)
    assert "if it does not speak TLS, its URL begins with redis://" in why


async def test_a_closed_store_says_so(redis: RedisServer) -> None:
    store = RedisStore(redis.url)
    await store.write([OPENING])
    await store.aclose()
    with pytest.raises(RedisFailed, match="the store is closed"):
        await store.read("a")

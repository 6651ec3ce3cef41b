"""The listener itself: where it listens, how it ends, and what it does to who holds a connection."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from shadowcat import Admin
from shadowcat.admin import listener
from shadowcat.admin.options import AdminAddress, AdminOptions
from tests.admin.kit import TOKEN, watched, watched_stand
from tests.rig.client import client_of
from tests.rig.stand import stand
from tests.rig.wait import soon, until


async def test_a_port_that_is_taken() -> None:
    async with stand() as rig, watched(rig) as operator:
        with pytest.raises(OSError, match="ddress"):
            async with Admin(rig.proxy, AdminOptions(listen=AdminAddress(f":{operator.admin.port}"))):
                pass
        # Nothing is left of the attempt.
        assert (await operator.get("/health"))["is_alive"]


async def test_two_proxies_on_one_machine_do_not_clash() -> None:
    async with stand() as one, stand() as other, watched(one) as first, watched(other) as second:
        assert first.admin.port != second.admin.port
        assert first.admin.url == f"http://127.0.0.1:{first.admin.port}"


async def test_an_ipv6_address() -> None:
    async with stand() as rig:
        try:
            async with Admin(rig.proxy, AdminOptions(listen=AdminAddress("[::1]:0"))) as admin:
                assert admin.url == f"http://[::1]:{admin.port}"
                reader, writer = await asyncio.open_connection("::1", admin.port)
                writer.write(f"GET /health HTTP/1.1\r\nHost: [::1]:{admin.port}\r\n\r\n".encode())
                async with soon():
                    assert b"200" in await reader.readline()
                writer.close()
        except OSError:
            pytest.skip("there is no IPv6 here")


async def test_the_port_is_free_again_and_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with stand() as rig:
        async with Admin(rig.proxy) as admin, client_of(admin.port) as client:
            port = admin.port
            await (await client.request("GET", path="/health")).body()
            feed = await client.request("GET", path="/api/events")
            kept = await client.request("GET", path="/ready")
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", port)
        feed.close()
        kept.close()
        async with Admin(rig.proxy, AdminOptions(listen=AdminAddress(f":{port}"))):
            pass
    await until(lambda: not asyncio.all_tasks() - before)


async def test_a_request_that_never_becomes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SILENCE_S", 0.2)
    async with watched_stand() as (_, operator):
        for begun in (b"", b"GET /health HTTP/1.1\r\nHost: local"):
            reader, writer = await asyncio.open_connection("127.0.0.1", operator.admin.port)
            writer.write(begun)
            async with soon():
                assert await reader.read() == b""
            writer.close()


async def test_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 3)
    async with watched_stand() as (_, operator):
        address = ("127.0.0.1", operator.admin.port)
        held = [await asyncio.open_connection(*address) for _ in range(3)]
        for _, writer in held:
            writer.write(b"GET / HTTP/1.1\r\n")
            await writer.drain()
        # They are counted when their turn comes.
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*address)
        async with soon():
            try:
                assert await reader.read() == b""
            except ConnectionError:
                pass  # the same, more clearly
        for _, one in [*held, (reader, writer)]:
            one.close()


async def test_who_asks_on_and_reads_nothing_is_cut() -> None:
    """Not even a token is needed for that, and 100 such connections are all that there are."""
    async with watched_stand(admin={"token": TOKEN, "stall_s": 0.2}) as (_, operator):
        reader, writer = await asyncio.open_connection("127.0.0.1", operator.admin.port, limit=1)

        async def ask_on() -> None:
            while True:
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1_000)
                await writer.drain()

        # Until the sockets between are full of answers, and then for as long as it takes to be cut.
        async with soon():
            with pytest.raises(ConnectionError):
                await ask_on()
        writer.transport.abort()
        assert not reader.at_eof()


async def test_a_head_without_end() -> None:
    async with watched_stand() as (_, operator):
        reader, writer = await asyncio.open_connection("127.0.0.1", operator.admin.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        async with soon():
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.transport.abort()


async def test_signals_are_left_to_the_program() -> None:
    import signal

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with watched_stand():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_who_is_not_watched_loads_none_of_it() -> None:
    names = ["starlette", "uvicorn", "prometheus_client", "opentelemetry", "shadowcat.admin.listener"]
    code = f"import sys, shadowcat.app.reverse; print(*[name for name in {names} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""

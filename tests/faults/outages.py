"""What happens to a store while the proxy runs: each is a context, and over at its end."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tests.faults.child import Child
from tests.rig.redis_server import RedisServer
from tests.size import sized

STALL_S = sized(3.0, 10.0)


@asynccontextmanager
async def killed(redis: RedisServer) -> AsyncIterator[None]:
    await redis.kill()
    yield
    await redis.start()


@asynccontextmanager
async def emptied(redis: RedisServer) -> AsyncIterator[None]:
    await redis.ask("FLUSHALL")
    yield


@asynccontextmanager
async def stalled(redis: RedisServer) -> AsyncIterator[None]:
    """Not shorter, however fast the rest is."""
    redis.stop()
    stall = asyncio.create_task(asyncio.sleep(STALL_S))
    yield
    await stall
    redis.go_on()


@asynccontextmanager
async def out_of_memory(redis: RedisServer) -> AsyncIterator[None]:
    await redis.ask("CONFIG", "SET", "maxmemory", "1")
    yield
    await redis.ask("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def out_of_disk(path: Path, proxy: Child) -> AsyncIterator[None]:
    """No file of the process may be longer than the store's are by now, and somebody reads what the -wal file holds:
    it could be written from its beginning otherwise."""
    pid = proxy.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM clock").fetchall()
        longest = max(found.stat().st_size for found in path.parent.iterdir())
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (longest, before[1]))
        yield
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        reader.execute("ROLLBACK")


@asynccontextmanager
async def locked(path: Path, proxy: Child) -> AsyncIterator[None]:
    """By another program, for longer than it is waited for."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        stall = asyncio.create_task(asyncio.sleep(sized(3.0, 5.0)))
        yield
        await stall
        other.execute("ROLLBACK")


@asynccontextmanager
async def broken(path: Path) -> AsyncIterator[None]:
    """In its header."""
    wreck(path)
    yield


def wreck(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        # A change of somebody else's: what SQLite holds in memory counts no more, and nothing is in the log.
        other.execute("UPDATE clock SET seconds = seconds + 1")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with path.open("r+b") as file:
        file.write(b"garbage " * 16)

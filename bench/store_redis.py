"""Writing events to the Redis store: how many a second, and how long they are in Redis's memory."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import Redis

from bench.machine import Child, other_cores, program, wait_until
from bench.rounds import Spread, in_turn, print_table, ratio
from bench.store import BATCH, EVENT, EVENTS, HELD, ROUNDS, SESSIONS, batches, changes
from shadowcat.core.ledger import SessionChange
from shadowcat.stores.redis import RedisStore

T = TypeVar("T")

Measured = tuple[float, float, float, float]
"""Events a second, seconds of CPU an event here and in Redis, and bytes in its memory an event."""


def run() -> None:
    print(f"batches of {BATCH} events x {len(EVENT)} bytes over {SESSIONS} sessions, one round trip each")
    with tempfile.TemporaryDirectory() as directory, redis_server(Path(directory)) as server:
        url = f"redis+unix://{directory}/redis.sock"
        found = in_turn(
            {
                "store": partial(_measure, server, _store, url, EVENTS),
                "letting go": partial(_measure, server, _store, url, HELD),
                "plain RPUSH": partial(_measure, server, _plain, url, EVENTS),
            },
            ROUNDS,
        )
    plain = [measured[0] for measured in found["plain RPUSH"]]
    rows = [
        [
            name,
            Spread.of([measured[0] for measured in all_measured]).text(",.0f"),
            Spread.of([1e6 * measured[1] for measured in all_measured]).text(".1f"),
            Spread.of([1e6 * measured[2] for measured in all_measured]).text(".1f"),
            Spread.of([measured[3] for measured in all_measured]).text(".0f"),
            ratio([measured[0] for measured in all_measured], plain).text(),
        ]
        for name, all_measured in found.items()
    ]
    head = [
        "",
        "events/s",
        "µs of CPU here",
        "µs of CPU in Redis",
        "bytes an event",
        "RATIO of events/s to plain",
    ]
    print_table(head, rows)


Writer = Callable[[list[tuple[int, int]]], Awaitable[object]]


def _measure(server: Child, kind: Callable[[str, int], Any], url: str, held: int) -> Measured:
    return asyncio.run(_measured(server, kind(url, held), url))


async def _measured(server: Child, kind: Any, url: str) -> Measured:
    async with Redis.from_url(url.removeprefix("redis+")) as redis:
        await redis.flushall()
        before = (await redis.info("memory"))["used_memory"]
        write, close = await kind
        started, here, there = time.perf_counter(), time.process_time(), server.cpu_s()
        for batch in batches():
            await write(batch)
        spent, here, there = (
            time.perf_counter() - started,
            time.process_time() - here,
            server.cpu_s() - there,
        )
        size = (await redis.info("memory"))["used_memory"] - before
        await close()
    return EVENTS / spent, here / EVENTS, there / EVENTS, size / EVENTS


async def _store(url: str, held: int) -> tuple[Writer, Callable[[], Awaitable[None]]]:
    store = RedisStore(url)
    ids = [f"{number:032}" for number in range(SESSIONS)]
    await store.write([SessionChange(id, 1, is_whole=True, record=bytes(2_000)) for id in ids])
    return lambda batch: store.write(changes(batch, held)), store.aclose


async def _plain(url: str, _: int) -> tuple[Writer, Callable[[], Awaitable[None]]]:
    """What any store on Redis has to do at least."""
    redis = Redis.from_url(url.removeprefix("redis+"))

    async def write(batch: list[tuple[int, int]]) -> None:
        pipeline = redis.pipeline(transaction=False)
        for session, _ in batch:
            pipeline.rpush(f"{session:032}", EVENT)
        await pipeline.execute()

    return write, redis.aclose


@contextmanager
def redis_server(directory: Path) -> Iterator[Child]:
    path = directory / "redis.sock"
    arguments = ["--port", "0", "--unixsocket", str(path), "--dir", str(directory), "--save", ""]
    with Child([program("redis-server"), *arguments], on=other_cores()) as child:
        wait_until("redis-server", lambda: _answers(path), child)
        yield child


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True

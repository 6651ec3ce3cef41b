"""A client that comes back to a proxy just started on a store with 1,000 sessions and 100,000 events.

From the start of the process, and from the client's GET, to the last of its 100 events. Beside it the second time that
it comes: the session is in memory then, as it would be if there had been no restart.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.machine import CannotMeasure, Child, on_cores, other_cores
from bench.reverse import start
from bench.rounds import Spread, print_table, ratio
from shadowcat.clock import SystemClock
from shadowcat.core.ports import SessionStore
from shadowcat.stores.sqlite import SqliteStore
from tests.faults.filling import EPOCH, fill, filled_id

SESSIONS, EVENTS = 1_000, 100_000
_ROUNDS = 9
_READ = 1024 * 1024
_DEADLINE_S = 30.0


class _Found(NamedTuple):
    started_s: float
    """From the start of the process to the last event."""
    first_ms: float
    second_ms: float


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        url = f"http://127.0.0.1:{upstream.read_line()}/mcp"
        path = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-"))) / "sessions.db"
        )
        asyncio.run(_fill(SqliteStore(path, SystemClock())))
        stack.enter_context(on_cores(other_cores()))
        # The first one finds nothing in the caches of the system.
        found = [_measure(url, f"sqlite:///{path}", number) for number in range(1 + _ROUNDS)][1:]
    first, second = [one.first_ms for one in found], [one.second_ms for one in found]
    print_table(
        [f"{SESSIONS:,} sessions, {EVENTS:,} events", "to the last of 100 events"],
        [
            ["from the start, s", Spread.of([one.started_s for one in found]).text()],
            ["out of the store, ms", Spread.of(first).text()],
            ["out of memory, ms", Spread.of(second).text()],
        ],
    )
    print_table(["RATIO", "time"], [["store : memory", ratio(first, second).text()]])


async def _fill(store: SessionStore) -> None:
    await fill(store, SESSIONS, EVENTS // SESSIONS)
    await store.aclose()


def _measure(upstream: str, store: str, number: int) -> _Found:
    started = time.perf_counter()
    proxy, port = start(f"numbers={upstream}", "--store", store)
    with proxy:
        session = filled_id(number)
        first_ms = _resume_ms(port, session)
        started_s = time.perf_counter() - started
        return _Found(started_s, first_ms, _resume_ms(port, session))


def _resume_ms(port: int, session: str) -> float:
    request = (
        "GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
        f"Mcp-Session-Id: {session}\r\nLast-Event-ID: {EPOCH}.1.0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as connection:
        started = time.perf_counter()
        connection.sendall(request.encode())
        answer = bytearray()
        while b'"result"' not in answer[-256:]:
            data = connection.recv(_READ)
            if not data:
                raise CannotMeasure(f"the stream ended after {bytes(answer[:100])!r}")
            answer += data
        spent_s = time.perf_counter() - started
    events = answer.count(b"\nevent: message")
    if events != EVENTS // SESSIONS:
        raise CannotMeasure(f"{events} events came, {EVENTS // SESSIONS} were missed")
    return spent_s * 1e3

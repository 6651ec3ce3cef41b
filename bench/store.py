"""Writing events to the SQLite store: how many a second, and how long they are in the file."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from bench.rounds import Spread, in_turn, print_table, ratio
from shadowcat.clock import SystemClock
from shadowcat.core.ledger import SessionChange, StreamChange
from shadowcat.stores import sqlite_file
from shadowcat.stores.sqlite_ledger import SqliteLedger

T = TypeVar("T")

ROUNDS = 5
EVENTS = 50_000
BATCH = 50
SESSIONS = 32
EVENT = os.urandom(100).hex().encode()
"""On one line, as every event is that the proxy stores."""
HELD = 300
"""So many events of a stream are held; the session lets go of those before them."""


def run() -> None:
    print(f"batches of {BATCH} events x {len(EVENT)} bytes over {SESSIONS} sessions, one transaction each")
    found = in_turn({"store": _store, "letting go": _letting_go, "one plain table": _plain}, ROUNDS)
    plain = [rate for rate, _, _ in found["one plain table"]]
    rows = [
        [
            name,
            Spread.of([rate for rate, _, _ in measured]).text(",.0f"),
            Spread.of([1e6 * cpu for _, cpu, _ in measured]).text(".1f"),
            Spread.of([size for _, _, size in measured]).text(".0f"),
            ratio([rate for rate, _, _ in measured], plain).text(),
        ]
        for name, measured in found.items()
    ]
    print_table(["", "events/s", "µs of CPU an event", "bytes an event", "RATIO of events/s to plain"], rows)


Measured = tuple[float, float, float]
"""Events a second, seconds of CPU an event, and bytes in the file an event."""


def _store() -> Measured:
    return _ledger(EVENTS)


def _letting_go() -> Measured:
    return _ledger(HELD)


def _ledger(held: int) -> Measured:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sessions.db"
        with closing(SqliteLedger(sqlite_file.open_file(path), SystemClock())) as ledger:
            ledger.write(
                [
                    SessionChange(f"{number:032}", 1, is_whole=True, record=bytes(2_000))
                    for number in range(SESSIONS)
                ]
            )
            return _measure(path, ledger.write, [changes(batch, held) for batch in batches()])


def _plain() -> Measured:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "plain.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for statement in (
                "PRAGMA journal_mode = WAL",
                "PRAGMA synchronous = NORMAL",
                "CREATE TABLE event (session INTEGER, seq INTEGER, data BLOB)",
            ):
                db.execute(statement).fetchall()

            def write(rows: list[tuple[int, int, bytes]]) -> None:
                db.execute("BEGIN")
                db.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
                db.execute("COMMIT")

            return _measure(path, write, [[(*event, EVENT) for event in batch] for batch in batches()])


def _measure(path: Path, write: Callable[[T], object], batches: list[T]) -> Measured:
    started, started_cpu = time.perf_counter(), time.thread_time()
    for batch in batches:
        write(batch)
    spent, cpu = time.perf_counter() - started, time.thread_time() - started_cpu
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint").fetchall()
    return EVENTS / spent, cpu / EVENTS, path.stat().st_size / EVENTS


def batches() -> Iterator[list[tuple[int, int]]]:
    """Of pairs of a session and a number in its stream."""
    for start in range(0, EVENTS, BATCH):
        yield [(at % SESSIONS, at // SESSIONS + 1) for at in range(start, start + BATCH)]


def changes(batch: list[tuple[int, int]], held: int) -> list[SessionChange]:
    seqs: dict[int, list[int]] = {}
    for session, seq in batch:
        seqs.setdefault(session, []).append(seq)
    return [
        SessionChange(
            f"{session:032}",
            1,
            streams=[
                StreamChange(
                    1, b"cursor-%d" % found[-1], max(1, found[-1] - held), found[0], [EVENT] * len(found)
                )
            ],
        )
        for session, found in seqs.items()
    ]

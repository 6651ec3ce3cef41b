"""The SQLite store when its process is killed, its file broken, locked or gone, and its disk full."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import resource
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from shadowcat.clock import SystemClock
from shadowcat.core.ledger import Refusal, SessionChange, StoredSession, StoredStream, StreamChange
from shadowcat.errors import StoreUnusable
from shadowcat.stores import sqlite_file
from shadowcat.stores.sqlite import SqliteFile, SqliteStore
from shadowcat.stores.sqlite_ledger import SqliteLedger
from tests.faults.child import Child, child
from tests.rig.wait import soon
from tests.stores import writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    await store.aclose()


def opening(session_id: str = "a", *events: bytes) -> SessionChange:
    streams = [StreamChange(1, b"head", 1, 1, events)]
    return SessionChange(session_id, 1, is_whole=True, record=b"record", streams=streams)


LATER = SessionChange("a", 1, record=b"later")
MANY = [b"%200d" % number for number in range(20_000)]


# Its process is killed.


async def test_a_killed_process_leaves_whole_changes(path: Path) -> None:
    chance = random.Random(32)
    last = 0
    for _ in range(8):
        async with child(Child, "-m", "tests.stores.writer", str(path), str(last + 1)) as found:
            acknowledged = last
            for _ in range(chance.randint(1, 150)):
                acknowledged = int(await found.line())
            # Somewhere in the batch that follows.
            await asyncio.sleep(chance.random() / 1_000)
            await found.kill()
        last = await whole_to(path)
        assert last >= acknowledged
    assert last > 8


async def whole_to(path: Path) -> int:
    """The number that everything in the file says."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = SqliteStore(path)
    numbers: set[int] = set()
    for session_id in writer.SESSIONS:
        found = await store.read(session_id)
        assert found is not None
        last = int(found.record)
        numbers.add(last)
        for stream in found.streams:
            assert int(stream.head) == last
            assert stream.first_seq == max(1, last - writer.HELD + 1)
            assert [int(event) for event in stream.events] == list(range(stream.first_seq, last + 1))
        assert len(found.streams) == 2 or last == 0
    await store.aclose()
    assert len(numbers) == 1, "a batch is one transaction"
    return numbers.pop()


# Its file is broken.


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def without_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"garbage " * 16)


def scribbled(path: Path) -> None:
    """In the middle; and in the first pages, for what is read at the start."""
    with path.open("r+b") as file:
        size = path.stat().st_size
        for at in (5_000, *range(size // 4, size - 50_000, 50_000)):
            file.seek(at)
            file.write(random.Random(at).randbytes(9_000))


@pytest.mark.parametrize("wreck", [truncated, without_header, scribbled])
async def test_a_broken_file_is_set_aside_at_start(
    path: Path, wreck: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Even if what is asked for is in order."""
    store = SqliteStore(path)
    await store.write([opening("a", *MANY), opening("b")])
    await store.aclose()
    wreck(path)
    store = SqliteStore(path)
    with caplog.at_level(logging.ERROR, "shadowcat"):
        assert await store.read("b") is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "is moved to sessions.db.corrupt-1" in caplog.text
    assert len(content(path.with_name("sessions.db.corrupt-1"))) > 1_000_000
    assert await store.write([LATER, opening("b")]) == {"a": Refusal.MISSING}
    await store.aclose()


@pytest.mark.parametrize("wreck", [truncated, scribbled])
async def test_a_file_that_breaks_is_set_aside_at_run_time(
    store: SqliteStore, path: Path, wreck: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Its content is more than SQLite keeps in memory."""
    await store.write([opening("a", *MANY)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    wreck(path)
    with caplog.at_level(logging.ERROR, "shadowcat"):
        assert await store.read("a") is None
    assert len(caplog.records) == 1
    assert await store.write([LATER, opening("b")]) == {"a": Refusal.MISSING}
    assert not await store.write([opening("a", b"1")])
    found = await store.read("a")
    assert found is not None
    assert found.streams[0].events == (b"1",)


def read(store: SqliteStore) -> Awaitable[object]:
    return store.read("a")


def listed(store: SqliteStore) -> Awaitable[object]:
    return store.sessions("", 10)


@pytest.mark.parametrize(
    ("tear", "look"),
    [
        ("DELETE FROM event WHERE number = 2", read),
        ("DELETE FROM event WHERE number = 2", listed),
        ("DELETE FROM event", listed),
        ("UPDATE event SET data = substr(data, 1, 5) WHERE number = 2", read),
        ("UPDATE event SET count = 0 WHERE number = 2", read),
        ("UPDATE event SET previous = number, count = -1 WHERE number = 2", read),
    ],
)
async def test_a_torn_stream_is_set_aside(
    store: SqliteStore,
    path: Path,
    tear: str,
    look: Callable[[SqliteStore], Awaitable[object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SQLite finds nothing wrong with it."""
    await store.write([opening("a", *MANY[:10])])
    for first in (11, 21):
        more = StreamChange(1, b"head", 1, first, MANY[:10])
        await store.write([SessionChange("a", 1, streams=[more])])
    with closing(sqlite3.connect(path)) as db:
        db.execute(tear)
        db.commit()
    with caplog.at_level(logging.ERROR, "shadowcat"):
        assert not await look(store)
    assert len(caplog.records) == 1
    assert path.with_name("sessions.db.corrupt-1").exists()


GARBAGE = bytes(range(128, 256))


async def test_what_is_no_database_is_set_aside(store: SqliteStore, path: Path) -> None:
    path.write_bytes(GARBAGE)  # noqa: ASYNC240 - nothing else runs
    await store.check()
    assert not await store.write([opening()])
    assert content(path.with_name("sessions.db.corrupt-1")) == GARBAGE


async def test_each_broken_file_gets_a_name_of_its_own(path: Path) -> None:
    for number in (1, 2, 3):
        store = SqliteStore(path)
        await store.write([opening()])
        await store.aclose()
        without_header(path)
        store = SqliteStore(path)
        assert await store.read("a") is None
        await store.aclose()
        assert path.with_name(f"sessions.db.corrupt-{number}").exists()


async def test_another_process_may_have_set_the_file_aside(store: SqliteStore, path: Path) -> None:
    await store.write([opening()])
    sqlite_file.set_aside(path, "a test")
    other = SqliteStore(path)
    await other.write([opening("b", b"1")])
    assert await store.write([LATER]) == {"a": Refusal.MISSING}
    await store.write([opening("a", b"1")])
    await store.aclose()
    assert [found.session_id for found in await other.sessions("", 10)] == ["a", "b"]
    await other.aclose()


def test_only_the_broken_file_is_set_aside(path: Path) -> None:
    """Not the one that another process has put in its place meanwhile."""
    file = SqliteFile(path, SystemClock())
    used: list[SqliteLedger] = []

    def breaks(ledger: SqliteLedger) -> int:
        used.append(ledger)
        if len(used) == 1:
            sqlite_file.set_aside(path, "a test")
            sqlite_file.open_file(path).close()
            raise sqlite_file.broken("a test")
        return len(used)

    assert file.use(breaks) == 2
    file.close()
    assert sorted(path.parent.glob("*.corrupt-?")) == [path.with_name("sessions.db.corrupt-1")]


async def test_many_may_begin_a_file_at_the_same_time(path: Path) -> None:
    """Some may find it locked at that moment, and try again."""
    stores = [SqliteStore(path) for _ in range(6)]
    changes = [opening(f"{number}") for number in range(6)]
    first = await asyncio.gather(
        *(store.write([change]) for store, change in zip(stores, changes, strict=True)),
        return_exceptions=True,
    )
    assert {str(failure) for failure in first if failure} <= {f"{path}: database is locked"}
    for store, change in zip(stores, changes, strict=True):
        assert not await store.write([change])
    assert len(await stores[0].sessions("", 10)) == 6
    for store in stores:
        await store.aclose()


async def test_a_file_that_is_deleted_is_begun_anew(store: SqliteStore, path: Path) -> None:
    await store.write([opening()])
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    assert await store.read("a") is None
    assert await store.write([LATER, opening("b")]) == {"a": Refusal.MISSING}
    await store.write([opening()])
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM session ORDER BY id").fetchall() == [("a",), ("b",)]


def content(path: Path) -> bytes:
    return path.read_bytes()


# Its file is not for it.


def newer(path: Path) -> None:
    with closing(sqlite_file.open_file(path)) as db:
        db.execute("PRAGMA user_version = 99")


def newer_in_its_log(path: Path) -> None:
    """As a newer release leaves it that was killed: the header in the file itself is an older one."""
    with closing(sqlite_file.open_file(path)) as db:
        db.execute("PRAGMA user_version = 99")
        beside = {found: found.read_bytes() for found in path.parent.iterdir()}
    for found, content in beside.items():
        found.write_bytes(content)


def foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE bookmark (url TEXT)")


def text(path: Path) -> None:
    path.write_text("name = 'of somebody else'\n")


def long_text(path: Path) -> None:
    path.write_text("\N{SNOWMAN}" * 1_000, "utf-8")


REFUSED = [
    (newer, "version 99, and this release knows"),
    (foreign, "of another program"),
    (text, "is no database"),
    (long_text, "is no database"),
]


@pytest.mark.parametrize(("make", "why"), REFUSED)
async def test_a_file_that_is_not_for_us_is_left_alone(
    store: SqliteStore, path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(path)
    before = {found.name: found.read_bytes() for found in path.parent.iterdir()}
    for call in (store.check(), store.write([opening()]), store.read("a"), store.expire(0.0)):
        with pytest.raises(StoreUnusable, match=why):
            await call
    await store.aclose()
    assert {found.name: found.read_bytes() for found in path.parent.iterdir()} == before


async def test_a_newer_version_is_seen_in_the_log_too(store: SqliteStore, path: Path) -> None:
    newer_in_its_log(path)
    with pytest.raises(StoreUnusable, match="version 99"):
        await store.write([opening()])


# Its place is not for it.


@contextmanager
def as_nobody() -> Iterator[None]:
    """Nothing is forbidden to root."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def closed_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "old.db").touch(0o400)
        directory.chmod(0o555)
        yield directory
        directory.chmod(0o755)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        pytest.param("new.db", "no file can be made in", id="file"),
        pytest.param("one/two/new.db", "no file can be made in", id="directory"),
        pytest.param("old.db", "cannot be read and written", id="old"),
        pytest.param("old.db/new.db", "is not a directory", id="under-a-file"),
        pytest.param("", "is a directory", id="directory-itself"),
    ],
)
async def test_a_place_that_cannot_be_written_is_refused(
    closed_directory: Path, place: str, why: str
) -> None:
    store = SqliteStore(closed_directory / place)
    with as_nobody(), pytest.raises(StoreUnusable, match=why):
        await store.check()
    with as_nobody(), pytest.raises(OSError, match=r"denied|directory|exists"):
        await store.write([opening()])
    await store.aclose()


async def test_a_place_where_the_system_lets_nobody_write_is_refused() -> None:
    store = SqliteStore(Path("/proc/one/new.db"))
    with pytest.raises(StoreUnusable, match="no file can be made in /proc: No such file"):
        await store.check()
    await store.aclose()


async def test_a_place_that_cannot_be_looked_into_is_refused(closed_directory: Path) -> None:
    closed_directory.chmod(0)  # noqa: ASYNC240 - nothing else runs
    store = SqliteStore(closed_directory / "state" / "sessions.db")
    with as_nobody(), pytest.raises(StoreUnusable, match="cannot be reached"):
        await store.check()
    await store.aclose()


# Others are in its way.


async def test_a_file_that_somebody_holds_is_waited_for_so_long(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not by the event loop."""
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.2)
    await store.write([opening()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store.write([LATER]))
        turns = 0
        while not writing.done():
            await asyncio.sleep(0.001)
            turns += 1
        with pytest.raises(OSError, match="locked"):
            await writing
        assert turns > 10
        writing = asyncio.create_task(store.write([LATER]))
        await asyncio.sleep(0)
        other.execute("COMMIT")
    async with soon():
        assert not await writing


async def test_calls_that_wait_behind_one_may_be_given_up(store: SqliteStore, path: Path) -> None:
    await store.write([opening()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        calls = [asyncio.create_task(store.write([opening(f"{number}")])) for number in range(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.wait(calls[::2])
        other.execute("COMMIT")
    async with soon():
        await asyncio.gather(*calls, return_exceptions=True)
        held = {found.session_id for found in await store.sessions("", 100)}
    # The first may have been under way.
    assert held - {"0"} == {"a", *(f"{number}" for number in range(1, 20, 2))}


# Its disk is full.


def longest_file(path: Path) -> Path:
    return max(path.parent.iterdir(), key=lambda found: found.stat().st_size)


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """For files longer than the store's are by now. Python ignores the signal that goes with it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    longest = longest_file(path).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest + 4_096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_costs_only_what_was_not_written(store: SqliteStore, path: Path) -> None:
    await store.write([opening("a", b"1"), opening("b", *MANY[:5_000])])
    more = SessionChange("a", 1, record=b"later", streams=[StreamChange(1, b"newer", 1, 2, MANY[:5_000])])
    with no_room(path), pytest.raises(OSError, match=r"I/O|full"):
        await store.write([LATER, more])
    found = await store.read("a")
    assert found == StoredSession("a", 1, b"record", 1, [StoredStream(1, b"head", 1, (b"1",))])
    assert not await store.write([more])
    found = await store.read("a")
    assert found is not None
    assert (found.record, len(found.streams[0].events)) == (b"later", 5_001)
    await store.aclose()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_what_fills_the_disk_by_itself_is_emptied(store: SqliteStore, path: Path) -> None:
    """Everything is written to the -wal file first, also what deletes."""
    for _ in range(20):
        await store.write([opening("a", *MANY[:1_000])])
    assert longest_file(path).name == "sessions.db-wal"
    with no_room(path):
        with pytest.raises(OSError, match=r"I/O|full"):
            await store.write([opening("b", *MANY[:1_000])])
        assert not await store.write([opening("b", *MANY[:100])])
        assert await store.remove("a")


async def test_a_disk_that_is_full_from_the_start_leaves_nothing_half_made(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = SqliteStore(path)
    for room in (0, 2_000, 10_000, 40_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            with pytest.raises(OSError, match=r"I/O|full"):
                await store.write([opening("a", *MANY)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not await store.write([opening("a", *MANY)])
    await store.aclose()
    assert [found.name for found in path.parent.iterdir()] == ["sessions.db"]

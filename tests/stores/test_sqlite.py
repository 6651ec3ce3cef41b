from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from shadowcat.clock import ManualClock
from shadowcat.core.ledger import Refusal, SessionChange, StreamChange
from shadowcat.stores import sqlite_file
from shadowcat.stores.memory import ENDED_S, MAX_ENDED
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.testing import StoreContract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.db"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store(path: Path, clock: ManualClock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, clock)
    yield store
    await store.aclose()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make_store(self, path: Path, clock: ManualClock) -> Callable[[], SqliteStore]:
        self.clock = clock
        return lambda: SqliteStore(path, clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


def opening(session_id: str = "a", *events: bytes) -> SessionChange:
    return SessionChange(session_id, 1, is_whole=True, record=b"record", streams=[stream(1, *events)])


def stream(next_seq: int, *events: bytes, first_seq: int = 1) -> StreamChange:
    return StreamChange(1, b"head", first_seq, next_seq, events)


# Files.


async def test_looking_makes_no_file(store: SqliteStore, path: Path) -> None:
    await store.check()
    assert await store.read("a") is None
    assert await store.claim("a", "one") is None
    assert list(await store.sessions("", 10)) == []
    assert await store.remove("a") is False
    await store.renew("one", 60.0)
    await store.expire(60.0)
    assert not path.parent.exists()
    assert list(path.parent.parent.iterdir()) == []


async def test_nobody_else_may_read_the_files(store: SqliteStore, path: Path) -> None:
    mask = os.umask(0)
    try:
        await store.write([opening()])
    finally:
        os.umask(mask)
    modes = {found.name: found.stat().st_mode & 0o777 for found in [path.parent, *path.parent.iterdir()]}
    assert modes == {"state": 0o700, "sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}
    await store.check()


async def test_one_file_is_left_behind(store: SqliteStore, path: Path) -> None:
    await store.write([opening()])
    await store.aclose()
    assert [found.name for found in path.parent.iterdir()] == ["sessions.db"]


async def test_a_closed_store_says_so(store: SqliteStore) -> None:
    await store.aclose()
    with pytest.raises(RuntimeError, match="shutdown"):
        await store.read("a")


async def test_an_older_file_is_brought_up_to_date(path: Path) -> None:
    with closing(sqlite_file.open_file(path)) as db:
        db.execute("INSERT INTO ended VALUES (1, 'a', 5)")
        more = (*sqlite_file.STEPS, ("ALTER TABLE ended ADD COLUMN why TEXT", "UPDATE ended SET why = 'old'"))
        sqlite_file.migrate(db, more)
        sqlite_file.migrate(db, more)
        assert db.execute("SELECT * FROM ended").fetchall() == [(1, "a", 5, "old")]
        assert db.execute("PRAGMA user_version").fetchone() == (len(more),)


async def test_a_file_of_version_1_is_read_trimmed_and_added_to(path: Path, clock: ManualClock) -> None:
    events = [b"1\n", b"", b"3", b"4"]
    with closing(version_1(path)) as db:
        db.execute("INSERT INTO session VALUES (1, 'a', 1, '', 1, 1, x'00')")
        db.execute("INSERT INTO stream VALUES (1, 1, 1, 5, 7, 4, x'01')")
        # Events of another stream lie between them.
        rows = [(number, number - 2, data) for number, data in zip((1, 3, 5, 7), events, strict=True)]
        db.executemany("INSERT INTO event VALUES (?, ?, ?)", rows)
        db.commit()
    store = SqliteStore(path, clock)
    found = await store.read("a")
    assert found is not None
    assert found.streams == [(1, b"\1", 1, tuple(events))]
    (summary,) = await store.sessions("", 10)
    assert (summary.events, summary.event_bytes) == (4, 4)
    await store.write([SessionChange("a", 1, streams=[stream(5, b"5", b"6", first_seq=3)])])
    await store.expire(60.0)
    found = await store.read("a")
    assert found is not None
    assert found.streams == [(1, b"head", 3, (b"3", b"4", b"5", b"6"))]
    assert events_in(path) == 4
    await store.aclose()


def version_1(path: Path) -> sqlite3.Connection:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("PRAGMA page_size = 4096")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    sqlite_file.migrate(db, sqlite_file.STEPS[:1])
    return db


async def test_a_file_keeps_the_length_of_its_pages(path: Path) -> None:
    """Also of an older file the -wal grows as long, whatever SQLite counts in."""
    with closing(version_1(path)):
        pass
    for file, page_bytes in ((path, 4_096), (path.with_name("new.db"), sqlite_file.PAGE_BYTES)):
        with closing(sqlite_file.open_file(file)) as db:
            assert db.execute("PRAGMA page_size").fetchone() == (page_bytes,)
            (pages,) = db.execute("PRAGMA wal_autocheckpoint").fetchone()
            assert pages * page_bytes == sqlite_file.CHECKPOINT_BYTES


@pytest.mark.parametrize(("room", "longest"), [(8_000_000, 2_000_000), (0, 2**20), (10**12, 24 * 2**20)])
async def test_the_wal_file_leaves_room_for_what_it_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch, room: int, longest: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, room))  # type: ignore[attr-defined]
    with closing(sqlite_file.open_file(path)) as db:
        (pages,) = db.execute("PRAGMA wal_autocheckpoint").fetchone()
        assert pages == longest // sqlite_file.PAGE_BYTES
        (limit,) = db.execute("PRAGMA journal_size_limit").fetchone()
        assert limit == min(sqlite_file.WAL_BYTES, 2 * longest)


async def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    with closing(sqlite_file.open_file(path)) as db:
        with pytest.raises(sqlite3.OperationalError):
            sqlite_file.migrate(db, (*sqlite_file.STEPS, ("DROP TABLE ended", "DROP TABLE nothing")))
        assert db.execute("SELECT count(*) FROM ended").fetchone() == (0,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(sqlite_file.STEPS),)


# Time.


async def test_an_end_is_remembered_for_an_hour(store: SqliteStore, clock: ManualClock) -> None:
    await store.write([opening(), SessionChange("a", 1, ends=True)])
    clock.advance(ENDED_S - 1)
    assert await store.write([opening()]) == {"a": Refusal.ENDED}
    clock.advance(1)
    await store.expire(60.0)
    assert not await store.write([opening()])


async def test_so_many_ends_are_remembered(store: SqliteStore) -> None:
    await store.write([SessionChange(f"{number}", 1, ends=True) for number in range(MAX_ENDED + 1)])
    refused = await store.write([SessionChange(name, 1, is_whole=True) for name in ("0", "1")])
    assert refused == {"1": Refusal.ENDED}


async def test_a_jump_of_the_wall_clock_expires_nothing(store: SqliteStore, clock: ManualClock) -> None:
    await store.write([opening()])
    for jump in (7_200, -14_400):
        clock.jump_wall(jump)
        await store.expire(1_800.0)
    assert await store.read("a") is not None
    clock.advance(1_800)
    await store.expire(1_800.0)
    assert await store.read("a") is None


async def test_only_the_time_that_the_store_is_open_counts(path: Path) -> None:
    for minute in range(30):
        # Each process has a monotonic clock of its own.
        clock = ManualClock(monotonic=5_000.0 * (minute % 3))
        store = SqliteStore(path, clock)
        if minute == 0:
            await store.write([opening()])
        assert await store.read("a") is not None
        clock.advance(60)
        await store.expire(1_800.0)
        await store.aclose()
    assert await SqliteStore(path, clock).read("a") is None


async def test_two_that_have_the_file_open_agree_on_the_time(path: Path, clock: ManualClock) -> None:
    first, late = SqliteStore(path, clock), ManualClock(monotonic=0.0)
    await first.write([opening("a"), opening("b")])
    second = SqliteStore(path, late)
    assert await second.read("a") is not None
    clock.advance(1_000)
    await first.write([SessionChange("a", 1, record=b"newer")])
    late.advance(1)
    await second.expire(900.0)
    assert [found.session_id for found in await second.sessions("", 10)] == ["a"]
    late.advance(900)
    await second.expire(900.0)
    assert list(await second.sessions("", 10)) == []
    await first.aclose()
    await second.aclose()


# Room.


async def test_what_was_let_go_of_leaves_room_for_what_comes(store: SqliteStore, path: Path) -> None:
    """120 events of 1,000 bytes are held at any time, of 48,000 written."""
    events = [bytes(1_000)] * 20
    await store.write([opening("a"), opening("b")])
    sizes: list[int] = []
    for start in range(1, 12_001, 20):
        first_seq = max(1, start - 20)
        await store.write(
            [
                SessionChange(session_id, 1, streams=[stream(start, *events, first_seq=first_seq)])
                for session_id in ("a", "b")
            ]
        )
        await store.write([opening("c", *events), SessionChange("c", 1, dropped=[1])])
        await store.write([opening("d", *events, *events)])
        if start % 1_000 == 1:
            assert events_in(path) == kept(path)
            await store.expire(60.0)
            assert events_in(path) == kept(path)
            sizes.append(size(path))
    assert max(sizes) < 700_000
    assert size(path.with_name("sessions.db-wal")) <= sqlite_file.WAL_BYTES
    for session_id in "abcd":
        await store.remove(session_id)
    await store.expire(60.0)
    await store.aclose()
    assert size(path) < 10 * sqlite_file.PAGE_BYTES


async def test_the_dead_are_gone_after_a_sweep(store: SqliteStore, path: Path) -> None:
    await store.write([opening("a", *[b"event"] * 19)])
    await store.write([SessionChange("a", 1, streams=[stream(20, *[b"event"] * 21)])])
    await store.write([SessionChange("a", 1, streams=[stream(41, first_seq=20)])])
    assert events_in(path) == 40
    await store.expire(60.0)
    assert events_in(path) == 21
    await store.write([SessionChange("a", 1, streams=[stream(41, b"last", first_seq=39)])])
    found = await store.read("a")
    assert found is not None
    assert found.streams == [(1, b"head", 39, (b"event", b"event", b"last"))]
    await store.write([SessionChange("a", 1, streams=[stream(42, first_seq=42)])])
    assert events_in(path) == 0


async def test_a_row_stays_for_as_long_as_one_of_its_events_is_held(store: SqliteStore, path: Path) -> None:
    await store.write([opening("a", *[b"%d" % number for number in range(1, 41)])])
    for first_seq in (7, 40):
        await store.write([SessionChange("a", 1, streams=[stream(41, first_seq=first_seq)])])
        await store.expire(60.0)
        held = tuple(b"%d" % number for number in range(first_seq, 41))
        found = await store.read("a")
        assert found is not None
        assert found.streams == [(1, b"head", first_seq, held)]
        (summary,) = await store.sessions("", 10)
        assert (summary.events, summary.event_bytes) == (len(held), sum(map(len, held)))
        assert events_in(path) == 40
    await store.write([SessionChange("a", 1, streams=[stream(41, b"41", first_seq=41)])])
    await store.expire(60.0)
    assert events_in(path) == 1


def size(path: Path) -> int:
    return path.stat().st_size


def kept(path: Path) -> int:
    """How long the chains of events are, as the streams have it."""
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("SELECT sum(kept) FROM stream").fetchone()
    return found


def events_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (found,) = db.execute("SELECT coalesce(sum(count), 0) FROM event").fetchone()
    return found


async def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    store = SqliteStore(str(tmp_path / "sessions.db"))
    await store.check()
    await store.aclose()

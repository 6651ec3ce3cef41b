"""The file of an SQLite store: checks it, creates it, updates it, and sets it aside when it is broken."""

from __future__ import annotations

import codecs
import logging
import os
import shutil
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from shadowcat.errors import StoreUnusable

log = logging.getLogger("shadowcat.store")

APPLICATION_ID = 0x53484341
"""Says that a file is ours, in the place that SQLite has for it."""
BUSY_S = 2.0
"""How long another process may hold the file before a call fails."""
PAGE_BYTES = 8 * 1024
"""Of a new file; one that is there keeps what it has. A page costs two calls of the system on its way to the -wal file
and two from there, whatever its length: of a fast stream those were half of all that its events cost. But a change of
one event writes whole pages: with 4 KiB it takes a twelfth less than with these, with 16 KiB a fifth more."""
CACHE_BYTES = 8 * 1024 * 1024
"""Room for all that one write changes: what has none goes to the -wal file at once, and again with the commit."""
CHECKPOINT_BYTES = 24 * 1024 * 1024
"""So long the -wal file grows before its pages go to their places: most have changed again by then, and the disk is
waited for the less often."""
MIN_CHECKPOINT_BYTES = 1024 * 1024
WAL_BYTES = 32 * 1024 * 1024
"""What the -wal file is cut down to after a transaction that was longer. A usual one ends before that: to grow again
what was cut costs more than to write over it."""

# A schema version is the number of steps that lead to it; a step that was released is never changed.
# Nothing newer than SQLite 3.24 is used: Python 3.11 runs on systems that have no later one.
STEPS: Sequence[Sequence[str]] = (
    (
        # What is looked at for many sessions stands before the record, which may fill pages of its own.
        """CREATE TABLE session (
            key INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            fence INTEGER NOT NULL,
            node TEXT NOT NULL,
            last_stream INTEGER NOT NULL,
            touched_at INTEGER NOT NULL,
            record BLOB NOT NULL
        )""",
        """CREATE TABLE stream (
            session INTEGER NOT NULL,
            id INTEGER NOT NULL,
            first_seq INTEGER NOT NULL,
            next_seq INTEGER NOT NULL,
            last_event INTEGER NOT NULL,
            kept INTEGER NOT NULL,
            head BLOB NOT NULL,
            PRIMARY KEY (session, id)
        ) WITHOUT ROWID""",
        # In the order they came, whatever stream they are of, each with the one before it in its own: a batch then
        # changes a few pages at the end. In the order of streams it would change a page for each, and take thrice
        # as long.
        """CREATE TABLE event (
            number INTEGER PRIMARY KEY,
            previous INTEGER NOT NULL,
            data BLOB NOT NULL
        )""",
        """CREATE TABLE ended (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            at INTEGER NOT NULL
        )""",
        # Seconds that the file was open: see SqliteLedger.
        "CREATE TABLE clock (seconds INTEGER NOT NULL)",
        "INSERT INTO clock VALUES (0)",
    ),
    # A row is of one event or of several: see sqlite_rows.
    ("ALTER TABLE event ADD COLUMN count INTEGER NOT NULL DEFAULT 1",),
)

_HEADER_BYTES = 100
_LOOKED_AT_BYTES = 1024
"""Of a file that may be somebody else's."""
_MAGIC = b"SQLite format 3\0"
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def check(path: Path) -> None:
    """Raises `StoreUnusable` if no store can be at that path; changes nothing, and leaves nothing behind."""
    try:
        _check(path)
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be reached: {error.strerror}") from error


def _check(path: Path) -> None:
    if path.is_dir():
        raise StoreUnusable(f"{path} is a directory; name a file in it")
    if path.exists():
        _try_to_open(path)
        _refuse_foreign(path)
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if not there.is_dir():
        raise StoreUnusable(f"{there} is not a directory")
    # SQLite makes files beside the one it is given.
    _try_to_make_a_file_in(there)


# To ask for access is not enough: root has it everywhere, also where the system lets nobody write.


def _try_to_open(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError as error:
        raise StoreUnusable(
            f"{path} cannot be read and written: {error.strerror}; change its owner or its mode"
        ) from error


def _try_to_make_a_file_in(directory: Path) -> None:
    try:
        TemporaryFile(dir=directory).close()
    except OSError as error:
        raise StoreUnusable(
            f"no file can be made in {directory}: {error.strerror}; change its owner or its mode, "
            "or name another place"
        ) from error


def open_file(path: Path) -> sqlite3.Connection:
    """The store at that path, made if there is none; in place of a broken one, which is set aside."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _open(path)
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
        set_aside(path, error)
        return _open(path)


def _open(path: Path) -> sqlite3.Connection:
    # The files that SQLite makes beside it get the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    _refuse_foreign(path)
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
    try:
        # These have to come before the first table. For the second see SqliteLedger.expire.
        db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        migrate(db, STEPS)
        _look_through(db)
        # With NORMAL a commit is safe from the end of this process but not from the end of power, which may take the
        # last ones; no transaction is ever torn. With FULL each commit would wait for the disk. Some systems have
        # SQLite write zeros over all that is deleted: of a fast stream that is all of it, and takes as long as to
        # write it. With FAST they are written where a page is written anyway.
        checkpoint_bytes = _checkpoint_bytes(path)
        for setting in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"journal_size_limit = {min(WAL_BYTES, 2 * checkpoint_bytes)}",
            f"wal_autocheckpoint = {checkpoint_bytes // page_bytes(db)}",
            f"cache_size = {-CACHE_BYTES // 1024}",
            "secure_delete = FAST",
        ):
            db.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def _checkpoint_bytes(path: Path) -> int:
    """A quarter of the room there is, at most. Pages leave the -wal file for places that need as much room again; one
    that had filled the disk could never be emptied, and everything is written to it first, also what deletes."""
    room = shutil.disk_usage(path.parent).free
    return max(MIN_CHECKPOINT_BYTES, min(CHECKPOINT_BYTES, room // 4))


def make_room(db: sqlite3.Connection) -> None:
    """Has the -wal file written from its beginning again, if that can be done: what it holds may have its place
    already. Waits for nobody."""
    with suppress(sqlite3.Error):
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def page_bytes(db: sqlite3.Connection) -> int:
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return size


def migrate(db: sqlite3.Connection, steps: Sequence[Sequence[str]]) -> None:
    with transaction(db):
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(steps):
            raise _newer(version, len(steps))
        if version == len(steps):
            return
        for statement in (statement for step in steps[version:] for statement in step):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(steps)}")
    # From then on whoever reads only the header sees the version.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Generator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    finally:
        # SQLite rolls back by itself after some failures, and not after others.
        if db.in_transaction:
            db.execute("ROLLBACK")


def is_corrupt(error: sqlite3.Error) -> bool:
    """Extended codes have the plain one in their low byte."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def lacks_room(error: sqlite3.Error) -> bool:
    """What a limit of the system's forbids is told as an error of the disk."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM


def broken(what: str) -> sqlite3.DatabaseError:
    """What SQLite did not find by itself."""
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def set_aside(path: Path, why: object) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.corrupt-{number}")).exists():
        number += 1
    log.error(
        "the store %s is broken (%s): it is moved to %s, and a new one is started", path, why, aside.name
    )
    # The -wal goes first: left alone with the next file it could not be told from its own.
    for suffix in ("-wal", "-shm", "-journal", ""):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))


def require_database(path: Path) -> None:
    """Raises `StoreUnusable` for a file that has something in it and is no database."""
    header = _header_of(path) if path.exists() else b""
    if header and not header.startswith(_MAGIC):
        raise _no_database(path)


def _no_database(path: Path) -> StoreUnusable:
    return StoreUnusable(f"{path} is no database; name the file of a store")


def _header_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT_BYTES)


def _is_text(beginning: bytes) -> bool:
    """Whether somebody has written it: of a database, whatever became of it, that would be a strange coincidence."""
    if b"\0" in beginning:
        return False
    try:
        # The last character may be cut in two.
        return bool(codecs.getincrementaldecoder("utf-8")().decode(beginning))
    except UnicodeDecodeError:
        return False


def _refuse_foreign(path: Path) -> None:
    """Reads the header without SQLite, which could change a file by opening it."""
    header = _header_of(path)
    if _is_text(header):
        raise _no_database(path)
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return
    pages, version, owner = (int.from_bytes(header[at : at + 4], "big") for at in (28, 60, 68))
    # One page has room for no table: that is how far we get when we are stopped at the first step.
    if owner != APPLICATION_ID and pages > 1:
        raise StoreUnusable(f"{path} is a database of another program; name another file")
    if version > len(STEPS):
        raise _newer(version, len(STEPS))


def _newer(version: int, known: int) -> StoreUnusable:
    return StoreUnusable(
        f"the store has version {version}, and this release knows versions up to {known}; "
        "use the release that wrote it, or another file"
    )


def _look_through(db: sqlite3.Connection) -> None:
    with closing(db.execute("PRAGMA quick_check(1)")) as found:
        (first,) = found.fetchone()
    if first != "ok":
        # A heading may go before it.
        raise broken(first.splitlines()[-1])

"""The store's port in SQL: one transaction per call, on a connection that one thread uses."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from shadowcat.clock import Clock
from shadowcat.core.ledger import Refusal, SessionChange, SessionSummary, StoredSession, StreamChange
from shadowcat.stores.memory import ENDED_S, MAX_ENDED
from shadowcat.stores.sqlite_file import make_room, page_bytes, transaction
from shadowcat.stores.sqlite_streams import Place, SqliteStreams, StreamRow

FREED_BYTES = 4 * 1024 * 1024
"""How much of what is unused a call of `expire` gives back to the file system."""

_COLUMNS = "key, fence, node, last_stream, touched_at"


class _Session(NamedTuple):
    key: int
    fence: int
    node: str
    last_stream: int
    touched_at: int

    def refuses(self, change: SessionChange, rows: Mapping[Place, StreamRow]) -> Refusal | None:
        if change.fence < self.fence:
            return Refusal.FENCED
        if change.is_whole or change.ends:
            return None
        is_behind = change.fence > self.fence or any(
            not row.fits(stream)
            for stream in change.streams
            if (row := rows.get((self.key, stream.id))) is not None
        )
        return Refusal.MISSING if is_behind else None

    def after(self, change: SessionChange, now: int) -> _Session:
        node = "" if change.releases else change.node or self.node
        last_stream = max([self.last_stream, *[stream.id for stream in change.streams]])
        return _Session(self.key, change.fence, node, last_stream, now)


class _Pending(NamedTuple):
    """Rows to be written."""

    touched: list[tuple[int, str, int, int, int]]
    records: list[tuple[bytes, int]]
    streams: list[tuple[Place, StreamRow, StreamChange]]


class SqliteLedger:
    """Time is a clock of the file's own: the seconds that it was open, by the monotonic clock of whoever opened it.

    So the wall clock may jump, and who was away for a night finds its sessions as idle as it left them; yet a process
    that is restarted often lets go of them in the end.
    """

    def __init__(self, db: sqlite3.Connection, clock: Clock) -> None:
        self._db = db
        self._streams = SqliteStreams(db)
        self._clock = clock
        (seconds,) = db.execute("SELECT seconds FROM clock").fetchone()
        self._zero = clock.monotonic() - seconds
        """When the file's clock stood at zero."""
        self._looked_at = seconds
        """Up to when it is known what others have ended."""
        self._version = self._data_version()

    def close(self) -> None:
        self._db.close()

    def make_room(self) -> None:
        """For the next try."""
        make_room(self._db)

    def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        refused: dict[str, Refusal] = {}
        with transaction(self._db):
            now = self._tick()
            for batch in _once_each(changes):
                refused |= self._write(batch, now)
        return refused

    def claim(self, session_id: str, node: str) -> StoredSession | None:
        with transaction(self._db):
            now = self._tick()
            self._db.execute(
                "UPDATE session SET fence = fence + 1, node = ?, touched_at = ? WHERE id = ?",
                (node, now, session_id),
            )
            return self._read(session_id)

    def read(self, session_id: str) -> StoredSession | None:
        with transaction(self._db, "BEGIN"):
            return self._read(session_id)

    def sessions(self, after: str, limit: int) -> list[SessionSummary]:
        with transaction(self._db, "BEGIN"):
            found = self._db.execute(
                "SELECT key, id, node, record FROM session WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
            ).fetchall()
            return [
                SessionSummary(session_id, node, record, *self._streams.measure(key))
                for key, session_id, node, record in found
            ]

    def remove(self, session_id: str) -> bool:
        with transaction(self._db):
            now = self._tick()
            held = self._find([session_id]).get(session_id)
            if held is not None:
                self._end(session_id, held, now)
            return held is not None

    def removed(self) -> list[str]:
        """Sessions that ended since it was last asked, if others have written to the file since."""
        version = self._data_version()
        if version == self._version:
            return []
        with transaction(self._db, "BEGIN"):
            ended = self._db.execute("SELECT id FROM ended WHERE at >= ?", (self._looked_at,)).fetchall()
            (self._looked_at,) = self._db.execute("SELECT seconds FROM clock").fetchone()
        self._version = version
        return [session_id for (session_id,) in ended]

    def _data_version(self) -> int:
        """Another one whenever another connection has written: that costs no look into the file."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        return version

    def expire(self, idle_s: float) -> None:
        with transaction(self._db):
            now = self._tick()
            idle = self._db.execute(
                "SELECT key FROM session WHERE touched_at <= ?", (now - idle_s,)
            ).fetchall()
            for (key,) in idle:
                self._delete(key)
            self._db.execute("DELETE FROM ended WHERE at <= ?", (now - ENDED_S,))
            self._streams.sweep()
        # It steps from page to page, which `execute` would do once.
        self._db.executescript(f"PRAGMA incremental_vacuum({FREED_BYTES // page_bytes(self._db)})")

    def _tick(self) -> int:
        """The time; two processes that have the file open agree on it through the file."""
        (seen,) = self._db.execute("SELECT seconds FROM clock").fetchone()
        # Whole seconds, and the next rather than the last: a session that is used all the time is touched once in each.
        now = math.ceil(self._clock.monotonic() - self._zero)
        if now < seen:
            self._zero -= seen - now
        elif now > seen:
            self._db.execute("UPDATE clock SET seconds = ?", (now,))
        return max(now, seen)

    def _write(self, batch: Mapping[str, SessionChange], now: int) -> Mapping[str, Refusal]:
        """Looks everything up at once, decides, and then writes everything at once."""
        held = self._find(batch)
        # A session that is over has left the table, and is not let into it again.
        ended = self._find_ended(batch.keys() - held.keys(), now) if len(held) < len(batch) else ()
        rows = self._streams.find(
            (session.key, stream.id)
            for session_id, session in held.items()
            for stream in batch[session_id].streams
        )
        refusals = {
            session_id: _refusal(change, held.get(session_id), session_id in ended, rows)
            for session_id, change in batch.items()
        }
        pending = _Pending([], [], [])
        for session_id, change in batch.items():
            if refusals[session_id] is not None:
                continue
            if change.ends:
                self._end(session_id, held.get(session_id), now)
            else:
                self._make(change, held.get(session_id), rows, pending, now)
        self._db.executemany(
            "UPDATE session SET fence = ?, node = ?, last_stream = ?, touched_at = ? WHERE key = ?",
            pending.touched,
        )
        self._db.executemany("UPDATE session SET record = ? WHERE key = ?", pending.records)
        if pending.streams:
            self._streams.write(pending.streams)
        return {session_id: refusal for session_id, refusal in refusals.items() if refusal is not None}

    def _make(
        self,
        change: SessionChange,
        session: _Session | None,
        rows: dict[Place, StreamRow],
        pending: _Pending,
        now: int,
    ) -> None:
        """What is seldom at once, and the rest to be written with that of the other changes."""
        if session is None:
            session = self._open(change.session_id)
        elif change.is_whole:
            self._streams.clear(session.key)
        after = session.after(change, now)
        if after != session:
            pending.touched.append((after.fence, after.node, after.last_stream, after.touched_at, after.key))
        if change.record is not None or change.is_whole:
            pending.records.append((change.record or b"", session.key))
        if change.dropped:
            self._streams.drop((session.key, stream_id) for stream_id in change.dropped)
        for stream in change.streams:
            if stream.id not in change.dropped:
                place = (session.key, stream.id)
                row = StreamRow() if change.is_whole else rows.setdefault(place, StreamRow())
                pending.streams.append((place, row, stream))

    def _find(self, session_ids: Iterable[str]) -> dict[str, _Session]:
        found = self._db.execute(
            f"SELECT id, {_COLUMNS} FROM session WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(session_ids)),),
        )
        return {session_id: _Session(*row) for session_id, *row in found}

    def _find_ended(self, session_ids: Iterable[str], now: int) -> Collection[str]:
        found = self._db.execute(
            "SELECT id FROM ended WHERE id IN (SELECT value FROM json_each(?)) AND at > ?",
            (json.dumps(list(session_ids)), now - ENDED_S),
        )
        return {session_id for (session_id,) in found}

    def _read(self, session_id: str) -> StoredSession | None:
        found = self._db.execute(
            "SELECT key, fence, record, last_stream FROM session WHERE id = ?", (session_id,)
        ).fetchone()
        if found is None:
            return None
        key, fence, record, last_stream = found
        return StoredSession(session_id, fence, record, last_stream, self._streams.read(key))

    def _open(self, session_id: str) -> _Session:
        key = self._db.execute(
            "INSERT INTO session VALUES (NULL, ?, 0, '', 0, 0, x'')", (session_id,)
        ).lastrowid
        assert key is not None
        return _Session(key, 0, "", 0, 0)

    def _end(self, session_id: str, session: _Session | None, now: int) -> None:
        if session is not None:
            self._delete(session.key)
        last = self._db.execute(
            "INSERT OR REPLACE INTO ended VALUES (NULL, ?, ?)", (session_id, now)
        ).lastrowid
        assert last is not None
        self._db.execute("DELETE FROM ended WHERE number <= ?", (last - MAX_ENDED,))

    def _delete(self, key: int) -> None:
        self._streams.clear(key)
        self._db.execute("DELETE FROM session WHERE key = ?", (key,))


def _refusal(
    change: SessionChange, session: _Session | None, has_ended: bool, rows: Mapping[Place, StreamRow]
) -> Refusal | None:
    if has_ended:
        return Refusal.ENDED
    if session is not None:
        return session.refuses(change, rows)
    return None if change.is_whole or change.ends else Refusal.MISSING


def _once_each(changes: Sequence[SessionChange]) -> Iterator[dict[str, SessionChange]]:
    """In batches that have no session twice."""
    batch: dict[str, SessionChange] = {}
    for change in changes:
        if change.session_id in batch:
            yield batch
            batch = {}
        batch[change.session_id] = change
    yield batch

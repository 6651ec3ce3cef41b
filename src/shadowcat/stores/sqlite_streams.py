"""The streams of an SQLite store: their rows, and the chains of their events."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from shadowcat.core.ledger import StoredStream, StreamChange
from shadowcat.stores.sqlite_file import broken
from shadowcat.stores.sqlite_rows import packed, unpacked

MIN_DEAD = 32
"""So many events that a stream has let go of may stay in the file until `sweep`, or as many as it holds."""

_COLUMNS = "first_seq, next_seq, last_event, kept"
# From the last row of a stream back, as far as it has so many events; a place is how many events follow.
_CHAIN = """
    WITH RECURSIVE chain(number, place) AS (
        SELECT ?1, 0
        UNION ALL
        SELECT event.previous, place + max(count, 1)
        FROM chain JOIN event USING (number) WHERE place + max(count, 1) < ?2
    )
"""
_READ = f"{_CHAIN} SELECT count, data FROM chain JOIN event USING (number) ORDER BY place DESC"
# Without the line ends between the events. Besides: how many events the rows have, and which row is the oldest.
_MEASURE = f"""{_CHAIN}
    SELECT sum(length(data) - count + 1), max(place + count), number FROM chain JOIN event USING (number)
"""
_DELETE_BEFORE = f"{_CHAIN} DELETE FROM event WHERE number IN (SELECT number FROM chain WHERE place >= ?3)"

Place = tuple[int, int]
"""The key of a session, and the id of a stream in it."""
EventRow = tuple[int, int, int, bytes]
"""Its number, that of the row before it in its stream, how many events it has, and these."""


@dataclass(slots=True)
class StreamRow:
    """What is held of a stream is the end of its chain; before that may be dead events, which were let go of.

    The row with the first event that is held stays whole, so the chain may reach back further than it has to.
    """

    first_seq: int = 1
    next_seq: int = 1
    last_event: int = 0
    """The number of its row in the file."""
    kept: int = 0
    """So many events the chain has to reach back for all its rows to be found."""

    @property
    def live(self) -> int:
        return self.next_seq - self.first_seq

    @property
    def is_due(self) -> bool:
        """To find the dead takes a walk along the chain, so they wait until they are half of it."""
        dead = self.kept - self.live
        return dead > 0 and (self.live == 0 or dead >= max(MIN_DEAD, self.live))

    def fits(self, change: StreamChange) -> bool:
        """Whether no event is missing between what is held and what is added."""
        return change.next_seq <= self.next_seq or change.first_seq >= self.next_seq

    def apply(self, change: StreamChange, number: int) -> list[EventRow]:
        """The rows to insert for the events that are new, the first of them with that number."""
        if change.next_seq > self.next_seq:
            self.first_seq = self.next_seq = change.next_seq
        rows: list[EventRow] = []
        # A change may come twice, when nobody could tell what became of it: then it has events that are held.
        for count, data in packed(change.events, self.next_seq - change.next_seq):
            rows.append((number, self.last_event, count, data))
            self.last_event = number
            self.kept += count
            number += 1
        self.next_seq = max(self.next_seq, change.next_seq + len(change.events))
        self.first_seq = max(self.first_seq, change.first_seq)
        self.next_seq = max(self.next_seq, self.first_seq)
        return rows


class SqliteStreams:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def find(self, places: Iterable[Place]) -> dict[Place, StreamRow]:
        found = self._db.execute(
            f"""SELECT session, id, {_COLUMNS} FROM stream WHERE (session, id) IN
            (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?))""",
            (json.dumps(list(places)),),
        )
        return {(session, id): StreamRow(*row) for session, id, *row in found}

    def write(self, changes: Iterable[tuple[Place, StreamRow, StreamChange]]) -> None:
        (number,) = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM event").fetchone()
        events: list[EventRow] = []
        written: list[tuple[Place, StreamRow, bytes]] = []
        for place, row, change in changes:
            events += row.apply(change, number + len(events))
            written.append((place, row, change.head))
        self._db.executemany("INSERT INTO event (number, previous, count, data) VALUES (?, ?, ?, ?)", events)
        for _, row, _ in written:
            if row.is_due:
                self._delete_dead(row)
        self._db.executemany(
            f"INSERT OR REPLACE INTO stream (session, id, {_COLUMNS}, head) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (*place, row.first_seq, row.next_seq, row.last_event, row.kept, head)
                for place, row, head in written
            ],
        )

    def read(self, session: int) -> list[StoredStream]:
        found = self._db.execute(
            f"SELECT id, head, {_COLUMNS} FROM stream WHERE session = ? ORDER BY id", (session,)
        ).fetchall()
        return [
            StoredStream(id, head, row.first_seq, self._events(row))
            for id, head, row in ((id, head, StreamRow(*columns)) for id, head, *columns in found)
        ]

    def measure(self, session: int) -> tuple[int, int, int]:
        """How many streams it has, how many events, and how long these are together."""
        rows = self._of(session)
        return len(rows), sum(row.live for row in rows), sum(self._size(row) for row in rows)

    def drop(self, places: Iterable[Place]) -> None:
        for place, row in self.find(places).items():
            self._delete_chain(row, 0)
            self._db.execute("DELETE FROM stream WHERE session = ? AND id = ?", place)

    def clear(self, session: int) -> None:
        for row in self._of(session):
            self._delete_chain(row, 0)
        self._db.execute("DELETE FROM stream WHERE session = ?", (session,))

    def sweep(self) -> None:
        """Deletes all the dead."""
        found = self._db.execute(
            f"SELECT session, id, {_COLUMNS} FROM stream WHERE kept > next_seq - first_seq"
        ).fetchall()
        for session, id, *columns in found:
            row = StreamRow(*columns)
            self._delete_dead(row)
            self._db.execute(
                "UPDATE stream SET kept = ? WHERE session = ? AND id = ?", (row.kept, session, id)
            )

    def _of(self, session: int) -> list[StreamRow]:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM stream WHERE session = ?", (session,))
        return [StreamRow(*row) for row in found]

    def _events(self, row: StreamRow) -> tuple[bytes, ...]:
        if not row.live:
            return ()
        events: list[bytes] = []
        for count, data in self._db.execute(_READ, (row.last_event, row.live)):
            events += unpacked(count, data)
        if len(events) < row.live:
            raise _torn()
        return tuple(events[len(events) - row.live :])

    def _size(self, row: StreamRow) -> int:
        """How long the events are together that are held."""
        if not row.live:
            return 0
        size, reached, oldest = self._db.execute(_MEASURE, (row.last_event, row.live)).fetchone()
        if reached is None or reached < row.live:
            raise _torn()
        if reached > row.live:
            found = self._db.execute("SELECT count, data FROM event WHERE number = ?", (oldest,)).fetchone()
            size -= sum(map(len, unpacked(*found)[: reached - row.live]))
        return size

    def _delete_dead(self, row: StreamRow) -> None:
        self._delete_chain(row, row.live)
        row.kept = row.live

    def _delete_chain(self, row: StreamRow, live: int) -> None:
        if row.kept:
            self._db.execute(_DELETE_BEFORE, (row.last_event, row.kept, live))


def _torn() -> sqlite3.DatabaseError:
    return broken("the chain of a stream's events is torn")

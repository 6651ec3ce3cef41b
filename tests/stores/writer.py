"""Writes to an SQLite store until it is killed, and tells after each batch how far it got: `writer PATH FROM`.

Every session's record, both its streams' heads and their last events say the same number.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from shadowcat.core.ledger import SessionChange, StoredSession, StreamChange
from shadowcat.stores.sqlite import SqliteStore

SESSIONS = ("a", "b", "c")
HELD = 50


def change(session_id: str, fence: int, number: int) -> SessionChange:
    said = b"%d" % number
    streams = [
        StreamChange(id, said, max(1, number - HELD + 1), number, [said.rjust(id * 700)]) for id in (1, 2)
    ]
    return SessionChange(session_id, fence, record=said, streams=streams)


async def main(path: Path, start: int) -> None:
    store = SqliteStore(path)
    if start == 1:
        await store.write(
            [SessionChange(session_id, 1, is_whole=True, record=b"0") for session_id in SESSIONS]
        )
    fences: dict[str, int] = {}
    for session_id in SESSIONS:
        found = await store.claim(session_id, "writer")
        assert isinstance(found, StoredSession)
        fences[session_id] = found.fence
    for number in itertools.count(start):
        refused = await store.write(
            [change(session_id, fences[session_id], number) for session_id in SESSIONS]
        )
        assert not refused
        if number % 100 == 0:
            await store.expire(600.0)
        print(number)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

"""Sessions in a file, handled by a thread that never blocks the event loop."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from shadowcat.clock import Clock, SystemClock
from shadowcat.core.ledger import Refusal, SessionChange, SessionSummary, StoredSession
from shadowcat.stores import sqlite_file
from shadowcat.stores.sqlite_ledger import SqliteLedger

T = TypeVar("T")


class SqliteStore:
    """One process is meant to own the file; others may look into it, or take it over while that one leaves.

    A call that its caller gave up is made all the same, or was not begun. One that fails has changed nothing: it
    raises `OSError`, or `StoreUnusable` where trying again is no use.
    """

    is_shared = False

    def __init__(self, path: Path | str, clock: Clock | None = None) -> None:
        self._file = SqliteFile(Path(path), clock or SystemClock())
        # SQLite takes one writer at a time, so a second thread would wait for the first.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadowcat-store")
        self._is_closed = False

    async def check(self) -> None:
        await self._call(partial(sqlite_file.check, self._file.path))

    async def write(self, changes: Sequence[SessionChange]) -> Mapping[str, Refusal]:
        if not changes:
            return {}
        return await self._call(partial(self._file.use, lambda ledger: ledger.write(changes)))

    async def claim(self, session_id: str, node: str) -> StoredSession | None:
        return await self._call(
            partial(self._file.use_if_there, lambda ledger: ledger.claim(session_id, node), None)
        )

    async def read(self, session_id: str) -> StoredSession | None:
        return await self._call(
            partial(self._file.use_if_there, lambda ledger: ledger.read(session_id), None)
        )

    async def sessions(self, after: str, limit: int) -> Sequence[SessionSummary]:
        return await self._call(
            partial(self._file.use_if_there, lambda ledger: ledger.sessions(after, limit), [])
        )

    async def remove(self, session_id: str) -> bool:
        return await self._call(
            partial(self._file.use_if_there, lambda ledger: ledger.remove(session_id), False)
        )

    async def removed(self, node: str) -> Collection[str]:
        return await self._call(partial(self._file.use_if_open, lambda ledger: ledger.removed(), []))

    async def renew(self, node: str, lease_s: float) -> None:
        """Nobody else may hold what this process owns, so there are no leases."""

    async def expire(self, idle_s: float) -> None:
        await self._call(partial(self._file.use_if_there, lambda ledger: ledger.expire(idle_s), None))

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)
        await closing

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


class SqliteFile:
    """The file as the thread sees it: opened when it is needed, and anew when it is no longer there or broken."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._ledger: SqliteLedger | None = None
        self._identity: tuple[int, int] | None = None

    def use_if_there(self, work: Callable[[SqliteLedger], T], otherwise: T) -> T:
        """A store that was never written is not made by looking into it."""
        return self.use(work) if self.path.exists() else otherwise

    def use_if_open(self, work: Callable[[SqliteLedger], T], otherwise: T) -> T:
        return self.use_if_there(work, otherwise) if self._ledger is not None else otherwise

    def use(self, work: Callable[[SqliteLedger], T]) -> T:
        try:
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if not sqlite_file.is_corrupt(error):
                    raise
                self._set_aside(error)
                return work(self._opened())
        except sqlite3.Error as error:
            if self._ledger is not None and sqlite_file.lacks_room(error):
                self._ledger.make_room()
            raise OSError(f"{self.path}: {error}") from error

    def close(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def _opened(self) -> SqliteLedger:
        # Somebody else may have removed the file, or set it aside. What is written to it then is lost.
        if self._ledger is not None and self._identity != _identity(self.path):
            self.close()
        if self._ledger is None:
            db = sqlite_file.open_file(self.path)
            self._ledger = SqliteLedger(db, self._clock)
            self._identity = _identity(self.path)
        return self._ledger

    def _set_aside(self, why: sqlite3.Error) -> None:
        is_ours = self._identity == _identity(self.path)
        self.close()
        if is_ours:
            sqlite_file.set_aside(self.path, why)


def _identity(path: Path) -> tuple[int, int] | None:
    """Tells a file from another that later has its name."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

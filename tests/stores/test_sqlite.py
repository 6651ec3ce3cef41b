from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shadowcat.clock import ManualClock
from shadowcat.stores.sqlite import SqliteStore
from shadowcat.testing import StoreContract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.db"


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def make_store(self, path: Path) -> Callable[[], SqliteStore]:
        self.clock = ManualClock()
        return lambda: SqliteStore(path, self.clock)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

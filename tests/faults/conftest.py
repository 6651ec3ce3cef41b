from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.child import NumbersChild, ProxyChild, numbers, proxy_before
from tests.rig.redis_server import redis_server


@pytest.fixture
async def counting() -> AsyncIterator[NumbersChild]:
    """A server that counts, in a process of its own."""
    async with numbers() as found:
        yield found


@pytest.fixture
async def proxy(counting: NumbersChild) -> AsyncIterator[ProxyChild]:
    """`shadowcat reverse` before it."""
    async with proxy_before(counting.url) as found:
        yield found


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'sessions.db'}"


@pytest.fixture(params=["sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, sqlite_url: str) -> AsyncIterator[str]:
    """The URL of a store that outlives the proxy."""
    if request.param == "sqlite":
        yield sqlite_url
    else:
        async with redis_server(tmp_path, appendonly="yes") as server:
            yield server.url

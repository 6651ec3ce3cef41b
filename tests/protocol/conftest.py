from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rig.stand import Stand, stand


@pytest.fixture
async def rig() -> AsyncIterator[Stand]:
    """One server, one proxy, one client that has said nothing yet."""
    async with stand() as found:
        yield found


@pytest.fixture
async def session(rig: Stand) -> Stand:
    """The same with a session open; what opening it sent is forgotten."""
    await rig.client.initialize()
    rig.server.requests.clear()
    return rig

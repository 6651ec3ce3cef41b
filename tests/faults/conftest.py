from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.child import NumbersChild, ProxyChild, numbers, proxy_before


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

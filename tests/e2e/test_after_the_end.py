"""Clients that come back to a stream that has ended.

The TypeScript SDK 1.x does after each error response, because it takes only a result for the end of a call.
"""

from __future__ import annotations

from tests.e2e.node_client import SDK1, node_application
from tests.e2e.stage import Stage

VERSION = "2025-11-25"


async def test_a_client_that_comes_back_after_an_error_is_told_to_stop(stage: Stage) -> None:
    async with node_application(SDK1)(stage.proxied, VERSION) as app:
        await app.opens(1)
        assert await app.does("fails", name="no_such_tool") == -32602
        await app.opens(2)
        # Anything but "no content" is asked for again as soon as it ends.
        assert app.gets == [200, 204]

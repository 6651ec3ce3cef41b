"""The event store of the fixture server, which must lose nothing that a proxy is then blamed for."""

from __future__ import annotations

import mcp_types as types
from mcp.server.streamable_http import EventMessage

from tests.peers.everything_server import MemoryEventStore


async def test_what_is_stored_during_a_replay_is_replayed() -> None:
    store = MemoryEventStore()
    ids = [await store.store_event("s", _note(step)) for step in range(3)]
    sent: list[str | None] = []

    async def send(event: EventMessage) -> None:
        sent.append(event.event_id)
        if len(ids) < 6:
            await store.store_event("another", _note(0))
            ids.append(await store.store_event("s", _note(len(ids))))

    assert await store.replay_events_after(ids[0], send) == "s"
    assert sent == ids[1:]


def _note(step: int) -> types.JSONRPCNotification:
    return types.JSONRPCNotification(jsonrpc="2.0", method="n", params={"step": step})

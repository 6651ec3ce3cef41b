"""A store as a busy proxy has left it: many sessions, each with the streams of calls that have ended."""

from __future__ import annotations

import json

from shadowcat.core import kept
from shadowcat.core.exchange import ANONYMOUS
from shadowcat.core.ledger import SessionChange, StreamChange
from shadowcat.core.ports import SessionStore
from shadowcat.core.session import SessionRecord

EPOCH = "filled"
_SESSIONS_A_WRITE = 50


async def fill(store: SessionStore, sessions: int, events: int) -> None:
    """`events` of each session, the last of which is the response."""
    numbers = range(sessions)
    for start in numbers[::_SESSIONS_A_WRITE]:
        batch = numbers[start : start + _SESSIONS_A_WRITE]
        assert not await store.write([_session(number, events) for number in batch])


def filled_id(number: int) -> str:
    return f"{number:032x}"


def _session(number: int, events: int) -> SessionChange:
    record = SessionRecord(
        id=filled_id(number),
        principal=ANONYMOUS,
        route="/mcp",
        upstream="numbers",
        upstream_id=f"n{number}",
        version="2025-11-25",
        initialize_params=b"{}",
        initialize_result=b'{"protocolVersion":"2025-11-25","capabilities":{}}',
        initialized=True,
        epoch=EPOCH,
    )
    head = kept.KeptStream(request_id=2, is_finished=True)
    held = [_progress(event) for event in range(1, events)]
    held.append(b'{"jsonrpc":"2.0","id":2,"result":{"content":[]}}')
    return SessionChange(
        record.id,
        1,
        is_whole=True,
        record=kept.encode(kept.KeptSession(record=record)),
        streams=[StreamChange(1, kept.encode(head), 1, 1, held)],
    )


def _progress(number: int) -> bytes:
    params = {"progressToken": "filled", "progress": number, "message": "filled " + "x" * 100}
    message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    return json.dumps(message, separators=(",", ":")).encode()

"""Changes and sessions on the wire: numbers apart, and all bytes in one string that is cut by their sizes.

One string costs a client in Python a fraction of what a thousand arguments or replies would. (The MessagePack that
Redis's Lua reads knows no type for bytes, or the numbers would need no string beside them.)
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

from msgspec import msgpack

from shadowcat.core.ledger import SessionChange, SessionSummary, StoredSession, StoredStream


def pack_change(change: SessionChange) -> tuple[bytes, bytes]:
    pieces = [change.record or b""]
    streams: list[tuple[int, int, int, int, list[int]]] = []
    for stream in change.streams:
        sizes = [len(event) for event in stream.events]
        streams.append((stream.id, stream.first_seq, stream.next_seq, len(stream.head), sizes))
        pieces.append(stream.head)
        pieces.extend(stream.events)
    numbers = (
        change.session_id,
        change.fence,
        change.is_whole,
        None if change.record is None else len(change.record),
        streams,
        list(change.dropped),
        change.releases,
        change.ends,
        change.node,
    )
    return msgpack.encode(numbers), b"".join(pieces)


def unpack_session(session_id: str, reply: Any) -> StoredSession:
    fence, record, last_stream, packed = reply
    streams = [
        StoredStream(int(stream), head, int(first_seq), _cut(events, sizes))
        for stream, first_seq, head, sizes, events in packed
    ]
    return StoredSession(session_id, int(fence), record, int(last_stream), sorted(streams))


def unpack_summary(reply: Any) -> SessionSummary:
    session_id, node, record, streams, events, event_bytes = reply
    return SessionSummary(session_id.decode(), node.decode(), record, streams, events, event_bytes)


def _cut(events: bytes, sizes: bytes) -> list[bytes]:
    ends = accumulate(map(int, sizes.split()), initial=0)
    return [events[start:end] for start, end in pairwise(ends)]

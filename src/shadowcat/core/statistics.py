"""An upstream's counters, as operators read them."""

from __future__ import annotations

import msgspec


class UpstreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Zeros stand where its transport has no such thing. Numbers that only grow say so by their names."""

    connections_idle: int = 0
    """Of its origin: upstreams at one origin share them."""
    connections_taken: int = 0
    connections_waited_for: int = 0
    streams_open: int = 0
    streams_opened: int = 0
    streams_given_up: int = 0
    """Broken, and not resumed by the last attempt."""
    stream_seconds: float = 0.0
    """How long those that ended were open, together."""
    reconnect_attempts: int = 0
    reconnects: int = 0
    events_repeated: int = 0
    """Sent again by the server after a reconnect, and dropped."""
    processes: int = 0
    processes_started: int = 0
    processes_crashed: int = 0
    is_left_alone: bool = False
    """Its command keeps failing, and is not started for a while."""
    messages_dropped: int = 0
    lines_of_garbage: int = 0
    reader_stalls: int = 0
    """Times that reading stopped because a reader was behind."""

"""An upstream's counters, as operators read them."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

STEPS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""How long answers take is counted up to each of these."""


class Answers:
    """What an upstream has answered."""

    __slots__ = ("counts", "errors", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(STEPS_S) + 1)
        """By the step that each of them took, the last for longer ones."""
        self.total_s = 0.0
        self.errors = 0

    def came(self, after_s: float, is_error: bool) -> None:
        self.counts[bisect_left(STEPS_S, after_s)] += 1
        self.total_s += after_s
        if is_error:
            self.errors += 1

    def add(self, others: Answers) -> None:
        self.counts = [one + other for one, other in zip(self.counts, others.counts, strict=True)]
        self.total_s += others.total_s
        self.errors += others.errors


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

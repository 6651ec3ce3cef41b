"""What an event takes of memory on its way, step by step, and in the log; in this process, without a network.

The results of a step are kept while the next one runs, so what is counted is what it made and left. What it throws
away at once is not.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

from bench.path import EVENT_BYTES, events
from bench.rounds import print_table
from shadowcat.core.exchange import NO_EVENTS, Piece
from shadowcat.core.stream import Budget, LogLimits, StreamLog
from shadowcat.core.track import EventTracker
from shadowcat.proxy.home import Home
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import Stream
from shadowcat.upstream.interpret import messages_of
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.sse import SseDecoder, SseEvents, encode_messages
from tests.rig.stand import unkept

_EVENTS = 20_000
_LOGGED = 1_000
MIB = 1024 * 1024


def run() -> None:
    logged = held_per_event() * _LOGGED
    print_table(
        [f"the log, {_LOGGED:,} events of {EVENT_BYTES} bytes", "bytes held", "of 1 MiB"],
        [["by tracemalloc", f"{logged:,.0f}", f"{logged / MIB:.2f}"]],
    )
    print()
    print_table(["step of an event", "blocks left", "bytes left"], _steps())


def held_per_event() -> float:
    """Bytes that a logged event holds when everything else of its way is gone."""
    stream = _stream()
    reads = events(_EVENTS)
    decoder = SseDecoder()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for read in reads:
            for event in decoder.feed(read):
                for message in messages_of(event.data or b""):
                    stream.append(message)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / _EVENTS


def _stream() -> Stream:
    limits = LogLimits()
    home = Home("0" * 12, unkept(), lambda: 0.0, True, lambda _: True, lambda: None)
    return Stream(home, 1, StreamLog(Budget(limits.bytes)), request_id=1)


def _steps() -> list[list[str]]:
    stream = _stream()
    reader = stream.read()
    tracker = EventTracker()
    decoder = SseDecoder()
    read = b"".join(events(_EVENTS))
    decoded: list[SseEvents] = []
    parsed: list[Message] = []
    taken: list[Piece] = []
    rows: list[list[str]] = []

    def step(name: str, work: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        made, row = _counted(name, work)
        rows.append(row)
        return made

    decoded = [*step("decoded", lambda: [decoder.read(read)])]
    step("tracked", lambda: [tracker.new_of(decoded[0])])
    parsed = [*step("parsed", lambda: [m for text in decoded[0].messages for m in messages_of(text)])]
    step("logged", lambda: [stream.append(message) for message in parsed])
    taken = [*step("taken", lambda: _all_of(stream, reader))]
    step("encoded", lambda: [encode_messages(piece.prefix, piece.first, piece.data) for piece in taken])
    return rows


def _all_of(stream: Stream, reader: Reader) -> list[Piece]:
    found: list[Piece] = []
    while (piece := stream.take(reader)) is not None and piece is not NO_EVENTS:
        found.append(piece)
    return found


def _counted(name: str, work: Callable[[], Sequence[Any]]) -> tuple[Sequence[Any], list[str]]:
    """The step's results, and its row: for each event, without the list that holds the results."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        held, _ = tracemalloc.get_traced_memory()
        blocks = sys.getallocatedblocks()
        made = work()
        blocks = sys.getallocatedblocks() - blocks
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    own = sys.getsizeof(made)
    return made, [name, f"{blocks / _EVENTS:.1f}", f"{(left - held - own) / _EVENTS:,.0f}"]

"""What it costs that a stream can be resumed: the way of its events with and without what that takes.

Left out one after the other: the tracker that drops repeated events and knows where to go on, the ids for the
client, the log. Only this process is changed; what is left then can do nothing but hand events on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise

import uvloop

from bench.path import Way, events, in_reads
from bench.rounds import Spread, in_turn, print_table
from shadowcat.core.exchange import NO_EVENTS, Piece
from shadowcat.core.track import EventTracker
from shadowcat.downstream import answers
from shadowcat.proxy.reader import Reader
from shadowcat.proxy.streams import MAX_PIECE_BYTES, Stream
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.sse import SseEvents

_EVENTS = 20_000
_READ = 16 * 1024
_ROUNDS = 15

Without = Callable[[], AbstractContextManager[None]]


def run() -> None:
    every = events(_EVENTS)
    _compare(f"reads of {_READ // 1024} KiB", in_reads(b"".join(every), _READ))
    print()
    _compare("one event a read", every)


def _compare(what: str, reads: list[bytes]) -> None:
    full = Way(reads)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measures = {
            "all of it": _timer(runner, full, nullcontext),
            "without the tracker": _timer(runner, full, _without_tracker),
            "without ids either": _timer(runner, full, _without_ids),
            "without the log either": _timer(runner, full, _without_ids_and_log),
        }
        in_turn(measures, 2)
        found = in_turn(measures, _ROUNDS)
    print_table(
        [what, "CPU µs/event", "of the whole"],
        [
            [
                name,
                Spread.of([1e6 * spent for spent in times]).text(),
                Spread.of([a / b for a, b in zip(times, found["all of it"], strict=True)]).text(),
            ]
            for name, times in found.items()
        ],
    )
    whole = found["all of it"]
    costs = [_cost(found[name], found[simpler], whole) for name, simpler in pairwise(found)]
    print_table(["RATIO, cost of", "the tracker", "the ids", "the log"], [["share of the way", *costs]])


def _cost(with_it: list[float], without: list[float], whole: list[float]) -> str:
    shares = [(a - b) / c for a, b, c in zip(with_it, without, whole, strict=True)]
    return Spread.of(shares).text(".1%")


def _timer(runner: asyncio.Runner, way: Way, without: Without) -> Callable[[], float]:
    """CPU time of an event."""

    def measure() -> float:
        with without():
            started = time.process_time()
            runner.run(way.call())
            return (time.process_time() - started) / _EVENTS

    return measure


@contextmanager
def _replaced(owner: object, name: str, by: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _without_tracker() -> Iterator[None]:
    def new_of(tracker: EventTracker, events: SseEvents) -> SseEvents:
        tracker.last_id = events.ids[-1] if events.ids else None
        return events

    with _replaced(EventTracker, "new_of", new_of):
        yield


@contextmanager
def _without_ids() -> Iterator[None]:
    def take(stream: Stream, reader: Reader) -> Piece | None:
        fresh = stream.log.hand_out(stream.log.last_seq, MAX_PIECE_BYTES)
        if fresh:
            return Piece(b"", 0, fresh)
        return None if stream.log.closed else NO_EVENTS

    with (
        _without_tracker(),
        _replaced(Stream, "take", take),
        _replaced(answers, "encode_messages", _encode),
    ):
        yield


@contextmanager
def _without_ids_and_log() -> Iterator[None]:
    queue: list[bytes] = []

    def append(stream: Stream, message: Message, *, own: bool = False) -> None:
        extend(stream, [message])

    def extend(stream: Stream, messages: list[Message]) -> None:
        queue.extend([message.raw for message in messages])
        stream._wake()  # pyright: ignore[reportPrivateUsage]

    def take(stream: Stream, reader: Reader) -> Piece | None:
        if queue:
            fresh = queue.copy()
            queue.clear()
            return Piece(b"", 0, fresh)
        return None if stream.log.closed else NO_EVENTS

    with (
        _without_tracker(),
        _replaced(Stream, "append", append),
        _replaced(Stream, "extend", extend),
        _replaced(Stream, "take", take),
        _replaced(answers, "encode_messages", _encode),
    ):
        yield


def _encode(prefix: bytes, first: int, data: Sequence[bytes | None]) -> bytes:
    return b"".join([b"event: message\ndata: %b\n\n" % one for one in data])

"""Where the work for an event is: lines of the parser that run for it, and shares of its whole way by function.

Lines and calls are counted, not timed: the same input gives the same numbers on every machine. The shares are a
profiler's, which makes calls dearer than they are; what is written in C counts to whom calls it or by its own name.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvloop

from bench.machine import ROOT
from bench.path import Way, events, in_reads
from bench.rounds import print_table
from shadowcat.wire import sse
from shadowcat.wire.sse import SseDecoder

_EVENTS = 2_000
_PROFILED = 20_000
_READ = 16 * 1024
_MOST = 16


def run() -> None:
    _print_parser()
    every = events(_PROFILED)
    for what, reads in (
        (f"reads of {_READ // 1024} KiB", in_reads(b"".join(every), _READ)),
        ("one event a read", every),
    ):
        print()
        _print_way(what, reads)


def _print_parser() -> None:
    usual = events(_EVENTS)
    without_name = [event.removeprefix(b"event: message\n") for event in usual]
    two_lines = [event.replace(b"data: ", b"data: \ndata: ") for event in usual]
    carriage_returns = [event.replace(b"\n", b"\r\n") for event in usual]
    inputs = {
        "large reads": in_reads(b"".join(usual), _READ),
        "one event a read": usual,
        "half an event a read": [half for event in usual for half in (event[:120], event[120:])],
        "large reads, no event field": in_reads(b"".join(without_name), _READ),
        "large reads, two data lines": in_reads(b"".join(two_lines), _READ),
        "large reads, CRLF": in_reads(b"".join(carriage_returns), _READ),
    }
    counted = {name: _lines_run(reads) for name, reads in inputs.items()}
    functions = ["read", "_with_plain_newlines", "_refuse_oversize", "_usual_events", "_parse_fields"]
    print_table(
        ["lines for an event", "in all", *functions],
        [
            [name, f"{lines.total():.1f}", *(f"{lines[function]:.1f}" for function in functions)]
            for name, lines in counted.items()
        ],
    )


def _lines_run(reads: list[bytes]) -> Counter[str]:
    """Lines of the parser that run for an event, by function."""
    decoder = SseDecoder()
    lines: Counter[str] = Counter()

    def trace(frame: FrameType, what: str, _: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != sse.__file__:
            return None
        if what == "line":
            lines[frame.f_code.co_name] += 1
        return trace

    decoded = 0
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for read in reads:
            decoded += len(decoder.read(read))
    finally:
        sys.settrace(before)
    assert decoded == _EVENTS
    return Counter({name: count / _EVENTS for name, count in lines.items()})  # type: ignore[misc]


def _print_way(what: str, reads: list[bytes]) -> None:
    profile = cProfile.Profile()
    way = Way(reads)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(way.call())
        profile.enable()
        runner.run(way.call())
        profile.disable()
    found = pstats.Stats(profile)
    # pstats has no types of its own for these.
    rows = [
        (own_s, calls, _name(*where))
        for where, (_, calls, own_s, _, _) in found.stats.items()  # type: ignore[attr-defined]
    ]
    whole_s = sum(own_s for own_s, _, _ in rows)
    calls = sum(calls for _, calls, _ in rows)
    rows.sort(reverse=True)
    print_table(
        [f"{what}: {calls / _PROFILED:.1f} calls for an event", "share", "calls"],
        [[name, f"{own_s / whole_s:.1%}", f"{calls / _PROFILED:.2f}"] for own_s, calls, name in rows[:_MOST]],
    )


def _name(path: str, line: int, function: str) -> str:
    if path == "~":
        return function
    source = Path(path)
    where = source.relative_to(ROOT) if source.is_relative_to(ROOT) else Path(source.name)
    return f"{where}:{line} {function}"

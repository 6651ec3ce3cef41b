"""Memory of 1,000 streams while events come on them, in a session each, beside relays that keep nothing, and nginx.

The log grows with the events, by what `allocations` tells; what is left of a stream without it stands beside it.
One relay stands on our own engine, so that the difference is the stored stream; the other on aiohttp.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import nginx
from bench.allocations import held_per_event
from bench.idle import raise_file_limit
from bench.machine import Child, measured_core, on_cores, other_cores
from bench.reverse import start
from bench.rounds import print_table
from bench.sessions import open_sessions
from bench.streams import Streams

STREAMS = 1_000
_WARM = 50
_FILES = 8 * STREAMS
_RATE = 10.0
_RELAYS = {
    "naive": "bench.servers.naive_stream_relay",
    "naive on aiohttp": "bench.servers.aiohttp_stream_relay",
}
_EVENTS = (0, 20, 100)
"""How many came on each stream when the memory is read."""


@dataclass(frozen=True, slots=True)
class Proxy:
    process: Child
    port: int
    has_sessions: bool = False


def run() -> None:
    raise_file_limit(_FILES)
    found = {name: _growth(name) for name in ("shadowcat", *_RELAYS, "nginx")}
    logged = held_per_event()
    found["shadowcat without its log"] = [
        grown - logged * events for grown, events in zip(found["shadowcat"], _EVENTS, strict=True)
    ]
    print_table(
        [f"{STREAMS:,} streams, RSS bytes each", *(f"after {events} events" for events in _EVENTS)],
        [[name, *(f"{size:,.0f}" for size in sizes)] for name, sizes in found.items()],
    )
    print_table(
        ["RATIO", *(f"after {events} events" for events in _EVENTS)],
        [
            [f"{ours} : {relay}", *(f"{a / b:.2f}" for a, b in zip(found[ours], found[relay], strict=True))]
            for relay in _RELAYS
            for ours in ("shadowcat", "shadowcat without its log")
        ],
    )


def _growth(name: str) -> list[float]:
    """Bytes for each stream, at each number of events."""
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.ticking_upstream", on=other_cores()))
        upstream_port = int(upstream.read_line())
        proxy = stack.enter_context(_started(name, upstream_port))
        stack.enter_context(on_cores(other_cores()))
        sessions: list[str | None] = [None] * (_WARM + STREAMS)
        if proxy.has_sessions:
            sessions = [*asyncio.run(open_sessions(proxy.port, _WARM + STREAMS))]
        # What the first streams make the proxy load and allocate stays, and is not theirs.
        first = Streams(proxy.port, upstream_port, "first", sessions[:_WARM])
        first.tick(_RATE, 1.0)
        first.end()
        before = proxy.process.rss_bytes()
        with Streams(proxy.port, upstream_port, "measured", sessions[_WARM:]) as streams:
            grown: list[float] = []
            come = 0
            for events in _EVENTS:
                if events > come:
                    streams.tick(_RATE, (events - come) / _RATE)
                    come = events
                grown.append((proxy.process.rss_bytes() - before) / STREAMS)
        return grown


@contextmanager
def _started(name: str, upstream_port: int) -> Iterator[Proxy]:
    with ExitStack() as stack:
        if name == "shadowcat":
            process, port = start(f"http://127.0.0.1:{upstream_port}/mcp")
            stack.enter_context(process)
        elif name in _RELAYS:
            process = stack.enter_context(
                Child.of_module(_RELAYS[name], str(upstream_port), on=measured_core())
            )
            port = int(process.read_line())
        else:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
            process, port = nginx.start(directory, upstream_port, measured_core())
            stack.enter_context(process)
        yield Proxy(process, port, has_sessions=name == "shadowcat")

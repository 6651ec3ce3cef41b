"""How late events come: 1,000 streams through `shadowcat reverse`, each with some events a second, beside nginx.

The server stamps each event with the machine's monotonic clock and the client, which shares a core with it, reads
the same clock. So the delays hold what those two add; what they add to nginx's is added to ours.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import nginx
from bench.idle import raise_file_limit
from bench.machine import Child, measured_core, on_cores, other_cores
from bench.reverse import start
from bench.rounds import Spread, in_turn, print_table, ratio
from bench.sessions import open_sessions
from bench.streams import Streams

STREAMS = 1_000
RATES = (20, 10, 5)
_SECONDS = 3.0
_ROUNDS = 3
_FILES = 8 * STREAMS
_KEPT_UP_S = 0.5
"""A proxy whose last event comes later than this after it was sent was given more than it can carry."""


@dataclass(frozen=True, slots=True)
class Sample:
    p50_ms: float
    p99_ms: float
    behind_s: float
    busy: float


def run() -> None:
    raise_file_limit(_FILES)
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.ticking_upstream", on=other_cores()))
        upstream_port = int(upstream.read_line())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        ours, our_port = start(f"http://127.0.0.1:{upstream_port}/mcp")
        stack.enter_context(ours)
        theirs, nginx_port = nginx.start(directory, upstream_port, measured_core())
        stack.enter_context(theirs)
        stack.enter_context(on_cores(other_cores()))
        sessions = asyncio.run(open_sessions(our_port, STREAMS))
        proxies = {
            "shadowcat": (ours, Streams(our_port, upstream_port, "shadowcat", sessions)),
            "nginx": (theirs, Streams(nginx_port, upstream_port, "nginx", [None] * STREAMS)),
        }
        for _, streams in proxies.values():
            stack.enter_context(streams)
        for rate in RATES:
            measures = {
                name: lambda proxy=proxy, streams=streams, rate=rate: _measure(proxy, streams, rate)
                for name, (proxy, streams) in proxies.items()
            }
            _print(rate, in_turn(measures, _ROUNDS))


def _measure(proxy: Child, streams: Streams, rate: float) -> Sample:
    before = proxy.cpu_s()
    delivery = streams.tick(rate, _SECONDS)
    cpu_s = proxy.cpu_s() - before
    percentiles = statistics.quantiles(delivery.delays_ns, n=100)
    elapsed_s = _SECONDS + delivery.behind_s
    return Sample(percentiles[49] / 1e6, percentiles[98] / 1e6, delivery.behind_s, cpu_s / elapsed_s)


def _print(rate: float, found: dict[str, list[Sample]]) -> None:
    print_table(
        [f"{STREAMS:,} streams, {rate}/s each", "p50 ms", "p99 ms", "of its core", ""],
        [
            [
                name,
                Spread.of([sample.p50_ms for sample in samples]).text(".1f"),
                Spread.of([sample.p99_ms for sample in samples]).text(".1f"),
                Spread.of([sample.busy for sample in samples]).text(),
                _verdict(samples),
            ]
            for name, samples in found.items()
        ],
    )
    p99s = {name: [sample.p99_ms for sample in samples] for name, samples in found.items()}
    print_table(
        ["RATIO", "p99"], [["shadowcat : nginx", ratio(p99s["shadowcat"], p99s["nginx"]).text(".1f")]]
    )
    print()


def _verdict(samples: list[Sample]) -> str:
    behind_s = statistics.median(sample.behind_s for sample in samples)
    if behind_s <= _KEPT_UP_S:
        return "kept up"
    return f"{behind_s:.1f} s behind after {_SECONDS:.0f} s: carries {_SECONDS / (_SECONDS + behind_s):.0%} of this"

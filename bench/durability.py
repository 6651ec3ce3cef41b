"""What a store costs: calls, one long stream and many slow ones through `reverse` without a store, and with each.

Once with every core of the machine, as a proxy has them that nobody confines, and once with one, where what a store's
thread does is taken from the loop.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import load
from bench.idle import raise_file_limit
from bench.machine import Child, cores, measured_core, on_cores, other_cores
from bench.reverse import CONNECTIONS, open_session, start
from bench.rounds import Spread, in_turn, print_table, ratio
from bench.sessions import open_sessions
from bench.store_redis import redis_server
from bench.stream import read_stream
from bench.streams import Streams

EVENTS = 100_000
STREAMS = 200
RATE = 10.0
_ROUNDS = 5
_CALLS_S = 2
_TICKS_S = 2.0
_FILES = 8 * STREAMS

REFERENCE = "memory"


@dataclass(frozen=True, slots=True)
class Sample:
    calls: float
    calls_p99_ms: float
    events: float
    delay_p99_ms: float


class Kept:
    """A proxy with a store, and the sessions that are loaded through it."""

    def __init__(self, stack: ExitStack, upstreams: dict[str, int], on: set[int], *store: str) -> None:
        self._upstreams = upstreams
        self._ports: dict[str, int] = {}
        for kind, upstream_port in upstreams.items():
            url = f"http://127.0.0.1:{upstream_port}/mcp"
            options = [option.replace("KIND", kind) for option in store]
            proxy, self._ports[kind] = start(url, *options, on=on)
            stack.enter_context(proxy)
        self._session = {kind: open_session(port) for kind, port in self._ports.items()}
        sessions = asyncio.run(open_sessions(self._ports["ticks"], STREAMS))
        self._streams = Streams(self._ports["ticks"], upstreams["ticks"], " ".join(store), sessions)
        stack.enter_context(self._streams)

    def measure(self) -> Sample:
        loaded = load.apply(
            f"http://127.0.0.1:{self._ports['calls']}/mcp",
            connections=CONNECTIONS,
            seconds=_CALLS_S,
            headers=(f"Mcp-Session-Id: {self._session['calls']}", "MCP-Protocol-Version: 2025-11-25"),
        )
        began = time.monotonic()
        read_stream(self._ports["stream"], f"Mcp-Session-Id: {self._session['stream']}\r\n".encode())
        stream_s = time.monotonic() - began
        delays_ns = self._streams.tick(RATE, _TICKS_S).delays_ns
        p99_ms = statistics.quantiles(delays_ns, n=100)[98] / 1e6
        return Sample(loaded.rate, loaded.p99_us / 1e3, EVENTS / stream_s, p99_ms)


def run() -> None:
    raise_file_limit(_FILES)
    for where, on in (("every core", set(cores())), ("one core", measured_core())):
        _print(where, _measured(on))


def _measured(on: set[int]) -> dict[str, list[Sample]]:
    """With the proxy on those cores."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        stack.enter_context(redis_server(directory))
        upstreams = {
            "calls": _upstream(stack, "bench.servers.mcp_upstream"),
            "stream": _upstream(stack, "bench.servers.event_upstream", str(EVENTS)),
            "ticks": _upstream(stack, "bench.servers.ticking_upstream"),
        }
        stack.enter_context(on_cores(other_cores()))
        return in_turn(_measures(stack, upstreams, directory, on), _ROUNDS)


def _upstream(stack: ExitStack, module: str, *arguments: str) -> int:
    return int(stack.enter_context(Child.of_module(module, *arguments, on=other_cores())).read_line())


def _measures(
    stack: ExitStack, upstreams: dict[str, int], directory: Path, on: set[int]
) -> dict[str, Callable[[], Sample]]:
    kept = {
        REFERENCE: Kept(stack, upstreams, on, "--store", "memory:"),
        **{
            f"{name}, {durability}": Kept(stack, upstreams, on, "--store", url, "--durability", durability)
            for name, where in (
                ("sqlite", f"sqlite:///{directory}/{{}}-KIND.db"),
                ("redis", f"redis+unix://{directory}/redis.sock?namespace={{}}-KIND"),
            )
            for durability in ("async", "strict")
            for url in [where.format(durability)]
        },
    }
    measures = {name: proxy.measure for name, proxy in kept.items()}
    in_turn(measures, 1)
    return measures


def _print(where: str, found: dict[str, list[Sample]]) -> None:
    print_table(
        [
            where,
            f"calls/s, {CONNECTIONS} at a time",
            "p99 ms",
            "events/s, one stream",
            f"p99 ms, {STREAMS} streams",
        ],
        [
            [
                name,
                Spread.of([sample.calls for sample in samples]).text(",.0f"),
                Spread.of([sample.calls_p99_ms for sample in samples]).text(".1f"),
                Spread.of([sample.events for sample in samples]).text(",.0f"),
                Spread.of([sample.delay_p99_ms for sample in samples]).text(".1f"),
            ]
            for name, samples in found.items()
        ],
    )
    reference = found.pop(REFERENCE)
    rows = [
        [
            f"{name} : {REFERENCE}",
            *(
                ratio(
                    [getattr(sample, what) for sample in samples],
                    [getattr(sample, what) for sample in reference],
                ).text()
                for what in Sample.__slots__
            ),
        ]
        for name, samples in found.items()
    ]
    print_table(["RATIO", "calls/s", "p99", "events/s", "p99 of events"], rows)

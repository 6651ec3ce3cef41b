"""Proxies under the same load in turn: requests per second, CPU time per request, latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import load
from bench.machine import Child
from bench.rounds import Spread, in_turn, print_table, ratio

_BUSY = 0.85
_ENOUGH_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Contender:
    url: str
    process: Child
    headers: tuple[str, ...] = ()
    """Header lines of every request to this one, such as a session's."""


@dataclass(frozen=True, slots=True)
class Sample:
    rate: float
    cpu_us: float
    p50_us: float
    busy: float
    """The part of its core that the proxy used."""


def _measure(contender: Contender, connections: int, seconds: int) -> Sample:
    before = contender.process.cpu_s()
    done = load.apply(contender.url, connections=connections, seconds=seconds, headers=contender.headers)
    cpu_s = contender.process.cpu_s() - before
    return Sample(done.rate, cpu_s / done.requests * 1e6, done.p50_us, cpu_s / done.seconds)


def rounds_of(
    contenders: Mapping[str, Contender], *, connections: int, rounds: int, seconds: int
) -> dict[str, list[Sample]]:
    """One unrecorded round opens the connections and warms the caches."""
    measures = {
        name: lambda contender=contender: _measure(contender, connections, seconds)
        for name, contender in contenders.items()
    }
    in_turn(measures, 1)
    return in_turn(measures, rounds)


def print_throughput(samples: Mapping[str, Sequence[Sample]], ours: str, connections: int) -> None:
    rows = [
        [
            name,
            Spread.of([sample.rate for sample in found]).text(",.0f"),
            Spread.of([sample.cpu_us for sample in found]).text(".1f"),
            Spread.of([sample.busy for sample in found]).text(),
        ]
        for name, found in samples.items()
    ]
    print_table([f"{connections} connections", "requests/s", "CPU µs/request", "of its core"], rows)
    print_table(
        ["RATIO", "requests/s", "CPU time/request"],
        [
            [
                f"{ours} : {name}",
                _rate_ratio(samples[ours], found),
                ratio([s.cpu_us for s in samples[ours]], [s.cpu_us for s in found]).text(".3g"),
            ]
            for name, found in samples.items()
            if name != ours
        ],
    )


def _rate_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> str:
    """Of the rounds in which both filled their core: otherwise other programs decided how fast they were."""
    full = [(a, b) for a, b in zip(ours, theirs, strict=True) if min(a.busy, b.busy) >= _BUSY]
    if len(full) < _ENOUGH_ROUNDS:
        return "the machine was busy"
    text = ratio([a.rate for a, _ in full], [b.rate for _, b in full]).text(".3g")
    return text if len(full) == len(ours) else f"{text} in {len(full)} of {len(ours)} rounds"


def print_latency(samples: Mapping[str, Sequence[Sample]], direct: str, ours: str, theirs: str) -> None:
    """What each adds to the way without a proxy."""
    straight = [sample.p50_us for sample in samples[direct]]
    p50s = {name: [sample.p50_us for sample in found] for name, found in samples.items()}
    added = {
        name: [p50 - base for p50, base in zip(found, straight, strict=True)] for name, found in p50s.items()
    }
    print_table(
        ["1 connection", "p50 µs", "added p50 µs"],
        [[name, Spread.of(p50s[name]).text(".0f"), Spread.of(added[name]).text(".0f")] for name in samples],
    )
    more = [a - b for a, b in zip(p50s[ours], p50s[theirs], strict=True)]
    print(f"{ours} adds {Spread.of(more).text('+.0f')} µs more than {theirs}")
    print_table(["RATIO", "added p50"], [[f"{ours} : {theirs}", ratio(added[ours], added[theirs]).text()]])

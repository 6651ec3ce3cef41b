"""The load: wrk with tools/call requests that all have their own id."""

from __future__ import annotations

from dataclasses import dataclass

from bench.machine import ROOT, CannotMeasure, Child, other_cores, program

_SCRIPT = ROOT / "bench" / "tools_call.lua"
_SPARE_S = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    requests: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def apply(url: str, *, connections: int, seconds: int, headers: tuple[str, ...] = ()) -> Load:
    """Loads `url` for whole seconds (wrk knows no others). One failed request spoils the measurement."""
    arguments = [program("wrk"), "--threads=1", f"--connections={connections}", f"--duration={seconds}s"]
    arguments += [f"--script={_SCRIPT}", url, "--", *headers]
    with Child(arguments, other_cores()) as wrk:
        output = wrk.output(seconds + _SPARE_S)
    requests, microseconds, failed, p50_us, p99_us = output.rpartition("measured ")[2].split()
    if int(failed) or not int(requests):
        raise CannotMeasure(f"{failed} of {requests} requests to {url} failed")
    return Load(int(requests), int(microseconds) / 1e6, float(p50_us), float(p99_us))

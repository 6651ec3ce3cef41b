"""`python -m bench` runs the default set; `python -m bench relay idle` picks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from bench import (
    allocations,
    answers,
    bridges_contest,
    calls,
    cold_start,
    delivery,
    durability,
    envelope,
    hooks,
    hotpaths,
    idle,
    memory,
    metrics,
    reconnect,
    relay,
    restart,
    resume,
    reverse,
    sessions,
    sse,
    stdio_latency,
    store,
    store_redis,
    stream,
    tape,
    tracking,
)
from bench.machine import CannotMeasure, describe

BENCHMARKS: dict[str, Callable[[], None]] = {
    "relay": relay.run,
    "reverse": reverse.run,
    "answers": answers.run,
    "calls": calls.run,
    "hooks": hooks.run,
    "sessions": sessions.run,
    "stream": stream.run,
    "delivery": delivery.run,
    "resume": resume.run,
    "restart": restart.run,
    "reconnect": reconnect.run,
    "memory": memory.run,
    "metrics": metrics.run,
    "allocations": allocations.run,
    "tape": tape.run,
    "tracking": tracking.run,
    "hotpaths": hotpaths.run,
    "sse": sse.run,
    "bridges": bridges_contest.run,
    "cold-start": cold_start.run,
    "stdio-latency": stdio_latency.run,
    "store": store.run,
    "durability": durability.run,
    "store-redis": store_redis.run,
    "envelope": envelope.run,
    "idle": idle.run,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    print(describe())
    left_out = 0
    for name in names or BENCHMARKS:
        started = time.monotonic()
        print(f"\n== {name}", flush=True)
        try:
            BENCHMARKS[name]()
        except CannotMeasure as why:
            left_out += 1
            print(f"left out: {why}")
        else:
            print(f"({time.monotonic() - started:.0f} s)")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

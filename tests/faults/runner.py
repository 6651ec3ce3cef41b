"""The reverse proxy with limits that its command line has no option for, and a way to ask what it counts.

`python -m tests.faults.runner JSON`; a line on stdin is answered with its statistics as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, replace
from typing import Any

from shadowcat.app.logs import LogOptions, set_up
from shadowcat.app.process import DRAIN_S, run, until_stopped
from shadowcat.app.proxy import Cluster, ReverseProxy
from shadowcat.clock import SystemClock
from shadowcat.core.stream import LogLimits
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.http.limits import ClientLimits, ServerLimits
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.writer import Durability
from shadowcat.secret import Secret
from shadowcat.stores.urls import store_of
from shadowcat.upstream.fallback import UrlUpstream
from shadowcat.upstream.streamable import CALL


def statistics(proxy: ReverseProxy) -> dict[str, Any]:
    shared = proxy.shared
    upstream = shared.upstreams.named("numbers")
    assert isinstance(upstream, UrlUpstream)
    return {
        **asdict(shared.counters),
        **asdict(upstream.streamable.streams),
        "sessions": len(proxy.relay.sessions),
        "held_bytes": shared.log_budget.used,
        "connections": proxy.server.statistics().connections,
        "slow_closed": proxy.server.statistics().slow_closed,
        "idle_upstream": sum(pool.idle for pool in proxy._client.statistics().values()),
        "store_failing": shared.writer is not None and shared.writer.is_failing,
        "store_waiting": 0 if shared.writer is None else len(shared.writer),
        "tasks": len(asyncio.all_tasks()),
        "names": sorted(task.get_name() for task in asyncio.all_tasks()),
    }


def _cluster(port: int, lease_s: float, **_: Any) -> Cluster:
    return Cluster(f"http://127.0.0.1:{port}", Secret("a key that the nodes share"), lease_s)


async def serve(options: dict[str, Any]) -> None:
    log = LogLimits(**options.get("log", {}))
    proxy = ReverseProxy(
        {"numbers": options["upstream"]},
        port=options.get("port", 0),
        endpoint=EndpointOptions(**options.get("endpoint", {})),
        session_limits=SessionLimits(log=log, **options.get("session", {})),
        server_limits=ServerLimits(**options.get("server", {})),
        call_timeouts=replace(CALL, **options.get("call", {})),
        store=store_of(options.get("store", "memory:"), SystemClock()),
        durability=Durability(**options.get("durability", {})),
        cluster=_cluster(**options) if "lease_s" in options else None,
    )

    if "upstream_vanished_s" in options:
        # Before its first connection.
        proxy._client._limits = ClientLimits(vanished_s=options["upstream_vanished_s"])

    def asked() -> None:
        if sys.stdin.readline():
            print(json.dumps(statistics(proxy)), flush=True)
        else:
            asyncio.get_running_loop().remove_reader(sys.stdin)

    def serving() -> None:
        print(f"serving http://127.0.0.1:{proxy.port}/mcp", flush=True)

    async with proxy:
        asyncio.get_running_loop().add_reader(sys.stdin, asked)
        await until_stopped(lambda: proxy.drain(options.get("drain_s", DRAIN_S)), serving)


if __name__ == "__main__":
    set_up(LogOptions())
    run(serve(json.loads(sys.argv[1])))

"""A plain relay through our server and client, against nginx and against aiohttp.

Each proxy has a core to itself; the load and the server behind share the other one, and both are cheap enough
together that a proxy fills its core first.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import nginx
from bench.contest import Contender, print_latency, print_throughput, rounds_of
from bench.machine import Child, measured_core, other_cores

CONNECTIONS = 32


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        upstream_port = upstream.read_line()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        proxies: dict[str, Contender] = {}
        for name in ("shadowcat", "aiohttp"):
            relay = stack.enter_context(
                Child.of_module(f"bench.servers.{name}_relay", upstream_port, on=measured_core())
            )
            proxies[name] = Contender(_url(relay.read_line()), relay)
        theirs, port = nginx.start(directory, int(upstream_port), measured_core())
        proxies["nginx"] = Contender(_url(port), stack.enter_context(theirs))

        loaded = rounds_of(proxies, connections=CONNECTIONS, rounds=9, seconds=2)
        print_throughput(loaded, "shadowcat", CONNECTIONS)
        print()
        ways = {"direct": Contender(_url(upstream_port), upstream), **proxies}
        print_latency(rounds_of(ways, connections=1, rounds=7, seconds=1), "direct", "shadowcat", "nginx")


def _url(port: int | str) -> str:
    return f"http://127.0.0.1:{port}/mcp"

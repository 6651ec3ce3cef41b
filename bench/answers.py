"""`tools/call` in a session, answered by an event stream with nothing else on it, as the official SDKs' servers answer.

nginx passes the bytes on. The proxy gives the client a stream of its own, with ids to come back by, and keeps it; with
a store, that is written before the client hears of it.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import nginx, reverse
from bench.contest import Contender, print_throughput, rounds_of
from bench.machine import Child, measured_core, other_cores


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(
            Child.of_module("bench.servers.mcp_upstream", "events", on=other_cores())
        )
        upstream_port = int(upstream.read_line())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        theirs, nginx_port = nginx.start(directory, upstream_port, measured_core())
        proxies: dict[str, Contender] = {}
        for name, store in (("shadowcat", "memory:"), ("with SQLite", f"sqlite:///{directory}/sessions.db")):
            process, port = reverse.start(f"http://127.0.0.1:{upstream_port}/mcp", "--store", store)
            stack.enter_context(process)
            proxies[name] = Contender(_url(port), process, _session(port))
        session = proxies["shadowcat"].headers
        proxies["nginx"] = Contender(_url(nginx_port), stack.enter_context(theirs), session)
        found = rounds_of(proxies, connections=reverse.CONNECTIONS, rounds=7, seconds=2)
        print_throughput(found, "shadowcat", reverse.CONNECTIONS)


def _session(port: int) -> tuple[str, ...]:
    return (f"Mcp-Session-Id: {reverse.open_session(port)}", "MCP-Protocol-Version: 2025-11-25")


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"

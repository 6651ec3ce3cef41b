"""Memory of kept-alive connections on which nothing happens, each after one request and its answer."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack

from bench.machine import CannotMeasure, Child, measured_core
from bench.rounds import print_table

CONNECTIONS = 10_000
_SPARE_FILES = 200
_WARM_UP = 500
_REQUEST = (
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)
_TIMEOUT_S = 10.0


def run() -> None:
    allowed = raise_file_limit(CONNECTIONS + _SPARE_FILES)
    connections = min(CONNECTIONS, allowed - _SPARE_FILES)
    if connections < CONNECTIONS:
        print(f"note: {allowed:,} open files are allowed here, so there are {connections:,} connections")
    found = {
        name: _bytes_each(f"bench.servers.{name}_idle", connections) for name in ("shadowcat", "aiohttp")
    }
    print_table(
        [f"{connections:,} connections", "bytes RSS each"],
        [[name, f"{size:,.0f}"] for name, size in found.items()],
    )
    print_table(["RATIO", "bytes"], [["shadowcat : aiohttp", f"{found['shadowcat'] / found['aiohttp']:.2f}"]])


def raise_file_limit(wanted: int) -> int:
    """Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _bytes_each(module: str, connections: int) -> float:
    with ExitStack() as stack:
        server = stack.enter_context(Child.of_module(module, on=measured_core()))
        port = int(server.read_line())
        # What the first connections make the server load and allocate stays, and is not theirs.
        with ExitStack() as first:
            for _ in range(_WARM_UP):
                first.enter_context(_exchange(port))
        before = server.rss_bytes()
        for _ in range(connections):
            stack.enter_context(_exchange(port))
        return (server.rss_bytes() - before) / connections


def _exchange(port: int) -> socket.socket:
    """One request and its answer on a connection that is then kept."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
    connection.sendall(_REQUEST)
    answer = b""
    while not answer.endswith(b"\r\n\r\n{}"):
        received = connection.recv(4096)
        if not received:
            raise CannotMeasure(f"the server closed a connection after {answer[:100]!r}")
        answer += received
    return connection

"""What a broken upstream connection costs a stream beyond the wait that is meant: from the cut to the next event.

The server asks for a wait of exactly as long as the proxy would wait at least, so that it is known and can be taken
off. What remains is noticing, connecting, asking, and the way of the event to the client.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import ExitStack

from bench.machine import CannotMeasure, Child, on_cores, other_cores
from bench.reverse import open_session, start
from bench.rounds import Spread, print_table
from shadowcat.upstream.events import ReconnectPolicy

CUTS = 40
_CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"index"}}'
_REQUEST = (
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
    b"Content-Type: application/json\r\nMcp-Session-Id: %b\r\nContent-Length: %d\r\n\r\n%b"
)
_find_cuts = re.compile(rb'"cut":"([0-9]{19})').findall
_READ = 64 * 1024
_DEADLINE_S = 10.0


def run() -> None:
    wait_s = ReconnectPolicy().first_s
    with ExitStack() as stack:
        upstream = stack.enter_context(
            Child.of_module(
                "bench.servers.cut_upstream", str(CUTS), str(round(wait_s * 1e3)), on=other_cores()
            )
        )
        proxy, port = start(f"http://127.0.0.1:{upstream.read_line()}/mcp")
        stack.enter_context(proxy)
        stack.enter_context(on_cores(other_cores()))
        beyond_ms = [(spent_s - wait_s) * 1e3 for spent_s in _outages(port)]
    print_table(
        [f"{len(beyond_ms)} cuts", "ms beyond the wait"],
        [[f"reset in an event, {wait_s:.1f} s wait", Spread.of(beyond_ms).text(".1f")]],
    )


def _outages(port: int) -> list[float]:
    """From each cut to the event after it. None of them must be lost or come twice."""
    session = open_session(port).encode()
    found: list[float] = []
    tail = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as connection:
        connection.sendall(_REQUEST % (session, len(_CALL), _CALL))
        while b'"result"' not in tail:
            data = connection.recv(_READ)
            now = time.monotonic_ns()
            if not data:
                raise CannotMeasure(f"the stream ended after {len(found)} cuts: {tail!r}")
            found += [(now - int(stamp)) / 1e9 for stamp in _find_cuts(data) if int(stamp)]
            tail = data
    if len(found) != CUTS:
        raise CannotMeasure(f"{len(found)} of {CUTS} events came after their cuts: {tail!r}")
    return found

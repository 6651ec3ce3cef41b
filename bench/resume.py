"""Coming back: GET with Last-Event-ID, until the last of 1,000 missed events, beside nginx that brings the same events.

The proxy answers out of the log of a finished call. nginx has the server write the events anew, which has them ready.
"""

from __future__ import annotations

import re
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench import nginx
from bench.machine import CannotMeasure, Child, measured_core, on_cores, other_cores
from bench.reverse import open_session, start
from bench.rounds import Spread, in_turn, print_table, ratio

MISSED = 1_000
_ROUNDS = 200
_CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"index"}}'
_HEAD = (
    b"Host: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
)
_READ = 1024 * 1024
_DEADLINE_S = 10.0


def run() -> None:
    with ExitStack() as stack:
        # The response to the call is the last event that is missed.
        upstream = stack.enter_context(
            Child.of_module("bench.servers.event_upstream", str(MISSED - 1), on=other_cores())
        )
        upstream_port = int(upstream.read_line())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        ours, our_port = start(f"http://127.0.0.1:{upstream_port}/mcp")
        stack.enter_context(ours)
        theirs, nginx_port = nginx.start(directory, upstream_port, measured_core())
        stack.enter_context(theirs)
        stack.enter_context(on_cores(other_cores()))
        session = b"Mcp-Session-Id: %b\r\n" % open_session(our_port).encode()
        cursor = b"Last-Event-ID: %b\r\n" % _call(our_port, session)
        found = in_turn(
            {
                "shadowcat": lambda: _milliseconds(our_port, session + cursor),
                "nginx": lambda: _milliseconds(nginx_port, b""),
            },
            _ROUNDS,
        )
    print_table(
        [f"{MISSED:,} events", "ms to the last"],
        [[name, Spread.of(times).text()] for name, times in found.items()],
    )
    print_table(["RATIO", "time"], [["shadowcat : nginx", ratio(found["shadowcat"], found["nginx"]).text()]])


def _call(port: int, session: bytes) -> bytes:
    """Makes the call and reads it to its end; returns the id from which everything was missed."""
    request = b"POST /mcp HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b"
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as connection:
        connection.sendall(request % (_HEAD, session, len(_CALL), _CALL))
        answer = _read_to_result(connection)
    priming = re.search(rb"\nid: (\S+)\n", answer)
    if priming is None:
        raise CannotMeasure(f"a call was answered with {answer[:100]!r}")
    return priming[1]


def _milliseconds(port: int, more: bytes) -> float:
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as connection:
        started = time.perf_counter()
        connection.sendall(b"GET /mcp HTTP/1.1\r\n%b%b\r\n" % (_HEAD, more))
        answer = _read_to_result(connection)
        spent_s = time.perf_counter() - started
    events = answer.count(b"\nevent: message")
    # nginx's chunks end anywhere, and what one cuts in two is not found.
    if not MISSED - 10 <= events <= MISSED:
        raise CannotMeasure(f"{events} events came, {MISSED} were missed")
    return spent_s * 1e3


def _read_to_result(connection: socket.socket) -> bytes:
    answer = bytearray()
    while b'"result"' not in answer[-256:]:
        data = connection.recv(_READ)
        if not data:
            raise CannotMeasure(f"the stream ended after {bytes(answer[:100])!r}")
        answer += data
    return bytes(answer)

"""One stream of many events through `shadowcat reverse`, against nginx and against a relay without a log.

The proxy drops repeated events, gives each an id of its own and keeps it for a resume; nginx passes bytes on.
"""

from __future__ import annotations

import socket
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import nginx
from bench.machine import CannotMeasure, Child, measured_core, other_cores
from bench.reverse import open_session, start
from bench.rounds import Spread, in_turn, print_table, ratio

EVENTS = 500_000
_ROUNDS = 5
_BODY = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"index"}}'
_READ = 1024 * 1024
_DEADLINE_S = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    rate: float
    cpu_us: float
    grown_bytes: int


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(
            Child.of_module("bench.servers.event_upstream", str(EVENTS), on=other_cores())
        )
        upstream_port = int(upstream.read_line())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        ours, our_port = start(f"http://127.0.0.1:{upstream_port}/mcp")
        stack.enter_context(ours)
        naive = stack.enter_context(
            Child.of_module("bench.servers.naive_stream_relay", str(upstream_port), on=measured_core())
        )
        naive_port = int(naive.read_line())
        theirs, nginx_port = nginx.start(directory, upstream_port, measured_core())
        stack.enter_context(theirs)
        session = f"Mcp-Session-Id: {open_session(our_port)}\r\n".encode()
        measures = {
            "shadowcat": lambda: _measure(ours, our_port, session),
            "naive": lambda: _measure(naive, naive_port, b""),
            "nginx": lambda: _measure(theirs, nginx_port, b""),
        }
        in_turn(measures, 1)
        found = in_turn(measures, _ROUNDS)
    _print(found)


def _print(found: dict[str, list[Run]]) -> None:
    print_table(
        [f"{EVENTS:,} events", "events/s", "CPU µs/event", "memory grown by"],
        [
            [
                name,
                Spread.of([run.rate for run in runs]).text(",.0f"),
                Spread.of([run.cpu_us for run in runs]).text(".2f"),
                f"{max(run.grown_bytes for run in runs) / 2**20:.1f} MiB",
            ]
            for name, runs in found.items()
        ],
    )
    ours = [run.rate for run in found["shadowcat"]]
    print_table(
        ["RATIO", "events/s"],
        [
            [f"shadowcat : {name}", ratio(ours, [run.rate for run in found[name]]).text()]
            for name in ("naive", "nginx")
        ],
    )


def _measure(proxy: Child, port: int, more: bytes) -> Run:
    cpu_s, rss = proxy.cpu_s(), proxy.rss_bytes()
    started = time.monotonic()
    events = read_stream(port, more)
    elapsed_s = time.monotonic() - started
    # nginx's chunks end anywhere, and what one cuts in two is not found.
    if events < EVENTS * 0.99:
        raise CannotMeasure(f"{events} events came, {EVENTS} were sent")
    return Run(EVENTS / elapsed_s, (proxy.cpu_s() - cpu_s) / EVENTS * 1e6, proxy.rss_bytes() - rss)


def read_stream(port: int, more: bytes) -> int:
    """Counts the events until the stream or its connection ends."""
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
        b"Content-Type: application/json\r\nConnection: close\r\n%bContent-Length: %d\r\n\r\n"
    )
    counted = 0
    tail = b""
    mark = b"data: {"
    with socket.create_connection(("127.0.0.1", port), timeout=_DEADLINE_S) as connection:
        connection.sendall(head % (more, len(_BODY)) + _BODY)
        while data := connection.recv(_READ):
            data = tail + data
            counted += data.count(mark)
            # A mark that was cut is whole in the next look, and one that was whole is not looked at twice.
            tail = data[1 - len(mark) :]
    return counted

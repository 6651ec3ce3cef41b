"""`tools/call` to one command through `forward http`, against other bridges from stdio to HTTP in the same run.

The command does nothing but answer, on another core, and so is not what limits anybody. Each bridge has one session,
with one process, as its own documentation tells to start it; logs are off where they can be.
"""

from __future__ import annotations

import socket
import sys
from contextlib import ExitStack

from bench.contest import Contender, Sample, print_throughput, rounds_of
from bench.machine import ROOT, CannotMeasure, Child, accepts, measured_core, other_cores, wait_until
from bench.provision import VENV, is_python_there
from bench.reverse import forwarded, open_session
from bench.rounds import print_table, ratio
from tests import needs
from tests.npm import BRIDGES

CONNECTIONS = 8
BAR = 3.0
START_S = 60.0
"""One of them loads for ten seconds on a busy machine."""


def run() -> None:
    command = (sys.executable, str(ROOT / "bench" / "servers" / "stdio_server.py"), *map(str, other_cores()))
    with ExitStack() as stack:
        ours, port = forwarded("--", *command)
        stack.enter_context(ours)
        contenders = {"shadowcat": _contender(ours, port)}
        for name, arguments in _others(command).items():
            port = int(arguments[arguments.index("--port") + 1])
            theirs = stack.enter_context(Child(arguments, measured_core()))
            wait_until(f"{name} did not start", lambda port=port: accepts(port), theirs, START_S)
            contenders[name] = _contender(theirs, port)
        found = rounds_of(contenders, connections=CONNECTIONS, rounds=5, seconds=2)
    print_throughput(found, "shadowcat", CONNECTIONS)
    _print_bar(found)


def _contender(process: Child, port: int) -> Contender:
    session = (f"Mcp-Session-Id: {open_session(port)}", "MCP-Protocol-Version: 2025-11-25")
    return Contender(f"http://127.0.0.1:{port}/mcp", process, session)


def _others(command: tuple[str, ...]) -> dict[str, list[str]]:
    if not BRIDGES.are_there() or not is_python_there():
        raise CannotMeasure("the other bridges are not installed")
    node, modules = str(needs.node()), BRIDGES.home / "node_modules"
    supergateway = str(modules / "supergateway" / "dist" / "index.js")
    mcp_proxy = str(modules / "mcp-proxy" / "dist" / "bin" / "mcp-proxy.mjs")
    python = str(VENV / "bin" / "mcp-proxy")
    return {
        "supergateway (npm)": [
            *(node, supergateway, "--stdio", " ".join(command), "--port", _free_port()),
            *("--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"),
        ],
        "mcp-proxy (npm)": [
            *(node, mcp_proxy, "--host", "127.0.0.1", "--port", _free_port(), "--server", "stream"),
            *("--", *command),
        ],
        "mcp-proxy (PyPI)": [python, "--port", _free_port(), "--log-level", "ERROR", "--", *command],
    }


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def _print_bar(found: dict[str, list[Sample]]) -> None:
    rates = {name: [sample.rate for sample in samples] for name, samples in found.items()}
    best = [max(rates[name][turn] for name in rates if name != "shadowcat") for turn in range(5)]
    print_table(
        ["RATIO", "calls/s"],
        [[f"shadowcat : the best of them (bar {BAR:g})", ratio(rates["shadowcat"], best).text(".3g")]],
    )

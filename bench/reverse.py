"""`tools/call` in a session through `shadowcat reverse`, against nginx on the same core in the same run.

nginx passes bytes on; the proxy reads them: JSON checked, session found, ids translated both ways. FastMCP's proxy
does the same job and stands beside it for scale: over fewer connections, because it would keep many waiting too long.
"""

from __future__ import annotations

import http.client
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench import nginx
from bench.contest import Contender, print_latency, print_throughput, rounds_of
from bench.machine import CannotMeasure, Child, accepts, measured_core, other_cores, wait_until

CONNECTIONS = 32
FEW_CONNECTIONS = 4
INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}'
)


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        upstream_port = int(upstream.read_line())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        reverse, port = start(f"http://127.0.0.1:{upstream_port}/mcp")
        stack.enter_context(reverse)
        session = (f"Mcp-Session-Id: {open_session(port)}", "MCP-Protocol-Version: 2025-11-25")
        theirs, nginx_port = nginx.start(directory, upstream_port, measured_core())
        proxies = {
            "shadowcat": Contender(_url(port), reverse, session),
            "nginx": Contender(_url(nginx_port), stack.enter_context(theirs), session),
        }
        loaded = rounds_of(proxies, connections=CONNECTIONS, rounds=9, seconds=2)
        print_throughput(loaded, "shadowcat", CONNECTIONS)
        print()
        ways = {"direct": Contender(_url(upstream_port), upstream, session), **proxies}
        print_latency(rounds_of(ways, connections=1, rounds=7, seconds=1), "direct", "shadowcat", "nginx")
        print()
        fastmcp = stack.enter_context(
            Child.of_module("bench.servers.fastmcp_proxy", str(upstream_port), on=measured_core())
        )
        fastmcp_port = int(fastmcp.read_line())
        wait_until("FastMCP's proxy did not start", lambda: accepts(fastmcp_port), fastmcp)
        session = (f"Mcp-Session-Id: {open_session(fastmcp_port)}", "MCP-Protocol-Version: 2025-11-25")
        few = {"shadowcat": proxies["shadowcat"], "FastMCP": Contender(_url(fastmcp_port), fastmcp, session)}
        slow = rounds_of(few, connections=FEW_CONNECTIONS, rounds=5, seconds=2)
        print_throughput(slow, "shadowcat", FEW_CONNECTIONS)


def start(upstream_url: str, *more: str, on: set[int] | None = None) -> tuple[Child, int]:
    """`shadowcat reverse` with those arguments too, on the measured core or the given ones, and the port it took."""
    return _started("reverse", "--upstream", upstream_url, *more, on=on)


def forwarded(*arguments: str) -> tuple[Child, int]:
    """The same of `shadowcat forward http`."""
    return _started("forward", "http", *arguments)


def _started(*arguments: str, on: set[int] | None = None) -> tuple[Child, int]:
    command = arguments[: 2 if arguments[0] == "forward" else 1]
    options = ("--listen", "127.0.0.1:0", "--log-level", "warning")
    words = [sys.executable, "-m", "shadowcat", *command, *options, *arguments[len(command) :]]
    child = Child(words, on or measured_core())
    try:
        said = child.read_line()
        found = re.search(r":([0-9]+)/", said)
        if found is None:
            raise CannotMeasure(f"the proxy said {said!r}")
    except CannotMeasure:
        child.close()
        raise
    return child, int(found[1])


def open_session(port: int) -> str:
    """The id of a new session."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    connection.request("POST", "/mcp", INITIALIZE, headers)
    response = connection.getresponse()
    session_id = response.getheader("Mcp-Session-Id")
    connection.close()
    if response.status != 200 or session_id is None:
        raise CannotMeasure(f"initialize was answered with {response.status}")
    return session_id


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/mcp"

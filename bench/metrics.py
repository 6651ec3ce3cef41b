"""What it costs that the numbers are scraped every second: CPU time per request of one proxy, scraped and not, in turn.

The proxy has a thousand sessions, because some numbers are sums over them.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from bench.load import apply
from bench.machine import CannotMeasure, Child, measured_core, other_cores
from bench.reverse import open_session
from bench.rounds import Spread, print_table

SESSIONS = 1_000
CONNECTIONS = 32
ROUNDS = 7
SECONDS = 4
EVERY_S = 1.0


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        proxy, url, metrics = _start(f"http://127.0.0.1:{int(upstream.read_line())}/mcp")
        stack.enter_context(proxy)
        port = int(url.rsplit(":")[-1].split("/")[0])
        ids = [open_session(port) for _ in range(SESSIONS)]
        headers = (f"Mcp-Session-Id: {ids[0]}", "MCP-Protocol-Version: 2025-11-25")

        def cpu_us() -> float:
            before = proxy.cpu_s()
            requests = apply(url, connections=CONNECTIONS, seconds=SECONDS, headers=headers).requests
            return (proxy.cpu_s() - before) / requests * 1e6

        cpu_us()
        plain: list[float] = []
        scraped: list[float] = []
        for number in range(ROUNDS):
            for is_scraped in (True, False) if number % 2 else (False, True):
                if is_scraped:
                    with _scraping(metrics):
                        scraped.append(cpu_us())
                else:
                    plain.append(cpu_us())
        ratios = Spread.of([a / b for a, b in zip(scraped, plain, strict=True)])
        print_table(
            [f"{SESSIONS} sessions, {CONNECTIONS} connections", "CPU µs a request"],
            [
                ["not scraped", Spread.of(plain).text(".1f")],
                [f"scraped every {EVERY_S:g} s", Spread.of(scraped).text(".1f")],
                ["ratio", ratios.text(".3f")],
            ],
        )
        print()
        # Of a machine that does other things too, this tells more than the ratio of two loads.
        each = Spread.of(_each(proxy, metrics))
        share = each.median / (EVERY_S * 1e3)
        print_table(
            ["one scrape", "CPU of the proxy, ms", "share of a core"],
            [[f"{SESSIONS} sessions", each.text(), f"{share:.2%}"]],
        )


def _start(upstream_url: str) -> tuple[Child, str, str]:
    """The proxy, its URL, and that of its numbers."""
    arguments = ["reverse", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store", "memory:"]
    child = Child(
        [sys.executable, "-m", "shadowcat", *arguments, "--log-level", "warning", "--upstream", upstream_url],
        measured_core(),
    )
    said = [child.read_line(), child.read_line()]
    found = re.fullmatch(r"serving (\S+) .*admin page on (\S+)", " ".join(said))
    if found is None:
        raise CannotMeasure(f"the proxy said {said!r}")
    return child, found[1], f"{found[2]}metrics"


@contextmanager
def _scraping(url: str) -> Generator[None]:
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(EVERY_S):
            _get(url)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _each(proxy: Child, url: str) -> list[float]:
    """Milliseconds of CPU, averaged over a second of scrapes: the system counts them in hundredths of a second."""
    found: list[float] = []
    for _ in range(5):
        before, scrapes, started = proxy.cpu_s(), 0, time.monotonic()
        while time.monotonic() - started < 1.0:
            _get(url)
            scrapes += 1
        found.append((proxy.cpu_s() - before) / scrapes * 1e3)
    return found


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=10) as answer:
        answer.read()

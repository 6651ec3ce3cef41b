"""What interceptors cost a `tools/call` in a session: nobody, one that wants something else, one that reads, five.

Each is a `shadowcat reverse` of its own on the measured core, and they take turns, so that the ratios are of one run.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.contest import Contender, rounds_of
from bench.machine import Child, other_cores
from bench.reverse import CONNECTIONS, open_session, start
from bench.rounds import Spread, print_table, ratio

PLUGINS = """
from shadowcat import PASS, Context, Interceptor, Message, Replace, Verdict
from shadowcat.core.pointer import parse_pointer, with_value

PLACE = parse_pointer("/params/_meta/seen")


class Elsewhere(Interceptor):
    methods = ("prompts/get",)

    def on_request(self, message: Message, context: Context) -> Verdict:
        return PASS

    def on_response(self, message: Message, context: Context) -> Verdict:
        return PASS


class Reads(Interceptor):
    def on_request(self, message: Message, context: Context) -> Verdict:
        message.params()
        return PASS


class Looks(Interceptor):
    async def on_request(self, message: Message, context: Context) -> Verdict:
        return PASS


class Edits(Interceptor):
    def on_request(self, message: Message, context: Context) -> Verdict:
        return Replace(with_value(message, PLACE, b"true"))
"""
CHAINS = {
    "none": (),
    "1, not interested": ("Elsewhere",),
    "1, reads the arguments": ("Reads",),
    "5, one edits, one is async": ("Elsewhere", "Reads", "Looks", "Edits", "Elsewhere"),
}


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        url = f"http://127.0.0.1:{int(upstream.read_line())}/mcp"
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-")))
        contenders = {
            name: _contender(stack, url, _file(directory, at), classes)
            for at, (name, classes) in enumerate(CHAINS.items())
        }
        samples = rounds_of(contenders, connections=CONNECTIONS, rounds=9, seconds=2)
    cpu_us = {name: [sample.cpu_us for sample in found] for name, found in samples.items()}
    rates = {name: [sample.rate for sample in found] for name, found in samples.items()}
    print_table(
        [f"interceptors, {CONNECTIONS} connections", "requests/s", "CPU µs/request", "CPU time : none"],
        [
            [
                name,
                Spread.of(rates[name]).text(",.0f"),
                Spread.of(found).text(".1f"),
                ratio(found, cpu_us["none"]).text(".3f"),
            ]
            for name, found in cpu_us.items()
        ],
    )


def _file(directory: Path, at: int) -> Path:
    path = directory / f"plugins_{at}.py"
    path.write_text(PLUGINS)
    return path


def _contender(stack: ExitStack, url: str, file: Path, classes: tuple[str, ...]) -> Contender:
    config = file.with_suffix(".toml")
    config.write_text(
        "".join(f'[plugins.p{at}]\nuse = "{file}:{name}"\n' for at, name in enumerate(classes)) or "\n"
    )
    child, port = start(url, "--config", str(config))
    stack.enter_context(child)
    session = (f"Mcp-Session-Id: {open_session(port)}", "MCP-Protocol-Version: 2025-11-25")
    return Contender(f"http://127.0.0.1:{port}/mcp", child, session)

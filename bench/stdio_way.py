"""A client on the stdio of a server, direct or behind a proxy: what both stdio benchmarks do with one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.machine import ROOT, CannotMeasure

INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}\n'
)
_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}\n'
)
SERVER = (sys.executable, str(ROOT / "bench" / "servers" / "stdio_server.py"))
SHADOWCAT = str(ROOT / ".venv" / "bin" / "shadowcat")
END_S = 20.0


def behind_shadowcat(command: tuple[str, ...]) -> tuple[str, ...]:
    """As an editor starts it: by the program that is installed."""
    return (SHADOWCAT, "forward", "stdio", "--", *command)


class Talk:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    def ask(self, line: bytes, id: int) -> None:
        self._stdin.write(line)
        self._stdin.flush()
        answer = self._stdout.readline()
        if not answer or json.loads(answer).get("id") != id:
            raise CannotMeasure(f"a request was answered with {answer!r}")

    def p50_us(self, calls: int) -> float:
        took: list[float] = []
        for id in range(1, calls + 1):
            line = _CALL % id
            started = time.perf_counter()
            self.ask(line, id)
            took.append(time.perf_counter() - started)
        return median(took) * 1e6


@contextmanager
def talking(command: tuple[str, ...]) -> Iterator[Talk]:
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Talk(process)
        process.communicate(timeout=END_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()

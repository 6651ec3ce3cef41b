"""A call through `reverse`, the same recorded or answered by an event stream, and one through the plain relay, without
sockets: what the process itself spends on each.

The proxy's own connections are put between transports that only keep what is written, with what `app` puts between
them. Where Python's time is spread evenly the number of bytecodes says as much as the time, and is the same each time;
some of both are the bench's own. `python -m bench.calls reverse 2000` makes so many calls and nothing else, for a
profiler.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, cast

import uvloop

from bench.rounds import Spread, in_turn, print_table, ratio
from bench.servers.shadowcat_relay import relay_to
from shadowcat.clock import SystemClock
from shadowcat.downstream.guard import Guard
from shadowcat.downstream.streamable import EndpointOptions, StreamableEndpoint
from shadowcat.http.client import Client, Origin
from shadowcat.http.connection import Connection
from shadowcat.http.limits import ServerLimits
from shadowcat.http.serving import Handler, Serving
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.proxy.pipeline import Pipeline
from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import SessionLimits, Shared
from shadowcat.proxy.upstreams import Upstreams
from shadowcat.upstream.streamable import StreamableUpstream

_CALLS = 2_000
_TRACED_CALLS = 200
_ROUNDS = 9
_PORT = 3000
_TURNS = 1_000
"""So many turns of the loop are far more than anything here takes."""
_HEAD = (
    b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Type: application/json\r\n"
    b"Accept: application/json, text/event-stream\r\nContent-Length: %d\r\n%b\r\n"
)
_INITIALIZE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"bench","version":"1"}}}'
)
_CALL = (
    b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search_documents",'
    b'"arguments":{"query":"quarterly revenue by region","limit":10,"offset":0,"language":"en"},'
    b'"_meta":{"progressToken":"b7d3f0a2-55c1-4b1e-9f6e-2f1f0c9a7e11"}}}'
)
_ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = b"event: message\r\ndata: %b\r\n\r\n"
_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}'
)
_CALLED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"Three documents match: '
    b'q1-revenue.pdf, q2-revenue.pdf and regions.xlsx."}],"isError":false}}'
)


class Kept:
    """A transport that keeps what was last written. Its socket is quiet, and open as long as it is."""

    def __init__(self) -> None:
        self.written = b""
        self._socket, self._other_end = socket.socketpair()

    def write(self, data: bytes) -> None:
        self.written = data

    def has_written(self) -> bool:
        return bool(self.written)

    def take(self) -> bytes:
        written, self.written = self.written, b""
        return written

    def get_extra_info(self, name: str) -> Any:
        return {"socket": self._socket, "peername": ("127.0.0.1", _PORT)}.get(name)

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Loop(uvloop.Loop):
    """Connects to nobody."""

    async def create_connection(self, protocol_factory: Callable[[], Any], *_: Any, **__: Any) -> Any:
        transport = Kept()
        protocol = protocol_factory()
        protocol.connection_made(transport)
        servers.append((transport, protocol))
        return transport, protocol


servers: list[tuple[Kept, asyncio.Protocol]] = []
"""Our ends of the connections to the server."""


class Way:
    """One client's connection, whose calls are answered at once."""

    def __init__(
        self, handler: Handler, recorder: Recorder | None = None, *, answers_by_stream: bool = False
    ) -> None:
        self._recorder = recorder
        self._answers_by_stream = answers_by_stream
        self._client = Kept()
        serving = Serving(handler, ServerLimits(), date=b"date: now\r\n")
        self._connection = Connection(serving, is_late=False)
        self._connection.connection_made(cast(asyncio.Transport, self._client))
        self._server: tuple[Kept, asyncio.Protocol] | None = None
        self._fields = b""

    async def open_session(self) -> None:
        answer = await self._first(_INITIALIZE, _INITIALIZED)
        _, _, rest = answer.lower().partition(b"mcp-session-id: ")
        self._fields = b"Mcp-Session-Id: %b\r\n" % rest.partition(b"\r\n")[0]

    async def open(self) -> None:
        await self._first(_CALL % 0, _CALLED)

    async def _first(self, body: bytes, answer: bytes) -> bytes:
        self._ask(body)
        await _until(lambda: bool(servers))
        self._server = servers.pop()
        await _until(self._server[0].has_written)
        self._answer(answer)
        await _until(self._client.has_written)
        return self._client.take()

    async def call(self, count: int) -> None:
        """`count` calls, one after the other."""
        assert self._server is not None
        server, client = self._server[0], self._client
        for id in range(100_000_001, 100_000_001 + count):
            self._ask(_CALL % id)
            await _until(server.has_written)
            self._answer(_CALLED)
            await _until(client.has_written)
            assert client.take().startswith(b"HTTP/1.1 200")

    def wait_written(self) -> None:
        """What a thread does for these calls is of these calls."""
        while self._recorder is not None and self._recorder.statistics().held_bytes:
            time.sleep(0.005)

    def _ask(self, body: bytes) -> None:
        self._connection.data_received(_HEAD % (len(body), self._fields) + body)

    def _answer(self, answer: bytes) -> None:
        assert self._server is not None
        transport, connection = self._server
        asked = transport.take()
        at = asked.index(b'"id":') + 5
        body = answer % asked[at : asked.index(b",", at)]
        if not self._answers_by_stream or answer is not _CALLED:
            connection.data_received(_ANSWER_HEAD % len(body) + body)
            return
        # As the official SDKs' servers do: the head, the answer, the end.
        event = _EVENT % body
        connection.data_received(_STREAM_HEAD)
        connection.data_received(b"%x\r\n%b\r\n" % (len(event), event))
        connection.data_received(b"0\r\n\r\n")


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(_TURNS):  # an event would have to be set by what is measured
        await asyncio.sleep(0)
        if is_so():
            return
    raise TimeoutError("what was waited for did not come")


async def reverse(_: ExitStack) -> Way:
    return await _reverse(None)


async def recorded(stack: ExitStack) -> Way:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="shadowcat-bench-"))
    recorder = Recorder(RecordOptions(directory=directory))
    recorder.start()
    stack.callback(recorder.close)
    return await _reverse(recorder)


async def answered_by_stream(_: ExitStack) -> Way:
    return await _reverse(None, answers_by_stream=True)


async def _reverse(recorder: Recorder | None, *, answers_by_stream: bool = False) -> Way:
    shared = Shared(
        upstreams=Upstreams([StreamableUpstream("main", f"http://127.0.0.1:{_PORT}/mcp", Client())]),
        store=None,
        pipeline=Pipeline((), () if recorder is None else (recorder,)),
        clock=SystemClock(),
        limits=SessionLimits(),
    )
    endpoint = StreamableEndpoint(Relay(shared), EndpointOptions(), Guard(loopback=True))
    way = Way(endpoint.handle, recorder, answers_by_stream=answers_by_stream)
    await way.open_session()
    return way


async def relay(_: ExitStack) -> Way:
    way = Way(relay_to(Client(), Origin("http", "127.0.0.1", _PORT)))
    await way.open()
    return way


WAYS: dict[str, Callable[[ExitStack], Awaitable[Way]]] = {
    "reverse": reverse,
    "reverse, recorded": recorded,
    "reverse, answered by a stream": answered_by_stream,
    "relay": relay,
}


def run() -> None:
    with ExitStack() as stack, asyncio.Runner(loop_factory=_Loop) as runner:
        ways = {name: runner.run(_opened(name, stack)) for name in WAYS}
        measures = {name: _timer(runner, way) for name, way in ways.items()}
        in_turn(measures, 1)
        found = in_turn(measures, _ROUNDS)
        bytecodes = {name: runner.run(_bytecodes(way)) for name, way in ways.items()}
    print_table(
        ["a call without sockets", "CPU µs", "of reverse's", "bytecodes", "of reverse's"],
        [
            [
                name,
                Spread.of([1e6 * spent for spent in times]).text(".0f"),
                ratio(times, found["reverse"]).text(),
                f"{bytecodes[name]:,.0f}",
                f"{bytecodes[name] / bytecodes['reverse']:.3f}",
            ]
            for name, times in found.items()
        ],
    )


async def _opened(name: str, stack: ExitStack) -> Way:
    return await WAYS[name](stack)


def _timer(runner: asyncio.Runner, way: Way) -> Callable[[], float]:
    def timed() -> float:
        started = time.process_time()
        runner.run(way.call(_CALLS))
        way.wait_written()
        return (time.process_time() - started) / _CALLS

    return timed


async def _bytecodes(way: Way) -> float:
    """That a call runs in this thread."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    sys.settrace(trace)
    try:
        await way.call(_TRACED_CALLS)
    finally:
        sys.settrace(None)
    return count / _TRACED_CALLS


async def _only(name: str, count: int, stack: ExitStack) -> None:
    await (await _opened(name, stack)).call(count)


if __name__ == "__main__":
    with ExitStack() as stack, asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_only(sys.argv[1], int(sys.argv[2]), stack))

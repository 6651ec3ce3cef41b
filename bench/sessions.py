"""Memory of 1,000 sessions that do nothing, and of 1,000 that each hold an event stream open."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from contextlib import ExitStack

from bench.machine import CannotMeasure, Child, other_cores
from bench.reverse import INITIALIZE, start
from bench.rounds import print_table

SESSIONS = 1_000
_WARM = 50
_HEAD = (
    b"Host: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\n"
)
_DEADLINE_S = 60.0


def run() -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(Child.of_module("bench.servers.mcp_upstream", on=other_cores()))
        proxy, port = start(f"http://127.0.0.1:{upstream.read_line()}/mcp")
        stack.enter_context(proxy)
        idle, streaming = asyncio.run(_measure(proxy, port))
    print_table(
        [f"{SESSIONS:,} sessions", "RSS bytes each"],
        [["idle", f"{idle:,.0f}"], ["with an open stream, on top", f"{streaming:,.0f}"]],
    )


async def _measure(proxy: Child, port: int) -> tuple[float, float]:
    async with asyncio.timeout(_DEADLINE_S):
        await open_sessions(port, _WARM)
        before = proxy.rss_bytes()
        ids = await open_sessions(port, SESSIONS)
        idle = proxy.rss_bytes()
        streams = [await _open_stream(port, session_id) for session_id in ids]
        streaming = proxy.rss_bytes()
        for writer in streams:
            writer.close()
    return (idle - before) / SESSIONS, (streaming - idle) / SESSIONS


async def open_sessions(port: int, count: int) -> list[str]:
    """Their ids. Over one connection, so that connections do not count."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ids: list[str] = []
    for _ in range(count):
        writer.write(
            b"POST /mcp HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (_HEAD, len(INITIALIZE), INITIALIZE)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: ([0-9]+)", head)
        session_id = re.search(rb"(?i)mcp-session-id: (\S+)", head)
        if length is None or session_id is None:
            raise CannotMeasure(f"initialize was answered with {head.splitlines()[0]!r}")
        await reader.readexactly(int(length[1]))
        ids.append(session_id[1].decode())
    writer.close()
    return ids


async def _open_stream(port: int, session_id: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # The end of a run leaves no thousand sockets in TIME_WAIT behind.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.write(b"GET /mcp HTTP/1.1\r\n%bMcp-Session-Id: %b\r\n\r\n" % (_HEAD, session_id.encode()))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise CannotMeasure(f"GET was answered with {head.splitlines()[0]!r}")
    return writer

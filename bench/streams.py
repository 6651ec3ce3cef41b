"""Many open streams through one proxy, read by one loop, with events that the server behind it ticks out."""

from __future__ import annotations

import json
import re
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from bench.machine import CannotMeasure

_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
    "Content-Type: application/json\r\n{more}Content-Length: {length}\r\n\r\n"
)
_find_stamps = re.compile(rb'"at": ?"([0-9]{19})').findall
_STAMP = 26
_READ = 64 * 1024
_ANSWER_S = 10.0
_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Delivery:
    delays_ns: list[int]
    """From the server's write to our read, of each event."""
    behind_s: float
    """How long after the last one was sent the last one came."""


class Streams:
    """Calls of one group, each in the session given for it or, with `None`, in none."""

    def __init__(self, port: int, upstream_port: int, group: str, sessions: Sequence[str | None]) -> None:
        self._upstream_port = upstream_port
        self._group = group
        self._poll = select.epoll()
        self._open: dict[int, socket.socket] = {}
        self._tails: dict[int, bytes] = {}
        for session in sessions:
            self._add(_begin(port, group, session))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._open)

    def _add(self, stream: socket.socket) -> None:
        self._open[stream.fileno()] = stream
        self._tails[stream.fileno()] = b""
        self._poll.register(stream, select.EPOLLIN)

    def tick(self, rate: float, seconds: float) -> Delivery:
        """So many events a second on each stream; returns when all have come."""
        order = {"group": self._group, "rate": rate, "seconds": seconds}
        sent: int | None = None
        delays: list[int] = []
        last_stamp = 0
        deadline = time.monotonic() + seconds + _DRAIN_S
        with _order(self._upstream_port, "/tick", order) as server:
            self._poll.register(server, select.EPOLLIN)
            while sent is None or len(delays) < sent:
                if time.monotonic() > deadline:
                    raise CannotMeasure(f"{len(delays)} events came, {sent} were sent to {self._group}")
                for fd, _ in self._poll.poll(1.0):
                    if fd == server.fileno():
                        self._poll.unregister(server)
                        sent = _answer(server)
                        continue
                    stamps = self._read(fd)
                    now = time.monotonic_ns()
                    for stamp in stamps:
                        last_stamp = max(last_stamp, int(stamp))
                        delays.append(now - int(stamp))
        return Delivery(delays, (time.monotonic_ns() - last_stamp) / 1e9)

    def _read(self, fd: int) -> list[bytes]:
        data = self._open[fd].recv(_READ)
        if not data:
            raise CannotMeasure(f"a stream of {self._group} ended")
        data = self._tails[fd] + data
        stamps = _find_stamps(data)
        # A stamp that was cut is whole in the next look, and one that was whole is not looked at twice.
        self._tails[fd] = data[1 - _STAMP :]
        return stamps

    def end(self) -> None:
        """Has the server answer the calls, and waits until each is known to be over."""
        with _order(self._upstream_port, "/end", {"group": self._group}) as server:
            _answer(server)
        for stream in self._open.values():
            while b'"result"' not in stream.recv(_READ):
                pass
        self.close()

    def close(self) -> None:
        self._poll.close()
        for stream in self._open.values():
            stream.close()
        self._open.clear()


def _begin(port: int, group: str, session: str | None) -> socket.socket:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": group}}
    more = f"Mcp-Session-Id: {session}\r\n" if session is not None else ""
    stream = _post(port, "/mcp", call, more)
    # The end of a run leaves no thousand sockets in TIME_WAIT behind.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    head = stream.recv(_READ)
    if not head.startswith(b"HTTP/1.1 200"):
        raise CannotMeasure(f"a call was answered with {head[:100]!r}")
    return stream


def _order(port: int, path: str, order: dict[str, Any]) -> socket.socket:
    return _post(port, path, order, "")


def _answer(server: socket.socket) -> int:
    return int(server.recv(_READ).rpartition(b"\r\n\r\n")[2])


def _post(port: int, path: str, content: dict[str, Any], more: str) -> socket.socket:
    body = json.dumps(content, separators=(",", ":"))
    connection = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S)
    connection.sendall((_HEAD.format(path=path, more=more, length=len(body)) + body).encode())
    return connection

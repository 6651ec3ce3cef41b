"""The client that started us: lines from our stdin, lines to our stdout, with back-pressure both ways.

Pipes and sockets are read and written by the event loop. Files and terminals go through a thread and a pipe of ours:
epoll takes no files, and a terminal that was made non-blocking stays so for the shell that shares it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from threading import Thread
from typing import NamedTuple, cast

from shadowcat.wire.lines import MAX_LINE_BYTES, LineDecoder, OversizedLine

FLUSH_S = 5.0
"""How long the client may take to read what is left when we end."""

_CHUNK = 64 * 1024
_JOIN_S = 1.0


class ClientListener(NamedTuple):
    """Who hears the client."""

    lines: Callable[[Sequence[bytes | OversizedLine]], object]
    gone: Callable[[], object]
    """It says nothing more, or reads nothing more. May be called twice."""


class StdioClient:
    def __init__(
        self,
        listener: ClientListener,
        *,
        stdin: int = 0,
        stdout: int = 1,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._listener = listener
        self._fds = stdin, stdout
        self._decoder = LineDecoder(max_line_bytes)
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()
        self._written = asyncio.Event()
        self._is_closing = False

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._ends = _End(self._fds[0], is_input=True), _End(self._fds[1], is_input=False)
        self._writer, _ = await loop.connect_write_pipe(lambda: _Stdout(self), self._ends[1].file)
        await loop.connect_read_pipe(lambda: _Stdin(self), self._ends[0].file)

    def write_nowait(self, line: bytes) -> bool:
        """False where it would have to wait."""
        if self._turn.locked() or not self._room.is_set():
            return False
        self._send(line)
        return True

    async def write(self, line: bytes) -> None:
        """A client that reads nothing is waited for as long as it is there; one that is gone misses nothing."""
        async with self._turn:
            await self._room.wait()
            self._send(line)

    def _send(self, line: bytes) -> None:
        if not self._writer.is_closing():
            self._writer.write(line)

    def pause_reading(self) -> None:
        self._reader.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_closing:
            self._reader.resume_reading()

    def read_on(self, may: bool) -> None:
        """Whether there is room for more."""
        if may:
            self.resume_reading()
        else:
            self.pause_reading()

    async def aclose(self, within_s: float = FLUSH_S) -> None:
        """Returns when the client has all that was written, or has not read it in time."""
        self._is_closing = True
        self._reader.close()
        self._writer.close()
        try:
            async with asyncio.timeout(within_s):
                await self._written.wait()
        except TimeoutError:
            self._writer.abort()
            await self._written.wait()
        for end in self._ends:
            end.close()

    # What the operating system tells.

    def reads(self, stdin: asyncio.ReadTransport) -> None:
        # Told, not waited for: the first lines may come before a waiter wakes.
        self._reader = stdin

    def heard(self, data: bytes) -> None:
        if lines := self._decoder.feed(data):
            self._listener.lines(lines)

    def stdin_ended(self) -> None:
        if self._is_closing:
            return
        if (rest := self._decoder.close()) is not None:
            self._listener.lines([rest])
        self._listener.gone()

    def stdout_ended(self) -> None:
        self._room.set()
        self._written.set()
        if not self._is_closing:
            self._listener.gone()

    def may_write(self, may: bool) -> None:
        if may:
            self._room.set()
        else:
            self._room.clear()


class _Stdin(asyncio.Protocol):
    def __init__(self, client: StdioClient) -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._client.reads(cast(asyncio.ReadTransport, transport))

    def data_received(self, data: bytes) -> None:
        self._client.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.stdin_ended()


class _Stdout(asyncio.Protocol):
    def __init__(self, client: StdioClient) -> None:
        self._client = client

    def pause_writing(self) -> None:
        self._client.may_write(False)

    def resume_writing(self) -> None:
        self._client.may_write(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.stdout_ended()


class _End:
    """Our stdin or stdout as a pipe or socket that the event loop takes."""

    def __init__(self, fd: int, *, is_input: bool) -> None:
        self._fd = fd
        self._was_blocking = os.get_blocking(fd)
        self._thread: Thread | None = None
        mode = "rb" if is_input else "wb"
        if _is_pipe(fd):
            self.file = os.fdopen(os.dup(fd), mode, 0)
            return
        reads, writes = os.pipe()
        copied = (fd, writes, writes) if is_input else (reads, fd, reads)
        self.file = os.fdopen(reads if is_input else writes, mode, 0)
        # A daemon: nothing ends the reading of a terminal.
        self._thread = Thread(target=_copy, args=copied, name=f"fd {fd}", daemon=True)
        self._thread.start()
        self._is_input = is_input

    def close(self) -> None:
        """After the event loop has closed the file."""
        if self._thread is None:
            os.set_blocking(self._fd, self._was_blocking)
        elif not self._is_input:
            # What the loop wrote to the pipe must arrive.
            self._thread.join(_JOIN_S)


def _is_pipe(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _copy(source: int, destination: int, closed_after: int) -> None:
    try:
        while data := os.read(source, _CHUNK):
            while data:
                data = data[os.write(destination, data) :]
    except OSError:
        pass  # either side is gone, which the other notices by the end of the pipe
    finally:
        os.close(closed_after)

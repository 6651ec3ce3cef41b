"""A child process that speaks in lines: started without a shell, always read, written with back-pressure, reaped.

Plain pipes rather than the event loop's own subprocesses: those give the child sockets, and a script that writes to
/dev/stderr fails on one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, cast

from shadowcat.errors import Fault, FaultKind
from shadowcat.upstream.command import Command
from shadowcat.upstream.spawn import Spawned, spawned
from shadowcat.upstream.stderr import Stderr
from shadowcat.wire.lines import MAX_LINE_BYTES, LineDecoder, OversizedLine

Line = bytes | OversizedLine


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a child is waited for."""

    close_s: float = 5.0
    """To end by itself once its stdin is closed."""
    term_s: float = 5.0
    """To end after SIGTERM; then it is killed."""
    read_s: float = 10.0
    """To read what is written to it."""
    rest_s: float = 0.25
    """For what it said before it exited; a grandchild may hold its pipes open for ever."""


HURRY = Patience(close_s=1.0, term_s=1.0)
"""For when the proxy itself has to go."""
ENDED = "command_ended"
"""The reason of a fault of one that takes no more."""

_KILL_S = 2.0
_GROUP_S = 1.0
_POLL_S = 0.02
_MODES = ("wb", "rb", "rb")


class Status(Enum):
    RUNNING = "running"
    STOPPING = "stopping"
    EXITED = "exited"


class Listener(NamedTuple):
    """Who hears what the child says."""

    lines: Callable[[Sequence[Line]], object]
    gone: Callable[[], object]
    """No line will come any more. Called once, unless it is stopped first."""
    stderr: Callable[[bytes], object] | None = None
    """Gets what it writes there as it comes; without, that goes to the log line by line."""


class Process:
    """One child, and every process that stays in its group."""

    def __init__(
        self,
        command: Command,
        name: str,
        listener: Listener,
        patience: Patience | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """Starts nothing yet. `name` says in the log whose child it is."""
        self.pid = 0
        self.started_at = 0.0
        self._command = command
        self._name = name
        self._listener = listener
        self._patience = patience or Patience()
        self._decoder = LineDecoder(max_line_bytes)
        self._exited = asyncio.Event()
        self._stderr_ended = asyncio.Event()
        self._is_connected = False
        self._is_stopping = False
        self._is_told_all = False
        self._is_stdin_lost = False
        self._is_over = False
        self._is_group_ended = False
        self._transports: list[asyncio.BaseTransport] = []
        self._room = asyncio.Event()
        self._room.set()
        self._turn = asyncio.Lock()
        self._lines = _Output(self.heard, self.stdout_ended)

    async def start(self, already: Spawned | None = None) -> None:
        """Raises `Fault` for a command that cannot be run; nothing is left of it then."""
        loop = asyncio.get_running_loop()
        self._popen, ends = already or spawned(self._command)
        self.pid = self._popen.pid
        self.started_at = loop.time()
        self._stderr = Stderr(f"{self._name}[{self.pid}]", loop.time, self._listener.stderr)
        self._words = _Output(self._stderr.feed, self.stderr_ended)
        connecting = loop.create_task(self._connect(ends), name=f"connect {self.pid}")
        try:
            await asyncio.shield(connecting)
        except BaseException:
            # A pipe whose connecting was interrupted is closed by nobody.
            await asyncio.wait((connecting,))
            self._is_over = True
            self.signal(signal.SIGKILL)
            self._popen.wait()
            self._close_pipes()
            raise
        self._is_connected = True
        self._watch()

    async def _connect(self, ends: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        # stdout last, so that nothing is heard before it can be answered.
        stdin, stdout, stderr = (os.fdopen(end, mode, 0) for end, mode in zip(ends, _MODES, strict=True))
        left = [stdin, stderr, stdout]
        try:
            self._stdin, _ = await loop.connect_write_pipe(lambda: _Stdin(self), left.pop(0))
            self._transports.append(self._stdin)
            for output in (self._words, self._lines):
                await loop.connect_read_pipe(lambda output=output: output, left.pop(0))
                self._transports.append(output.pipe)
        finally:
            for pipe in left:
                pipe.close()

    # What is known of it.

    def status(self) -> Status:
        if self._exited.is_set():
            return Status.EXITED
        return Status.STOPPING if self._is_stopping else Status.RUNNING

    def is_healthy(self) -> bool:
        """Runs, and reads what it is told."""
        return self.status() is Status.RUNNING and not self._is_over and self._room.is_set()

    @property
    def is_over(self) -> bool:
        """Nothing more will be heard of it."""
        return self._is_over

    @property
    def takes_input(self) -> bool:
        return not self._stdin.is_closing()

    @property
    def stderr_tail(self) -> str:
        return self._stderr.tail

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it: a signal counts from 128. None while it runs."""
        code = self._popen.returncode
        return code if code is None or code >= 0 else 128 - code

    def ending(self) -> str:
        """How it ended, for a person."""
        code = self._popen.returncode
        if code is None:
            return "it closed its output"
        return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"

    async def exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._exited.wait()
        except TimeoutError:
            return False
        return True

    async def last_words(self) -> None:
        """Once it is over: until it has exited and its stderr is read, if that does not take long."""
        try:
            async with asyncio.timeout(self._patience.rest_s):
                await self._exited.wait()
                await self._stderr_ended.wait()
        except TimeoutError:
            pass  # it only closed its output, or a grandchild holds the other

    # Talking to it.

    async def write(self, line: bytes) -> None:
        """Returns once the line is on its way. Raises `Fault` if no byte of it will be."""
        if self.write_nowait(line):
            return
        try:
            async with asyncio.timeout(self._patience.read_s), self._turn:
                await self._room.wait()
                self._require_open()
                self._stdin.write(line)
        except TimeoutError as error:
            told = "The upstream's command does not read its input"
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="command_does_not_read") from error

    def write_nowait(self, line: bytes) -> bool:
        """False where it would have to wait. Raises `Fault` for a child that takes no more."""
        if not self._room.is_set() or self._turn.locked():
            return False
        self._require_open()
        self._stdin.write(line)
        return True

    def _require_open(self) -> None:
        if self._is_over or not self.takes_input:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, "The upstream's command ended", reason=ENDED)

    def pause_reading(self) -> None:
        if not self._is_over and not self._exited.is_set():
            self._lines.pipe.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_over:
            self._lines.pipe.resume_reading()

    def pause_stderr(self) -> None:
        self._words.pipe.pause_reading()

    def resume_stderr(self) -> None:
        self._words.pipe.resume_reading()

    # Its end.

    def close_input(self) -> None:
        """Tells it that nothing more will come, which ends most; what it still says is heard."""
        self._is_told_all = True
        self._stdin.close()

    def signal(self, number: int) -> bool:
        """To all of its group. False when nobody is left to hear it."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def stop(self, patience: Patience | None = None) -> None:
        """Closes its stdin, then SIGTERM, then SIGKILL, to all of its group; returns when it is reaped.

        May be called again with less patience.
        """
        patience = patience or self._patience
        self._is_stopping = True
        self._is_over = True
        self._room.set()
        self._stdin.close()
        if not await self.exits_within(patience.close_s):
            self.signal(signal.SIGTERM)
            if not await self.exits_within(patience.term_s):
                self.signal(signal.SIGKILL)
                await self.exits_within(_KILL_S)
        await self._end_group()
        self._close_pipes()

    async def _end_group(self) -> None:
        """What the child left behind: it was told to go when the child was, or will never be."""
        if self._is_group_ended:
            return
        self._is_group_ended = True
        if not self.signal(signal.SIGTERM):
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + _GROUP_S
        try:
            while loop.time() < until:
                await asyncio.sleep(_POLL_S)
                if not self.signal(0):
                    return
        finally:
            self.signal(signal.SIGKILL)

    def _close_pipes(self) -> None:
        for transport in self._transports:
            if not isinstance(transport, asyncio.WriteTransport):
                transport.close()
            elif not self._is_stdin_lost:
                # asyncio's own loop fails where there is nothing left to abort.
                transport.abort()

    # What the operating system tells.

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        if not hasattr(os, "pidfd_open"):
            self._poll()
            return
        pidfd = os.pidfd_open(self.pid)

        def exited() -> None:
            loop.remove_reader(pidfd)
            os.close(pidfd)
            self._reaped()

        loop.add_reader(pidfd, exited)

    def _poll(self) -> None:
        if self._popen.poll() is None:
            asyncio.get_running_loop().call_later(_POLL_S, self._poll)
        else:
            self._reaped()

    def _reaped(self) -> None:
        self._popen.wait()
        self._exited.set()
        if not self._is_over:
            # Somebody may have stopped reading for a while; nobody must miss what was said last.
            self._lines.pipe.resume_reading()
            asyncio.get_running_loop().call_later(self._patience.rest_s, self.over)

    def heard(self, data: bytes) -> None:
        if not self._is_over and (lines := self._decoder.feed(data)):
            self._listener.lines(lines)

    def stdout_ended(self) -> None:
        rest = self._decoder.close()
        if rest is not None and not self._is_over:
            self._listener.lines([rest])
        self.over()

    def stderr_ended(self) -> None:
        self._stderr.close()
        self._stderr_ended.set()

    def stdin_ended(self) -> None:
        """A child that takes no more requests is of no use, but for what it has said already."""
        self._is_stdin_lost = True
        if not self._is_over and not self._is_told_all:
            asyncio.get_running_loop().call_later(self._patience.rest_s, self.over)

    def over(self) -> None:
        if self._is_over:
            return
        if not self._is_connected:
            # Whoever starts it does not know it yet.
            asyncio.get_running_loop().call_soon(self.over)
            return
        self._is_over = True
        self._room.set()
        self._listener.gone()

    def may_write(self, may: bool) -> None:
        if may:
            self._room.set()
        elif not self._is_over:
            self._room.clear()


class _Stdin(asyncio.Protocol):
    def __init__(self, process: Process) -> None:
        self._process = process

    def pause_writing(self) -> None:
        self._process.may_write(False)

    def resume_writing(self) -> None:
        self._process.may_write(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._process.stdin_ended()


class _Output(asyncio.Protocol):
    def __init__(self, feed: Callable[[bytes], object], end: Callable[[], object]) -> None:
        self._feed = feed
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Kept from here: the first bytes may come before who connects it hears that it is connected.
        self.pipe = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

"""`forward stdio`: stands in for a command. Messages pass through, and so do its end and its exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from shadowcat.aio import Tasks
from shadowcat.app import logs
from shadowcat.app.logs import LogOptions
from shadowcat.app.process import run
from shadowcat.downstream.stderr import StderrWriter
from shadowcat.downstream.stdio import FLUSH_S, ClientListener, StdioClient
from shadowcat.errors import Fault, FaultKind
from shadowcat.proxy.passage import Passage
from shadowcat.proxy.way import Line
from shadowcat.upstream.command import Command
from shadowcat.upstream.process import ENDED, Listener, Patience, Process
from shadowcat.upstream.spawn import Spawned

if TYPE_CHECKING:
    from shadowcat.app.plugins import Plugins
    from shadowcat.core.interceptor import Interceptor
    from shadowcat.core.ports import TapSink
    from shadowcat.proxy.interception import Interception
    from shadowcat.proxy.pipeline import Pipeline

log = logging.getLogger("shadowcat.stdio")

CANNOT_START = 127
"""The exit code that shells give for a command that cannot be started."""
PATIENCE = Patience(read_s=3_600.0)
"""A command may leave its stdin unread for long: whoever waits for it has a deadline of their own."""
FIRST_WORD_S = 2.0
"""How long a client may take to ask something of a command that has ended already, so that it is answered."""
STDERR_S = 1.0
"""How long a reader of our stderr may take nothing before what the command says there is left out."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_S = 0.005
_KILL_S = 2.0
_CODE_SAYS_S = 1.0
"""How long after it takes no more a command may take to be gone."""


class StdioForward:
    """A server that speaks stdio, behind our own: `exit_code = await StdioForward(command).run()`.

    Interceptors see each message in its order: one that takes its time holds up what follows in that direction.
    Taps are told of each.
    """

    def __init__(
        self,
        command: Command,
        *,
        interceptors: Sequence[Interceptor] = (),
        taps: Sequence[TapSink] = (),
        patience: Patience = PATIENCE,
        stdin: int = 0,
        stdout: int = 1,
        stderr: StderrWriter | None = None,
        already: Spawned | None = None,
    ) -> None:
        """`stdin` and `stdout` are file descriptors; `already` is the command, where it runs by now."""
        name = os.path.basename(command.argv[0])
        self._name = name
        self._command = command
        self._patience = patience
        self._already = already
        self._stderr = stderr or StderrWriter()
        listener = ClientListener(self._heard_client, self._client_gone)
        self._client = StdioClient(listener, stdin=stdin, stdout=stdout)
        server = Listener(self._heard_server, self._server_gone, self._heard_stderr)
        self._process = Process(command, name, server, patience)
        self._interception = _interception(interceptors, taps, name)
        self._passage = Passage(self._client, self._process, self._interception, self._explained)
        self._happened = asyncio.Event()
        self._gone = asyncio.Event()
        self._asked = asyncio.Event()
        """The client has said what it wants, or it does not matter any more."""
        self._signals = 0
        self._stuck_at: int | None = None
        self._is_client_gone = False

    @property
    def pipeline(self) -> Pipeline | None:
        """What messages pass, if they pass anything."""
        return None if self._interception is None else self._interception.pipeline

    async def run(self) -> int:
        """Returns the command's exit code."""
        try:
            return await self._run()
        finally:
            await self._passage.aclose()
            # A thread waits for it; nothing else is left to do here.
            self._stderr.close()

    def signal(self, number: int) -> None:
        """Passes it on, and waits for the end of the command from then on; the second one kills it."""
        self._signals += 1
        self._process.signal(number if self._signals == 1 else signal.SIGKILL)
        self._asked.set()
        self._happened.set()

    async def _run(self) -> int:
        try:
            await self._process.start(self._already)
        except Fault as fault:
            return await self._not_started(fault)
        try:
            await self._client.open()
            await self._until_gone()
            await self._process.last_words()
            await self._tell_client()
            await self._client.aclose()
        finally:
            await self._process.stop()
        return self._process.exit_code or 0

    async def _not_started(self, fault: Fault) -> int:
        log.error("%s cannot be started: %s", self._name, self._command.why_not_started(fault))
        self._passage = Passage(self._client, _Nobody(fault), self._interception)
        await self._client.open()
        await self._first_word()
        await self._client.aclose()
        return CANNOT_START

    # The end.

    async def _until_gone(self) -> None:
        """Until nothing more will be heard of the command: by itself or, told to end, more and more clearly."""
        await self._happened.wait()
        if await self._is_gone_within(self._patience.close_s):
            return
        for number, wait_s in ((signal.SIGTERM, self._patience.term_s), (signal.SIGKILL, _KILL_S)):
            self._process.signal(number)
            if await self._is_gone_within(wait_s):
                return

    async def _is_gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                if self._is_client_gone:
                    await self._passage.wait_sent()
                    self._process.close_input()
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    async def _tell_client(self) -> None:
        was_told_to = self._is_client_gone or self._signals
        unanswered = len(self._passage.waiting)
        if unanswered or not was_told_to:
            self._say_how_it_ended(unanswered)
        told = f"{self._how_it_ended()}; the outcome is unknown.{self._last_words()}"
        fault = Fault(FaultKind.OUTCOME_UNKNOWN, told, reason=ENDED, sent=True)
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._passage.server_ended(fault)
        except TimeoutError:
            log.warning("the client does not read the rest of the output")
        await self._first_word()

    def _say_how_it_ended(self, unanswered: int) -> None:
        if not self._passage.waiting.has_answered:
            when = " before it answered anything. Is it an MCP server that speaks stdio?"
        else:
            requests = "request" if unanswered == 1 else "requests"
            when = f" with {unanswered} {requests} unanswered." if unanswered else "."
        log.error("%s ended (%s)%s%s", self._name, self._process.ending(), when, self._last_words())

    async def _explained(self, fault: Fault) -> Fault:
        if fault.reason != ENDED:
            return fault
        # That it takes no more is seen a moment before its exit code.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CODE_SAYS_S):
                await self._process.last_words()
        return Fault(
            fault.kind, f"{self._how_it_ended()}; nothing was sent.{self._last_words()}", reason=ENDED
        )

    def _how_it_ended(self) -> str:
        return f"The command {self._name} ended ({self._process.ending()})"

    def _last_words(self) -> str:
        tail = self._process.stderr_tail
        return f" Its last words: {tail}" if tail else ""

    async def _first_word(self) -> None:
        """Of a client that said nothing yet; it is about to, and would wait for the answer."""
        try:
            async with asyncio.timeout(FIRST_WORD_S):
                await self._asked.wait()
                await self._passage.wait_sent()
        except TimeoutError:
            pass  # it asks nothing, and so waits for nothing

    # What is heard.

    def _heard_client(self, lines: Sequence[Line]) -> None:
        self._passage.from_client(lines)
        if self._passage.waiting.has_been_asked:
            self._asked.set()

    def _client_gone(self) -> None:
        self._is_client_gone = True
        self._asked.set()
        self._happened.set()

    def _heard_server(self, lines: Sequence[Line]) -> None:
        self._passage.from_server(lines)

    def _server_gone(self) -> None:
        self._gone.set()
        self._happened.set()

    def _heard_stderr(self, data: bytes) -> None:
        self._stderr.write(data)
        if self._stderr.is_behind and self._stderr.written != self._stuck_at:
            self._process.pause_stderr()
            self._wait_for_reader(self._stderr.written, 0.0)

    def _wait_for_reader(self, written: int, waited_s: float) -> None:
        if self._stderr.is_behind and waited_s < STDERR_S:
            waited_s = waited_s + _LOOK_S if self._stderr.written == written else 0.0
            later = asyncio.get_running_loop().call_later
            later(_LOOK_S, self._wait_for_reader, self._stderr.written, waited_s)
        else:
            # Who has lost patience has it again only with a reader that reads again.
            self._stuck_at = written if self._stderr.is_behind else None
            self._process.resume_stderr()


class _Nobody:
    """Stands where a command would, had it started."""

    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def write_nowait(self, line: bytes) -> bool:
        raise self._fault.anew()

    async def write(self, line: bytes) -> None:
        raise self._fault.anew()

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _interception(
    interceptors: Sequence[Interceptor], taps: Sequence[TapSink], name: str
) -> Interception | None:
    if not interceptors and not taps:
        return None
    # Here, because without either this starts with every window of an editor.
    from shadowcat.proxy.interception import Interception
    from shadowcat.proxy.pipeline import Pipeline

    return Interception(Pipeline(interceptors, taps), name, os.urandom(16).hex())


def serve_stdio(
    command: Command,
    already: Spawned | None,
    options: LogOptions,
    taps: Sequence[TapSink] = (),
    plugins: Plugins | None = None,
) -> int:
    """Runs until the command has ended, and returns its exit code."""
    stderr = StderrWriter()
    logs.share(stderr, options)

    async def main() -> int:
        interceptors = () if plugins is None else plugins.interceptors
        forward = StdioForward(command, interceptors=interceptors, taps=taps, stderr=stderr, already=already)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, forward.signal, number)
        tasks = Tasks("plugins")
        if plugins is not None and forward.pipeline is not None:
            plugins.desk.is_attended = False
            tasks.spawn(plugins.watch(forward.pipeline), "look for changes")
        try:
            return await forward.run()
        finally:
            await tasks.aclose()

    return run(main())

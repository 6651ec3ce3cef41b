"""`shadowcat demo --crash`: a client that keeps its stream while the server and the proxy are killed."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL
from urllib.parse import quote

from shadowcat.aio import Tasks
from shadowcat.demo.verdict import Verdict, verdict_on
from shadowcat.demo.witness import CameBack, Lost, Saw, Witness
from shadowcat.errors import Fault
from shadowcat.upstream.command import Command
from shadowcat.upstream.process import HURRY, Line, Listener, Process

LAST = 50
PAUSE_MS = 250
DEADLINE_S = 300.0
START_S = 60.0

Tell = Callable[[str, str], None]
"""Who, and what happens to them."""


class CannotShow(Exception):
    """What was to be shown did not come about, in one line."""


class Life:
    """A program that is killed and started anew, on the same port."""

    def __init__(self, name: str, port: int, arguments: Sequence[str], tell: Tell) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}/mcp"
        words = (sys.executable, "-m", "shadowcat", *arguments, "--listen", f"127.0.0.1:{port}")
        self._command = Command(words, inherits=True)
        self._tell = tell
        self._process: Process | None = None

    async def start(self) -> None:
        serving = asyncio.Event()

        def heard(lines: Sequence[Line]) -> None:
            if any(isinstance(line, bytes) and line.startswith(b"serving ") for line in lines):
                serving.set()

        process = self._process = Process(
            self._command, self.name, Listener(heard, serving.set, _leave_to_its_tail), HURRY
        )
        try:
            await process.start()
            async with asyncio.timeout(START_S):
                await serving.wait()
        except (Fault, TimeoutError) as error:
            raise CannotShow(f"the {self.name} does not start: {error}") from error
        if process.is_over:
            await process.last_words()
            raise CannotShow(f"the {self.name} ended at its start: {process.stderr_tail}")
        self._tell(self.name, f"runs as process {process.pid}, {self.url}")

    async def kill(self) -> None:
        assert self._process is not None
        self._tell(self.name, f"process {self._process.pid} is killed (SIGKILL)")
        self._process.signal(SIGKILL)
        await self._process.stop()

    async def aclose(self) -> None:
        if self._process is not None:
            await self._process.stop()


def _leave_to_its_tail(data: bytes) -> None:
    """The proxy says that its server is gone, which is no news here. The last lines are kept all the same."""


async def show_crash(tell: Tell) -> Verdict:
    """Raises `CannotShow`."""
    with tempfile.TemporaryDirectory(prefix="shadowcat-crash-") as directory:
        show = _Show(Path(directory), tell)
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await show.run()
        except TimeoutError as error:
            raise CannotShow(f"it is not over after {DEADLINE_S:.0f} s") from error
        except Fault as fault:
            raise CannotShow(fault.message) from fault
        finally:
            await show.aclose()


class _Show:
    def __init__(self, directory: Path, tell: Tell) -> None:
        ports = quiet_port(), quiet_port()
        state = ("--state", str(directory))
        self._server = Life("server", ports[0], ("demo", "--server", "http", *state), tell)
        store = f"sqlite:///{quote(str(directory / 'proxy.db'))}"
        before = ("--upstream", self._server.url, "--store", store)
        self._proxy = Life("proxy", ports[1], ("reverse", *before), tell)
        self._script = {5: [self._server], 12: [self._proxy], 36: [self._server, self._proxy]}
        """Who is killed when the client has seen so many; what comes while it is away, it sees all at once."""
        self._witness = Witness(self._proxy.url)
        self._accidents = Tasks("crash")
        self._tell = tell

    async def run(self) -> Verdict:
        await self._server.start()
        await self._proxy.start()
        await self._witness.open()
        self._tell("client", f"calls the tool count: {LAST} events, {PAUSE_MS} ms apart, then the answer")
        accidents: list[asyncio.Task[None]] = []
        async for what in self._witness.count(LAST, PAUSE_MS):
            match what:
                case Saw(number):
                    self._tell("client", f"event {number} of {LAST}")
                    if victims := self._script.pop(number, None):
                        # Beside the client, which goes on reading.
                        accidents.append(
                            self._accidents.spawn(self._accident(victims), "accident", awaited=True)
                        )
                case Lost(after, wait_s):
                    self._tell(
                        "client",
                        f"lost its connection after event {after}; comes back in {wait_s:g} s, as told",
                    )
                case CameBack(attempts):
                    self._tell(
                        "client", f"is back on its stream{f', at attempt {attempts}' if attempts > 1 else ''}"
                    )
        for accident in accidents:
            await accident
        witness = self._witness
        return verdict_on(witness.numbers, LAST, witness.answers, witness.connections)

    async def _accident(self, victims: Sequence[Life]) -> None:
        for victim in victims:
            await victim.kill()
        for victim in victims:
            await victim.start()

    async def aclose(self) -> None:
        await self._accidents.aclose()
        await self._witness.aclose()
        await self._proxy.aclose()
        await self._server.aclose()


def quiet_port() -> int:
    """One that no connection is given by chance while nobody listens there: it would be connected to itself."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

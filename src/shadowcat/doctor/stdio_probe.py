"""Starts a command, asks it what a client would, and closes its stdin.

Once as a client of each era, because some servers end at the first request that they do not know.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence

from shadowcat.doctor.asking import legacy, modern
from shadowcat.doctor.facts import ChildFacts, Latency, Opened, Refused, StdioFacts
from shadowcat.doctor.loose import as_list, promise_of, refusal_of, result_of
from shadowcat.doctor.patience import Tell, telling
from shadowcat.errors import Fault
from shadowcat.upstream.command import Command
from shadowcat.upstream.process import HURRY, Line, Listener, Process
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.lines import LineDecoder, OversizedLine
from shadowcat.wire.mcp import LATEST_LEGACY, Method
from shadowcat.wire.text import printable, without_frame

SAMPLES = 5
FIRST_ANSWER_S = 45.0
"""A command may fetch the server before it starts it, as npx and uvx do."""
AGAIN_S = 15.0
"""For the second child; or three times as long as the first one took: the machine may be busy."""
ANSWER_S = 5.0
CLOSE_S = 5.0
_SAMPLE_CHARS = 200
_STDERR_LINE_BYTES = 4096
_LISTS = {"tools": "tools/list", "resources": "resources/list", "prompts": "prompts/list"}

Ask = Callable[[int, str], Message]


class StdioProbe:
    def __init__(self, argv: Sequence[str], tell: Tell) -> None:
        self._tell = tell
        self.facts = StdioFacts(argv[0])
        self._command = Command(tuple(argv), inherits=True)

    async def run(self) -> None:
        async with _Child(self._command, self.facts.legacy, self._tell) as child:
            if child.facts.started:
                first = legacy(1, LATEST_LEGACY)
                await child.be_a_client(first, FIRST_ANSWER_S, jsonrpc.request, Method.PING)
        if not self.facts.legacy.started:
            return
        async with _Child(self._command, self.facts.modern, self._tell) as child:
            if child.facts.started:
                first = _modern(1, Method.DISCOVER)
                await child.be_a_client(first, self._again_s(), _modern, Method.DISCOVER)

    def _again_s(self) -> float:
        opened = self.facts.legacy.opened
        return max(AGAIN_S, 3 * opened.took_ms / 1000) if isinstance(opened, Opened) else AGAIN_S


def _modern(id: int, method: str) -> Message:
    return modern(id, method)[0]


class _Child:
    def __init__(self, command: Command, facts: ChildFacts, tell: Tell) -> None:
        self.facts = facts
        self._tell = tell
        self._news = asyncio.Event()
        self._command = command
        self._process = Process(
            command, command.argv[0], Listener(self._heard, self._news.set, self._heard_stderr), HURRY
        )
        self._stderr = LineDecoder(_STDERR_LINE_BYTES)
        self._waited_for: RequestId | None = None
        self._answer: Message | None = None

    async def __aenter__(self) -> _Child:
        try:
            await self._process.start()
            self.facts.started = True
        except Fault as fault:
            self.facts.why_not = self._command.why_not_started(fault)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.facts.started:
            await self._process.stop()

    async def be_a_client(self, first: Message, within_s: float, request: Ask, harmless: str) -> None:
        """`within_s` is how long it may take to start."""
        began = _now()
        name = self._command.argv[0]
        with telling(self._tell, f"the first answer of {name}, to {first.method}: at most {within_s:g} s"):
            answer = await self._asked(first, within_s)
        if answer is not None:
            self.facts.opened = _opened(answer, (_now() - began) * 1000)
        if isinstance(self.facts.opened, Opened):
            if first.method == Method.INITIALIZE:
                await self._say(jsonrpc.notification(Method.INITIALIZED))
            await self._measure(request, harmless)
            await self._list(request, self.facts.opened.capabilities)
        await self._close()

    async def _measure(self, request: Ask, harmless: str) -> None:
        took: list[float] = []
        for number in range(SAMPLES):
            began = _now()
            if await self._asked(request(10 + number, harmless), ANSWER_S) is None:
                return
            took.append((_now() - began) * 1000)
        self.facts.latency = Latency(statistics.median(took), SAMPLES, harmless)

    async def _list(self, request: Ask, capabilities: Sequence[str]) -> None:
        for number, (capability, method) in enumerate(_LISTS.items()):
            if capability not in capabilities:
                continue
            answer = await self._asked(request(20 + number, method), ANSWER_S)
            if answer is not None:
                self.facts.listed[capability] = len(as_list(result_of(answer).get(capability)))

    async def _close(self) -> None:
        if self._process.is_over:
            # Its output ends before it can be told how it ended.
            await self._process.last_words()
            self.facts.ended_early = self._process.ending()
            return
        began = _now()
        self._process.close_input()
        if await self._process.exits_within(CLOSE_S):
            self.facts.closed_in_s = _now() - began
            self.facts.exit = self._process.ending()

    # Talking to it.

    async def _asked(self, request: Message, within_s: float) -> Message | None:
        """None where no answer comes, or it ends first."""
        self._waited_for, self._answer = request.id, None
        await self._say(request)
        try:
            async with asyncio.timeout(within_s):
                while self._answer is None and not self._process.is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._answer

    async def _say(self, message: Message) -> None:
        try:
            await self._process.write(message.line())
        except Fault:
            pass  # it ended, which is noted when that is heard

    def _heard(self, lines: Sequence[Line]) -> None:
        for line in lines:
            try:
                message = None if isinstance(line, OversizedLine) else jsonrpc.parse(line)
            except Fault:
                message = None
            if message is None:
                self.facts.garbage += 1
                sample = line.start if isinstance(line, OversizedLine) else line
                self.facts.garbage_sample = self.facts.garbage_sample or printable(sample, _SAMPLE_CHARS)
            elif message.is_response and message.id == self._waited_for:
                self._answer = message
        self._news.set()

    def _heard_stderr(self, data: bytes) -> None:
        lines = self._stderr.feed(data)
        self.facts.stderr_lines += len(lines)
        for line in () if self.facts.stderr_sample else lines:
            said = without_frame(printable(line.start if isinstance(line, OversizedLine) else line))
            if said:
                self.facts.stderr_sample = said[:_SAMPLE_CHARS]
                break


def _now() -> float:
    # The event loop's clock may tick in milliseconds.
    return time.perf_counter()


def _opened(answer: Message, took_ms: float) -> Opened | Refused:
    code, message = refusal_of(answer)
    return promise_of(result_of(answer), took_ms) or Refused(0, "", code, message)

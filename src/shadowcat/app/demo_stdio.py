"""The demo server in place of a command that speaks stdio."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Answer
from shadowcat.core.negotiate import Claims, Course, claims_of, course_of
from shadowcat.demo.server import DemoServer, DemoSession
from shadowcat.downstream.stdio import ClientListener, StdioClient
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.lines import OversizedLine
from shadowcat.wire.mcp import Method

MAX_CALLS = 100
LAST_ANSWERS_S = 1.0
"""For what was asked just before stdin was closed."""


class DemoOverStdio:
    """One client on stdin and stdout, of the era in which it speaks."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self._server = DemoServer()
        self._session: DemoSession | None = None
        self._calls: dict[RequestId, asyncio.Task[None]] = {}
        self._tasks = Tasks("demo")
        self._listening: asyncio.Task[None] | None = None
        self._gone = asyncio.Event()
        self._client = StdioClient(ClientListener(self._heard, self._gone.set), stdin=stdin, stdout=stdout)

    async def run(self) -> None:
        """Until stdin ends, or nobody reads stdout."""
        await self._client.open()
        await self._gone.wait()
        if self._listening is not None:
            self._listening.cancel()
        await self._tasks.finish(LAST_ANSWERS_S)
        await self._client.aclose()

    def _heard(self, lines: Sequence[bytes | OversizedLine]) -> None:
        refusals: list[bytes] = []
        for line in lines:
            try:
                if isinstance(line, OversizedLine):
                    raise Fault(FaultKind.BODY_TOO_LARGE)
                self._take(jsonrpc.parse(line))
            except Fault as fault:
                id = None if isinstance(line, OversizedLine) else jsonrpc.readable_id(line)
                refusals.append(jsonrpc.error(id, fault.error()).line())
        if refusals and not self._client.write_nowait(b"".join(refusals)):
            # Who reads no answers is not listened to: they would pile up here.
            self._client.pause_reading()
            self._tasks.spawn(self._refuse(b"".join(refusals)), "refuse")

    async def _refuse(self, refusals: bytes) -> None:
        await self._client.write(refusals)
        self._client.resume_reading()

    def _take(self, message: Message) -> None:
        if message.is_request:
            assert message.id is not None
            if message.id in self._calls:
                raise Fault(FaultKind.INVALID_REQUEST, "A request with this id is in flight")
            if len(self._calls) >= MAX_CALLS:
                raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_requests")
            task = self._tasks.spawn(self._answer(message.id, message), f"answer {message.method}")
            self._calls[message.id] = task
            task.add_done_callback(lambda _, id=message.id: self._calls.pop(id, None))
        elif message.method == Method.CANCELLED:
            running = self._calls.get(message.params().get("requestId", ""))
            if running is not None:
                running.cancel()
        elif self._session is not None:
            if message.method == Method.INITIALIZED and self._listening is None:
                self._listening = self._tasks.spawn(self._tell_of_changes(self._session), "listen")
            self._tasks.spawn(self._session.send(message), "send")

    async def _answer(self, id: RequestId, request: Message) -> None:
        try:
            answer = await self._asked(request)
            if answer.whole is not None:
                await self._client.write(answer.whole.line())
            elif answer.stream is not None:
                try:
                    async for batch in answer.stream:
                        await self._client.write(b"".join([message.line() for message in batch]))
                finally:
                    await answer.stream.aclose()
        except Fault as fault:
            await self._client.write(jsonrpc.error(id, fault.error()).line())

    async def _asked(self, request: Message) -> Answer:
        claims = claims_of(request, None)
        # There are no headers here: what the message says about itself is all there is.
        if (
            course_of(request.kind, Claims(claims.body, claims.body, claims.has_capabilities))
            is Course.MODERN
        ):
            return await self._server.exchange(request, ())
        if request.method == Method.INITIALIZE:
            self._session, initialized = await self._server.open(request)
            return Answer(whole=initialized)
        if self._session is None:
            raise Fault(
                FaultKind.INVALID_REQUEST, "initialize comes first, or _meta with the protocol version"
            )
        return await self._session.exchange(request)

    async def _tell_of_changes(self, session: DemoSession) -> None:
        changes = await session.listen()
        try:
            async for batch in changes:
                await self._client.write(b"".join([message.line() for message in batch]))
        finally:
            await changes.aclose()


async def serve_stdio() -> None:
    await DemoOverStdio().run()

"""Ends what runs for modern requests, with an error if the server gives no answer or no time is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from shadowcat.core.exchange import MessageStream
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message

T = TypeVar("T")


PROXY_STOPPED = "proxy_stopped"


def proxy_stopped() -> Fault:
    """For a call that was still running when the time to stop was over: nobody will know how it ended."""
    told = "The proxy stopped while the call ran; the outcome is unknown"
    return Fault(FaultKind.OUTCOME_UNKNOWN, told, reason=PROXY_STOPPED, side=Side.OURS, sent=True)


class Running:
    """Whoever waits for a server, or an interceptor, on behalf of a request that has no session to be found in."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Task[Any]] = set()
        self._is_over = False

    async def until(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of `work`. Raises `Fault` when all is over first."""
        if self._is_over:
            # Whoever waited for a slow client as it ended comes here only now.
            work.close()
            raise proxy_stopped()
        task = asyncio.current_task()
        assert task is not None
        self._waiting.add(task)
        try:
            return await work
        except asyncio.CancelledError:
            if not self._is_over:
                raise
            task.uncancel()
            raise proxy_stopped() from None
        finally:
            self._waiting.discard(task)

    def end(self) -> None:
        self._is_over = True
        for task in tuple(self._waiting):
            task.cancel()


class EndingStream:
    """A stream that ends with the response, whatever the server does: with an error where it gave none."""

    cursor = None

    def __init__(
        self,
        stream: MessageStream,
        request: Message,
        running: Running,
        silent_s: float | None,
        on_failed: Callable[[Fault], object],
        on_answered: Callable[[Message], object] | None,
    ) -> None:
        """`silent_s`: how long no message may come. Comments are none, however many."""
        self._stream = stream
        self._request = request
        self._running = running
        self._silent_s = silent_s
        self._on_failed = on_failed
        self._on_answered = on_answered
        self._answered = False

    def __aiter__(self) -> EndingStream:
        return self

    async def __anext__(self) -> list[Message]:
        if self._answered:
            raise StopAsyncIteration
        try:
            batch = await self._running.until(self._next())
        except StopAsyncIteration:
            lost = Fault(FaultKind.OUTCOME_UNKNOWN, reason="upstream_connection_lost", sent=True)
            return self._failed(lost)
        except TimeoutError:
            return self._failed(Fault(FaultKind.DEADLINE, reason="no_progress", sent=True))
        except Fault as fault:
            return self._failed(fault)
        return self._up_to_answer(batch) if any(message.is_response for message in batch) else batch

    def _up_to_answer(self, batch: list[Message]) -> list[Message]:
        """Without what answers something else: there is nothing else that the client asked on it."""
        passing: list[Message] = []
        for message in batch:
            answer = jsonrpc.answer_to(self._request.id, message)
            if answer is not None:
                self._answered = True
                if self._on_answered is not None:
                    self._on_answered(answer)
                return [*passing, answer]
            if not message.is_response:
                passing.append(message)
        return passing

    async def _next(self) -> list[Message]:
        async with asyncio.timeout(self._silent_s):
            return await anext(self._stream)

    def _failed(self, fault: Fault) -> list[Message]:
        self._answered = True
        self._on_failed(fault)
        return [jsonrpc.error(self._request.id, fault.error())]

    async def aclose(self) -> None:
        await self._stream.aclose()

"""One direction of a connection with both ends in this process: lines are handed on in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from shadowcat.aio import Tasks
from shadowcat.wire.lines import OversizedLine

Line = bytes | OversizedLine
Rest = Coroutine[Any, Any, None] | None
"""What is left to do of a delivery, if anything."""


class End(Protocol):
    """Where lines come from and go to."""

    def write_nowait(self, line: bytes) -> bool:
        """False where it would have to wait. Raises `Fault` for an end that takes no more."""
        ...

    async def write(self, line: bytes) -> None:
        """Returns once the line is on its way. Raises `Fault` if no byte of it will be."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Way:
    """A delivery that has to wait stops the reading of the source: what is held is what was read with it."""

    def __init__(self, source: End, deliver: Callable[[Line], Rest], tasks: Tasks, name: str) -> None:
        self._source = source
        self._deliver = deliver
        self._tasks = tasks
        self._name = name
        self._lines: deque[Line] = deque()
        self._task: asyncio.Task[None] | None = None

    def take(self, lines: Iterable[Line]) -> None:
        self._lines.extend(lines)
        if self._task is not None:
            return
        while self._lines:
            rest = self._deliver(self._lines.popleft())
            if rest is not None:
                self._source.pause_reading()
                self._task = self._tasks.spawn(self._go_on(rest), self._name)
                return

    async def _go_on(self, rest: Rest) -> None:
        try:
            while True:
                if rest is not None:
                    await rest
                if not self._lines:
                    return
                rest = self._deliver(self._lines.popleft())
        finally:
            self._task = None
            self._source.resume_reading()

    async def wait_empty(self) -> None:
        """Until all that was taken is handed on."""
        while self._task is not None:
            await asyncio.wait((self._task,))

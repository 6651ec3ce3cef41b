"""Messages that wait for one reader, within a bound, on a channel that must go on for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message

MAX_BYTES = 1024 * 1024
_OVERHEAD_BYTES = 400
"""What a message costs beside its text."""


class Inbox:
    """Iterate it for batches; `on_taken` hears when the reader has caught up."""

    cursor = None

    def __init__(self, on_taken: Callable[[Inbox], object], max_bytes: int = MAX_BYTES) -> None:
        self._on_taken = on_taken
        self._max = max_bytes
        self._waiting: list[Message] = []
        self._held = 0
        self._is_ended = False
        self._fault: Fault | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self.is_slow = False
        """Its reader was waited for in vain: nobody waits for it again until it reads."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return self._held > self._max

    @property
    def first(self) -> Message | None:
        return self._waiting[0] if self._waiting else None

    def put(self, message: Message) -> None:
        if self._is_ended:
            return
        self._waiting.append(message)
        self._held += _size(message)
        self._wake()

    def shed(self) -> int:
        """Lets go of the oldest notifications, and keeps what somebody waits for. Returns how many.

        Down to half, so that a flood does not have it look through all of them for each that comes.
        """
        kept: list[Message] = []
        before = len(self._waiting)
        for index, message in enumerate(self._waiting):
            if self._held <= self._max // 2:
                kept += self._waiting[index:]
                break
            if message.is_notification:
                self._held -= _size(message)
            else:
                kept.append(message)
        self._waiting = kept
        return before - len(kept)

    def end(self, fault: Fault | None = None) -> None:
        """Nothing more will come; what is there can still be read."""
        if not self._is_ended:
            self._is_ended = True
            self._fault = fault
            self._wake()

    def drop(self) -> None:
        """Ends it, and lets go of what nobody will read."""
        self.end()
        self._waiting, self._held = [], 0

    async def begun(self) -> None:
        """Returns once there is something to read. Raises the fault that it ended with instead."""
        while not self._waiting:
            if self._fault is not None:
                raise self._fault.anew()
            if self._is_ended:
                raise StopAsyncIteration
            self._wakeup = asyncio.get_running_loop().create_future()
            await self._wakeup

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> list[Message]:
        await self.begun()
        batch, self._waiting = self._waiting, []
        self._held = 0
        self.is_slow = False
        self._on_taken(self)
        return batch

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)


def _size(message: Message) -> int:
    return len(message.raw) + _OVERHEAD_BYTES

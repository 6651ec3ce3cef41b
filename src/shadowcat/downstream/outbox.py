"""Where what many say becomes one stream for a client that reads at its own pace."""

from __future__ import annotations

import asyncio
from collections import deque

MAX_BYTES = 256 * 1024


class Outbox:
    """Iterate it for what was put, in that order and piece by piece; whoever puts waits while it is full."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max = max_bytes
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._is_ended = False
        self._room = asyncio.Event()
        self._room.set()
        self._something = asyncio.Event()

    async def put(self, data: bytes) -> None:
        """What is put after the end is for nobody."""
        while self._held >= self._max and not self._is_ended:
            self._room.clear()
            await self._room.wait()
        if not self._is_ended:
            self._waiting.append(data)
            self._held += len(data)
            self._something.set()

    def end(self) -> None:
        """Nothing more is taken; what is there can still be read."""
        self._is_ended = True
        self._something.set()
        self._room.set()

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> bytes:
        await self._something.wait()
        if not self._waiting:
            raise StopAsyncIteration
        data = self._waiting.popleft()
        self._held -= len(data)
        if self._held < self._max:
            self._room.set()
        if not self._waiting and not self._is_ended:
            self._something.clear()
        return data

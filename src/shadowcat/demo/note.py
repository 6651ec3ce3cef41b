"""The one resource that changes, and how to wait for its next change."""

from __future__ import annotations

import asyncio


class Note:
    """Who watches it needs no queue: only the newest text counts, so an edition number says what was missed."""

    def __init__(self) -> None:
        self.text = "Nothing has been noted yet."
        self.edition = 0
        self._next = asyncio.Event()

    def write(self, text: str) -> None:
        self.text = text
        self.edition += 1
        self._next.set()
        self._next = asyncio.Event()

    async def newer_than(self, edition: int) -> int:
        """The edition there is, as soon as it is another one."""
        if self.edition == edition:
            await self._next.wait()
        return self.edition

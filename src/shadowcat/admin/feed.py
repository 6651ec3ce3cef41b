"""What happens, as it happens, for those who watch: each within a bound, and told what it missed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from shadowcat.admin.views import EventView
from shadowcat.clock import Clock
from shadowcat.proxy.news import Happening, News
from shadowcat.wire.sse import KEEPALIVE, encode_event


class Viewer:
    """One who watches. Who is behind loses the oldest, and hears how many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._is_over = False
        self._woken = asyncio.Event()

    def tell(self, event: bytes) -> None:
        if len(self._waiting) >= self._limit:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(event)
        self._woken.set()

    def end(self) -> None:
        self._is_over = True
        self._woken.set()

    async def next(self, silence_s: float) -> bytes | None:
        """What there is to be sent: after that time a comment, and None at the end."""
        try:
            async with asyncio.timeout(silence_s):
                await self._woken.wait()
        except TimeoutError:
            return KEEPALIVE
        self._woken.clear()
        if not self._waiting:
            return None if self._is_over else KEEPALIVE
        told = b"".join(self._waiting)
        self._waiting.clear()
        if self._is_over:
            self._woken.set()
        if self._dropped:
            told = encode_event(b'{"dropped":%d}' % self._dropped, event=b"dropped") + told
            self._dropped = 0
        return told


class Feed:
    def __init__(self, news: News, clock: Clock, *, viewers: int, events: int) -> None:
        """At most so many viewers, and so many events that wait for each."""
        self._news = news
        self._clock = clock
        self._limit = viewers
        self._events = events
        self._viewers: set[Viewer] = set()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return self._is_over or len(self._viewers) >= self._limit

    @contextmanager
    def watched(self) -> Generator[Viewer]:
        viewer = Viewer(self._events)
        if not self._viewers:
            self._news.listen(self._tell)
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._news.ignore(self._tell)

    def _tell(self, happening: Happening) -> None:
        # Once for all of them.
        view = EventView.of(happening, self._clock.wall())
        event = encode_event(msgspec.json.encode(view), event=b"happening")
        for viewer in self._viewers:
            viewer.tell(event)

    def close(self) -> None:
        self._is_over = True
        for viewer in self._viewers:
            viewer.end()

"""Events, recent and live, for viewers: each viewer has a bound, and is told what it missed."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from shadowcat.admin.views import EventView
from shadowcat.clock import Clock
from shadowcat.proxy.news import Happening, News
from shadowcat.wire.sse import KEEPALIVE, encode_event

REMEMBERED = 100
"""Who looks only once something is wrong wants to know what led to it."""


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
    def __init__(self, news: News, clock: Clock, epoch: str, *, viewers: int, events: int) -> None:
        """At most so many viewers, and so many events that wait for each; `epoch` tells its ids from all others."""
        self._news = news
        self._clock = clock
        self._epoch = epoch
        self._limit = viewers
        self._events = events
        self._viewers: set[Viewer] = set()
        self._past: deque[tuple[int, Happening, float]] = deque(maxlen=REMEMBERED)
        self._number = 0
        self._is_over = False
        news.listen(self._tell)

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        return self._is_over or len(self._viewers) >= self._limit

    @contextmanager
    def watched(self, last_id: str = "") -> Generator[Viewer]:
        """By one who was told up to that event: the rest of what is remembered comes first, or all of it."""
        viewer = Viewer(self._events)
        seen = self._number_of(last_id)
        for number, happening, at in self._past:
            if number > seen:
                viewer.tell(self._event(number, happening, at))
        self._viewers.add(viewer)
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def _number_of(self, id: str) -> int:
        epoch, _, number = id.partition(".")
        return int(number) if epoch == self._epoch and re.fullmatch("[0-9]{1,15}", number) else 0

    def _tell(self, happening: Happening) -> None:
        self._number += 1
        told = self._number, happening, self._clock.wall()
        self._past.append(told)
        if self._viewers:
            event = self._event(*told)
            for viewer in self._viewers:
                viewer.tell(event)

    def _event(self, number: int, happening: Happening, at: float) -> bytes:
        data = msgspec.json.encode(EventView.of(happening, at))
        return encode_event(data, event=b"happening", id=f"{self._epoch}.{number}".encode())

    def close(self) -> None:
        self._is_over = True
        self._news.ignore(self._tell)
        for viewer in self._viewers:
            viewer.end()

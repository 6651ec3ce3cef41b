"""Those who read what a server says on a conduit. It waits for a slow reader, but not for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from shadowcat.upstream.call import Call
from shadowcat.upstream.inbox import Inbox
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.upstream")


@dataclass(slots=True)
class ConduitCounters:
    """Of all conduits to one upstream."""

    garbage_lines: int = 0
    dropped_messages: int = 0
    stalls: int = 0


class Readers:
    """Of one conduit. All of them share it: while it is not read for one, the others wait too."""

    def __init__(
        self,
        name: str,
        stall_s: float,
        counters: ConduitCounters,
        *,
        pause: Callable[[], object],
        resume: Callable[[], object],
    ) -> None:
        self._name = name
        self._stall_s = stall_s
        self._counters = counters
        self._pause = pause
        self._resume = resume
        self._loop = asyncio.get_running_loop()
        self._behind: set[Inbox] = set()
        self._stall: asyncio.TimerHandle | None = None

    def put(self, inbox: Inbox, message: Message) -> None:
        inbox.put(message)
        if not inbox.is_full:
            return
        if inbox.is_slow:
            self._shed(inbox)
            return
        self._behind.add(inbox)
        if self._stall is None:
            self._counters.stalls += 1
            self._pause()
            self._stall = self._loop.call_later(self._stall_s, self._lose_patience)

    def caught_up(self, inbox: Inbox) -> None:
        if self._behind:
            self._behind.discard(inbox)
            if not self._behind:
                self.read_on()

    def read_on(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
            self._resume()

    def _lose_patience(self) -> None:
        for inbox in self._behind:
            inbox.is_slow = True
            self._shed(inbox)
        self._behind.clear()
        self.read_on()

    def _shed(self, inbox: Inbox) -> None:
        gone = inbox.shed()
        if gone and isinstance(inbox, Call):
            log.warning(
                "upstream %s: a reader is behind; its %d oldest notifications are dropped", self._name, gone
            )
        self._counters.dropped_messages += gone

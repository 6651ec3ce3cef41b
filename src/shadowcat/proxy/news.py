"""Reports events to listeners, of which there are usually none."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class What(Enum):
    SESSION_OPENED = "session.opened"
    SESSION_ENDED = "session.ended"
    SESSION_REVIVED = "session.revived"
    """Taken up from the store."""
    SESSION_LOST = "session.lost"
    """Another process has it now, or has ended it."""
    SESSION_REOPENED = "session.reopened"
    """The upstream had forgotten it, and has opened it again."""
    STREAM_RESUMED = "stream.resumed"
    """A client came back to it."""
    STREAM_GAP = "stream.gap"
    """A client came back for what is no longer held."""
    UPSTREAM_TROUBLE = "upstream.trouble"
    UPSTREAM_ANSWERS = "upstream.answers"
    STORE_FAILING = "store.failing"
    STORE_WORKS = "store.works"
    PROXY_SERVES = "proxy.serves"
    PROXY_DRAINS = "proxy.drains"


class Happening(NamedTuple):
    what: What
    session_id: str | None = None
    upstream: str | None = None
    reason: str | None = None


Listener = Callable[[Happening], object]


class News:
    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def listen(self, listener: Listener) -> None:
        """It is called where the thing happens: it must not wait, and not fail."""
        self._listeners.add(listener)

    def ignore(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def tell(
        self,
        what: What,
        *,
        session_id: str | None = None,
        upstream: str | None = None,
        reason: str | None = None,
    ) -> None:
        for listener in self._listeners:
            listener(Happening(what, session_id, upstream, reason))

"""What passed lately, held in memory until something goes wrong: then it is what led to that."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from shadowcat.core.exchange import Direction
from shadowcat.plugins.recording.links import Linked
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire.jsonrpc import Kind, Message

_TOOL_FAILED = re.compile(rb'"isError"\s*:\s*true')


class Ring:
    def __init__(self, options: RecordOptions) -> None:
        self._options = options
        self._held: deque[Linked] = deque()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def take(self, linked: Linked) -> Sequence[Linked]:
        """What is to be written now: nothing, or all that is held, this included."""
        self._held.append(linked)
        self._bytes += linked.entry.size
        if self._is_noteworthy(linked):
            found = tuple(self._held)
            self._held.clear()
            self._bytes = 0
            return found
        oldest_s = linked.entry.at_s - self._options.ring_s
        while self._held and (self._held[0].entry.at_s < oldest_s or self._bytes > self._options.ring_bytes):
            self._bytes -= self._held.popleft().entry.size
        return ()

    def _is_noteworthy(self, linked: Linked) -> bool:
        entry = linked.entry
        if entry.message is None:
            return True
        if 0 < self._options.slow_call_s < linked.took_s:
            return True
        return entry.context.direction is Direction.TO_CLIENT and _is_failure(entry.message)


def _is_failure(message: Message) -> bool:
    return message.kind is Kind.ERROR or _TOOL_FAILED.search(message.raw_result) is not None

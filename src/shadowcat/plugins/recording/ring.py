"""The latest messages, held in memory until something goes wrong: they show what led to it."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence

from shadowcat.plugins.recording.entry import Entry, facts_of
from shadowcat.plugins.recording.links import MAX_UNANSWERED
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.wire.tape import FAILED

_TOOL_FAILED = re.compile(rb'"isError"\s*:\s*true')


class Ring:
    def __init__(self, options: RecordOptions) -> None:
        self._options = options
        self._held: deque[Entry] = deque()
        self._bytes = 0
        self._asked: OrderedDict[float, float] = OrderedDict()
        """When each request that is unanswered came, where that counts."""

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def take(self, entry: Entry) -> Sequence[Entry]:
        """What is to be written now: nothing, or all that is held, this included."""
        self._held.append(entry)
        self._bytes += entry.size
        if self._is_noteworthy(entry):
            found = tuple(self._held)
            self._held.clear()
            self._bytes = 0
            return found
        oldest_s = entry.at_s - self._options.ring_s
        while self._held and (self._held[0].at_s < oldest_s or self._bytes > self._options.ring_bytes):
            self._bytes -= self._held.popleft().size
        return ()

    def _is_noteworthy(self, entry: Entry) -> bool:
        facts = facts_of(entry.facts)
        if entry.outcome == FAILED or self._is_slow(entry, facts.kind):
            return True
        if facts.to_server:
            return False
        return facts.kind == "error" or (
            facts.kind == "result" and _TOOL_FAILED.search(entry.raw) is not None
        )

    def _is_slow(self, entry: Entry, kind: str) -> bool:
        if not self._options.slow_call_s:
            return False
        if kind == "request":
            self._asked[entry.seq] = entry.at_s
            if len(self._asked) > MAX_UNANSWERED:
                self._asked.popitem(last=False)
        elif kind in ("result", "error") and entry.request is not None:
            asked_s = self._asked.pop(entry.request, entry.at_s)
            return entry.at_s - asked_s > self._options.slow_call_s
        return False

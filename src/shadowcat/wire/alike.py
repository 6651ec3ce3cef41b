"""Notifications that differ only in their params, such as a server's progress reports.

What stands before the params, and the brace behind them, was judged with the first. What is left to be judged, of all
of them together, is that in each one object stands between: less than half of the work of parsing them one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from shadowcat.wire import json_strict
from shadowcat.wire.jsonrpc import NOTIFICATION, Message


def end_of_run(first: Message, texts: Sequence[bytes], start: int) -> int:
    """Where the texts end, from `start` on, that begin as `first` does."""
    head = _head_of(first)
    if not head:
        return start
    end = start
    while end + _MANY <= len(texts) and _all_begin_with(head, texts[end : end + _MANY]):
        end += _MANY
    while end < len(texts) and texts[end].startswith(head):
        end += 1
    return end


def parse_run(first: Message, texts: Sequence[bytes]) -> list[Message] | None:
    """The messages of a run, as `jsonrpc.parse` would have them; None where it has to look at them one by one."""
    start = len(_head_of(first)) - 1
    within = slice(start, -1)
    params = [text[within] for text in texts]
    if {text[-1] for text in texts} != _ENDS or not json_strict.are_members(params):
        return None
    method = first.method
    return list(map(Message, repeat(NOTIFICATION), repeat(None), repeat(method), texts, params))


_ENDS = {*b"}"}
_MANY = 32
"""Looked at together, but not all there are: a read of short runs would be gone through at the end of each."""


def _all_begin_with(head: bytes, texts: Sequence[bytes]) -> bool:
    """What is sorted between two that do does so too."""
    return min(texts).startswith(head) and max(texts).startswith(head)


def _head_of(first: Message) -> bytes:
    """Up to the brace that opens its params, where they come last; b"" for what has none to be alike in.

    Nothing else in a notification is an object: what ends in two braces ends in its params.
    """
    raw, params = first.raw, first.raw_params
    if first.kind is not NOTIFICATION or not params or not raw.endswith(params + b"}"):
        return b""
    return raw[: -len(params)]

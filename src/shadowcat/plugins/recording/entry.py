"""One thing that happened, as the exchange hands it over: references, nothing done to them yet."""

from __future__ import annotations

import msgspec

from shadowcat.core.exchange import PASS, Context, Reject, Replace, Reply, Verdict
from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A struct, as a named tuple takes several times as long to make, and the exchange waits for it."""

    seq: int
    at_s: float
    """By the clock that does not jump."""
    context: Context
    message: Message | None
    """None: the context's request failed."""
    outcome: Verdict | Fault
    size: int
    """What it holds in memory, roughly."""


def size_of(message: Message | None, outcome: Verdict | Fault) -> int:
    size = _OVERHEAD_BYTES + (0 if message is None else len(message.raw))
    if outcome is PASS:
        return size
    if isinstance(outcome, Replace | Reply):
        size += len(outcome.message.raw)
    return size


def names_request(outcome: Verdict | Fault) -> Message | None:
    """What a request goes on as, if it was changed: answers to it name that."""
    return outcome.message if isinstance(outcome, Replace) else None


def ends_request(outcome: Verdict | Fault) -> bool:
    """Whether a request goes no further, and so will get no answer beside this."""
    return outcome is not PASS and isinstance(outcome, Reply | Reject)


_OVERHEAD_BYTES = 600
"""The objects around a message."""

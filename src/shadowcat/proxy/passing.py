"""Puts messages that only pass on their stream within the read that brought them, without waking a task."""

from __future__ import annotations

import msgspec

from shadowcat.core.correlate import InFlight
from shadowcat.core.exchange import TO_CLIENT
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.streams import Stream
from shadowcat.wire.jsonrpc import NOTIFICATION, Message
from shadowcat.wire.mcp import Method

_LOOKED_INTO = frozenset({Method.CANCELLED, Method.PROGRESS})


class Passing(msgspec.Struct, eq=False):
    """Implements `core.exchange.Taker`."""

    core: SessionCore
    stream: Stream
    request: Message | None = None
    """Which the stream answers."""
    entry: InFlight[Stream] | None = None
    has_come: bool = False
    """Anything."""

    def take(self, messages: list[Message], cursor: bytes | None) -> list[Message] | None:
        stream = self.stream
        if messages:
            self.has_come = True
            rest: list[Message] = []
            if not all_pass(self.core, messages):
                count = self._passing(messages)
                messages, rest = messages[:count], messages[count:]
            stream.extend(messages)
            if rest:
                return rest
            stream.heard()
        stream.mark(cursor)
        return messages[:0] if stream.log.must_wait else None

    def _passing(self, messages: list[Message]) -> int:
        """How many pass before the first that does not. The taps have been told of them."""
        for count, message in enumerate(messages):
            if not self._passes(message):
                return count
        return len(messages)

    def _passes(self, message: Message) -> bool:
        core, entry = self.core, self.entry
        if message.method != Method.PROGRESS:
            return passes_as_it_is(core, message, self.request)
        # That of another request has to stay behind its answer, which may have been read and wait for its task.
        return (
            message.kind is NOTIFICATION
            and entry is not None
            and core.correlator.knows_token(message) is entry
            and core.passed(message, TO_CLIENT, self.request)
        )


def all_pass(core: SessionCore, batch: list[Message]) -> bool:
    """Whether there is nothing to be done to any of them, and nobody who might want to see them."""
    if core.shared.pipeline.is_used:
        return False
    for message in batch:  # noqa: SIM110 a generator costs each of them half as much again
        if message.kind is not NOTIFICATION or message.method in _LOOKED_INTO:
            return False
    return True


def passes_as_it_is(core: SessionCore, message: Message, request: Message | None) -> bool:
    """Whether a message is one of the many that nothing has to be done to, and nobody wants to see."""
    return (
        message.kind is NOTIFICATION
        and (
            message.method not in _LOOKED_INTO
            or (message.method == Method.PROGRESS and core.correlator.knows_token(message) is not None)
        )
        and core.passed(message, TO_CLIENT, request)
    )

"""Logs a line for each message, at level debug: what it is, never what is in it."""

from __future__ import annotations

import logging

from shadowcat.core.exchange import PASS, Context, Verdict
from shadowcat.errors import Fault
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.message")


class MessageLog:
    """A tap."""

    def saw(self, message: Message, context: Context, outcome: Verdict) -> None:
        asked = message.id if context.request is None else context.request.id
        log.debug(
            "session %s: exchange %s on upstream %s, %s: %r%s",
            (context.session_id or "-")[:8],
            "-" if asked is None else asked,
            context.upstream or "-",
            context.direction.name.lower().replace("_", " "),
            message,
            "" if outcome is PASS else f", {type(outcome).__name__.lower()}",
        )

    def failed(self, context: Context, fault: Fault) -> None:
        log.debug(
            "session %s: exchange %s on upstream %s failed: %s",
            (context.session_id or "-")[:8],
            "-" if context.request is None else context.request.id,
            context.upstream or "-",
            fault.reason,
        )


def message_log(level: str) -> tuple[MessageLog, ...]:
    """None where nobody sees its lines: with a tap every message costs a little more."""
    return (MessageLog(),) if level == "debug" else ()

"""Masks secrets in passing messages, on the way to one side; recording masks only what it writes.

For keeping the keys that a tool prints from a model, or those that a user types from a server.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import msgspec

from shadowcat.core.exchange import PASS, Context, Direction, Replace
from shadowcat.core.interceptor import Interceptor, Judgement, Phase
from shadowcat.core.redact import Redactor
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message


class RedactOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    towards: Literal["client", "server"] = "client"
    """Who does not get to see secrets."""
    keys: tuple[str, ...] = ()
    """Names of secrets beside the usual ones."""


class Redact(Interceptor):
    Options = RedactOptions

    def __init__(self, options: RedactOptions | None = None) -> None:
        options = options or RedactOptions()
        self._direction = Direction.TO_CLIENT if options.towards == "client" else Direction.TO_SERVER
        self._redactor = Redactor(options.keys)

    def wanted(self, phase: Phase) -> Collection[str] | None:
        return None if phase.direction is self._direction else ()

    def _masked(self, message: Message, context: Context) -> Judgement:
        redacted = self._redactor.redact_message(message)
        return PASS if redacted == message.raw else Replace(jsonrpc.parse(redacted))

    on_request = on_response = on_notification = _masked
    on_server_request = on_server_response = on_server_notification = _masked

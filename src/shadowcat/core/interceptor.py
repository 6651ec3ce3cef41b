"""The interface for interceptors: the phases a message can be in, and a class with a hook for each.

An interceptor sees one message at a time, wherever it travels: in a JSON body, in a batch, as one event of a stream,
on a line of stdio. It says what becomes of it, and the parts around it see to the rest: ids, headers, who is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from difflib import get_close_matches
from enum import Enum
from typing import Any, ClassVar

import msgspec

from shadowcat.core.exchange import PASS, Context, Direction, Verdict
from shadowcat.wire.jsonrpc import Message

Judgement = Verdict | Awaitable[Verdict]
"""A hook may be `def` or `async def`. One that has nothing to wait for is cheaper without the `async`."""


class Phase(Enum):
    """What a message is, and which way it goes."""

    REQUEST = "request"
    """A client asks: `initialize`, `tools/call` …"""
    RESPONSE = "response"
    """What the client gets for it."""
    NOTIFICATION = "notification"
    """A client tells: `notifications/cancelled` …"""
    SERVER_REQUEST = "server_request"
    """A server asks: `sampling/createMessage`, `roots/list` …"""
    SERVER_RESPONSE = "server_response"
    """What the server gets for it, from the client."""
    SERVER_NOTIFICATION = "server_notification"
    """A server tells: `notifications/progress`, `notifications/message` …"""

    @property
    def direction(self) -> Direction:
        return Direction.TO_SERVER if self in _TO_SERVER else Direction.TO_CLIENT


_TO_SERVER = (Phase.REQUEST, Phase.NOTIFICATION, Phase.SERVER_RESPONSE)
_HOOKS = tuple(f"on_{phase.value}" for phase in Phase)


class Interceptor:
    """Override the hooks of the phases you want. The others cost nothing, nor do methods that are not wanted."""

    Options: ClassVar[type[msgspec.Struct] | None] = None
    """If set, what it is configured with: `__init__` gets one, made from its table and checked."""
    methods: Collection[str] | None = None
    """Those whose messages it wants, answers to them included; None for all."""
    deadline_s: float = 5.0
    """How long an `async` hook may take. One that does not wait cannot be interrupted."""
    fails_open: bool = False
    """Whether a message passes when a hook raises, takes too long, or gives no verdict; else it is refused."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A misspelt hook would never be called, and what it is to refuse would pass."""
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("on_") and name not in _HOOKS:
                [meant] = get_close_matches(name, _HOOKS, n=1, cutoff=0.0)
                raise TypeError(f"{cls.__name__}.{name} is no hook; did you mean {meant}?")

    @property
    def name(self) -> str:
        """By which it goes in logs."""
        return type(self).__name__

    def wanted(self, phase: Phase) -> Collection[str] | None:
        """The methods it wants to see in that phase: None for all, nothing for none. Asked once, at the beginning."""
        hook = f"on_{phase.value}"
        if getattr(type(self), hook) is getattr(Interceptor, hook):
            return ()
        return self.methods

    def on_request(self, message: Message, context: Context) -> Judgement:
        return PASS

    def on_response(self, message: Message, context: Context) -> Judgement:
        return PASS

    def on_notification(self, message: Message, context: Context) -> Judgement:
        return PASS

    def on_server_request(self, message: Message, context: Context) -> Judgement:
        return PASS

    def on_server_response(self, message: Message, context: Context) -> Judgement:
        return PASS

    def on_server_notification(self, message: Message, context: Context) -> Judgement:
        return PASS

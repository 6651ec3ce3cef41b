"""A client's session: what is remembered of it, and the states it goes through.

Every transition stands in one table. An event that the table does not know for a state is a bug in the caller, not
something to survive quietly.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, cast

import msgspec

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import LEGACY_VERSIONS, LIST_CHANGED

MAX_SUBSCRIPTIONS = 1_000
MAX_SUBSCRIPTION_CHARS = 256 * 1024

SESSION_ID = re.compile(r"[\x21-\x7e]{1,256}")


class State(Enum):
    OPEN = "open"
    RECOVERING = "recovering"
    """The upstream lost its side; it is being opened again."""
    BROKEN = "broken"
    """The upstream came back as less than what the client was promised: the client has to start anew."""
    ENDED = "ended"


OPEN = State.OPEN
"""As `wire.jsonrpc` has its kinds."""


class Event(Enum):
    UPSTREAM_LOST = "upstream lost"
    RECOVERED = "recovered"
    RECOVERY_FAILED = "recovery failed"
    PROMISE_SHRANK = "promise shrank"
    ENDED = "ended"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.OPEN, Event.UPSTREAM_LOST): State.RECOVERING,
    (State.OPEN, Event.ENDED): State.ENDED,
    (State.RECOVERING, Event.RECOVERED): State.OPEN,
    # The upstream could not be reached: the next request tries again.
    (State.RECOVERING, Event.RECOVERY_FAILED): State.OPEN,
    (State.RECOVERING, Event.PROMISE_SHRANK): State.BROKEN,
    (State.RECOVERING, Event.ENDED): State.ENDED,
    (State.BROKEN, Event.ENDED): State.ENDED,
    (State.ENDED, Event.ENDED): State.ENDED,
    # Recovery may finish after the client has ended the session.
    (State.ENDED, Event.RECOVERED): State.ENDED,
    (State.ENDED, Event.RECOVERY_FAILED): State.ENDED,
    (State.ENDED, Event.PROMISE_SHRANK): State.ENDED,
}


def after(state: State, event: Event) -> State:
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise RuntimeError(f"{event.value} cannot happen to a session that is {state.value}") from None


class SessionRecord(msgspec.Struct, kw_only=True, gc=False):
    """Everything needed to go on with a session in another process."""

    id: str
    principal: str
    route: str
    upstream: str
    upstream_id: str | None
    version: str
    initialize_params: bytes
    """As they went to the upstream."""
    initialize_result: bytes
    """As the client got it: the promise."""
    log_level: str | None = None
    subscriptions: frozenset[str] = frozenset()
    initialized: bool = False
    has_listened: bool = False
    """Its client has asked for what the server says by itself."""
    created_wall: float = 0.0
    epoch: str = ""
    """Stands in the ids of the events of its streams, and of no other session's."""

    @property
    def has_room_to_subscribe(self) -> bool:
        """Subscriptions are remembered for a server that forgets them, and a client may ask for any number."""
        held = sum(len(uri) for uri in self.subscriptions)
        return len(self.subscriptions) < MAX_SUBSCRIPTIONS and held < MAX_SUBSCRIPTION_CHARS

    def promised(self) -> dict[str, Any]:
        return _decode_promise(self.initialize_result).capabilities

    def list_changed_methods(self) -> list[str]:
        """The list_changed notifications the server promised."""
        promised = self.promised()
        return [
            method
            for capability, method in LIST_CHANGED.items()
            if isinstance(found := promised.get(capability), dict)
            and cast("dict[str, Any]", found).get("listChanged") is True
        ]


class Promise(msgspec.Struct):
    """What an InitializeResult fixes for the life of the session."""

    protocol_version: str = msgspec.field(name="protocolVersion")
    capabilities: dict[str, Any] = {}


_decode_promise = msgspec.json.Decoder(Promise).decode


def promise_of(result: Message) -> Promise:
    """Raises `Fault` for a result that is none, or that names a version no `initialize` can agree on."""
    try:
        promise = _decode_promise(result.raw_result)
    except msgspec.MsgspecError as error:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_initialize_result", sent=True) from error
    if promise.protocol_version not in LEGACY_VERSIONS:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_protocol_version", sent=True)
    return promise


def covers(promised: Any, offered: Any) -> bool:
    """Does what a server offers now still hold what was promised? It may offer more."""
    if not isinstance(promised, dict):
        return promised == offered
    if not isinstance(offered, dict):
        return False
    held = cast("dict[str, Any]", offered)
    return all(
        value is False or value is None or (key in held and covers(value, held[key]))
        for key, value in cast("dict[str, Any]", promised).items()
    )

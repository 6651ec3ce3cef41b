"""In which phases a method can occur, so that a rule or plugin that could never apply is found early."""

from __future__ import annotations

from difflib import get_close_matches

from shadowcat.core.exchange import Direction
from shadowcat.core.interceptor import Phase
from shadowcat.core.patterns import Patterns
from shadowcat.wire.mcp import REMOVED_IN_MODERN, Era, Method

_ASKED_BY_SERVERS = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})
_ASKED_BY_BOTH = frozenset(
    {"ping", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel", "tasks/update"}
)
_ASKED_BY_CLIENTS = frozenset(
    {
        Method.INITIALIZE,
        Method.DISCOVER,
        Method.LISTEN,
        Method.SET_LEVEL,
        Method.SUBSCRIBE,
        Method.UNSUBSCRIBE,
        Method.TOOLS_CALL,
        Method.TOOLS_LIST,
        Method.PROMPTS_LIST,
        Method.PROMPTS_GET,
        Method.RESOURCES_LIST,
        Method.TEMPLATES_LIST,
        Method.RESOURCES_READ,
        "completion/complete",
    }
)
_TOLD = frozenset(
    {
        Method.INITIALIZED,
        Method.CANCELLED,
        Method.PROGRESS,
        Method.MESSAGE,
        Method.ACKNOWLEDGED,
        Method.RESOURCE_UPDATED,
        Method.TOOLS_CHANGED,
        Method.PROMPTS_CHANGED,
        Method.RESOURCES_CHANGED,
        "notifications/roots/list_changed",
        "notifications/elicitation/complete",
        "notifications/tasks/status",
    }
)
_KNOWN = _ASKED_BY_SERVERS | _ASKED_BY_BOTH | _ASKED_BY_CLIENTS | _TOLD
_LOOKS_LIKE = 0.85
_MODERN_ONLY = frozenset({Method.DISCOVER, Method.LISTEN})

_OF_CLIENTS = frozenset({Phase.REQUEST, Phase.RESPONSE})
_OF_SERVERS = frozenset({Phase.SERVER_REQUEST, Phase.SERVER_RESPONSE})
_NOTIFICATIONS = frozenset({Phase.NOTIFICATION, Phase.SERVER_NOTIFICATION})


def method_meant(method: str) -> str | None:
    """The one of MCP's that another is likely a misspelling of. It may be an extension's all the same."""
    if method in _KNOWN:
        return None
    return next(iter(get_close_matches(method, sorted(_KNOWN), n=1, cutoff=_LOOKS_LIKE)), None)


def phases_of(direction: Direction, methods: Patterns, era: Era | None) -> frozenset[Phase]:
    """Where a message with one of these methods, or the answer to one, can go that way; none at all is possible."""
    found = frozenset[Phase]()
    for pattern in methods or Patterns.of("*"):
        found |= _anywhere(pattern.text, era) if pattern.is_exact else frozenset(Phase)
    return frozenset(phase for phase in found if phase.direction is direction)


def _anywhere(method: str, era: Era | None) -> frozenset[Phase]:
    """A method that is not known may be anything."""
    if (era is Era.MODERN and method in REMOVED_IN_MODERN) or (era is Era.LEGACY and method in _MODERN_ONLY):
        return frozenset()
    if method.startswith("notifications/"):
        return _NOTIFICATIONS
    if method in _ASKED_BY_CLIENTS:
        return _OF_CLIENTS
    if method in _ASKED_BY_SERVERS:
        return frozenset() if era is Era.MODERN else _OF_SERVERS
    return _OF_CLIENTS | _OF_SERVERS if method in _ASKED_BY_BOTH else frozenset(Phase)

"""What the protocol fixes: eras, versions, methods, header names and `_meta` keys.

Versions are compared by membership in these sets, never by order of their strings.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Era(Enum):
    LEGACY = "legacy"
    """`initialize`, sessions, resumable streams."""
    MODERN = "modern"
    """Stateless: every request carries its version and capabilities in `_meta`."""


V2024_11_05: Final = "2024-11-05"
V2025_03_26: Final = "2025-03-26"
V2025_06_18: Final = "2025-06-18"
V2025_11_25: Final = "2025-11-25"
V2026_07_28: Final = "2026-07-28"

LEGACY_VERSIONS: Final = (V2025_11_25, V2025_06_18, V2025_03_26, V2024_11_05)
"""Newest first: the order in which they are offered."""
MODERN_VERSIONS: Final = (V2026_07_28,)
LATEST_LEGACY: Final = V2025_11_25

BATCH_VERSIONS: Final = frozenset({V2025_03_26})
PRIMING_VERSIONS: Final = frozenset({V2025_11_25})
"""Older clients parse the priming event's empty data as JSON and fail."""
VERSION_HEADER_VERSIONS: Final = frozenset({V2025_06_18, V2025_11_25, V2026_07_28})
"""Those that have the `MCP-Protocol-Version` header."""


def era_of(version: str) -> Era | None:
    if version in LEGACY_VERSIONS:
        return Era.LEGACY
    if version in MODERN_VERSIONS:
        return Era.MODERN
    return None


class Header:
    """Names as they are compared: lower case, bytes."""

    SESSION_ID: Final = b"mcp-session-id"
    PROTOCOL_VERSION: Final = b"mcp-protocol-version"
    METHOD: Final = b"mcp-method"
    NAME: Final = b"mcp-name"
    PARAM_PREFIX: Final = b"mcp-param-"
    LAST_EVENT_ID: Final = b"last-event-id"


class Meta:
    """Keys of `params._meta` and `result._meta`."""

    PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
    CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
    CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
    LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
    SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
    SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
    RELATED_TASK: Final = "io.modelcontextprotocol/related-task"
    PROGRESS_TOKEN: Final = "progressToken"


class Method:
    INITIALIZE: Final = "initialize"
    PING: Final = "ping"
    DISCOVER: Final = "server/discover"
    LISTEN: Final = "subscriptions/listen"
    SET_LEVEL: Final = "logging/setLevel"
    SUBSCRIBE: Final = "resources/subscribe"
    UNSUBSCRIBE: Final = "resources/unsubscribe"
    TOOLS_CALL: Final = "tools/call"
    TOOLS_LIST: Final = "tools/list"
    PROMPTS_LIST: Final = "prompts/list"
    PROMPTS_GET: Final = "prompts/get"
    RESOURCES_LIST: Final = "resources/list"
    TEMPLATES_LIST: Final = "resources/templates/list"
    RESOURCES_READ: Final = "resources/read"

    INITIALIZED: Final = "notifications/initialized"
    CANCELLED: Final = "notifications/cancelled"
    PROGRESS: Final = "notifications/progress"
    MESSAGE: Final = "notifications/message"
    ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
    RESOURCE_UPDATED: Final = "notifications/resources/updated"
    TOOLS_CHANGED: Final = "notifications/tools/list_changed"
    PROMPTS_CHANGED: Final = "notifications/prompts/list_changed"
    RESOURCES_CHANGED: Final = "notifications/resources/list_changed"


REMOVED_IN_MODERN: Final = frozenset(
    {Method.INITIALIZE, Method.PING, Method.SET_LEVEL, Method.SUBSCRIBE, Method.UNSUBSCRIBE}
)
"""A modern request for one of these is answered 404 / -32601."""

LOOKS: Final = frozenset(
    {Method.PING, Method.TOOLS_LIST, Method.PROMPTS_LIST, Method.RESOURCES_LIST, Method.TEMPLATES_LIST}
)
"""They change nothing, and are answered soon."""

NAMED_BY: Final = {
    Method.TOOLS_CALL: "name",
    Method.PROMPTS_GET: "name",
    Method.RESOURCES_READ: "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The parameter that `Mcp-Name` repeats, per method."""

LIST_CHANGED: Final = {
    "tools": Method.TOOLS_CHANGED,
    "prompts": Method.PROMPTS_CHANGED,
    "resources": Method.RESOURCES_CHANGED,
}
"""Server capability (its `listChanged`) and the notification it promises."""

LOG_LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Ascending severity."""

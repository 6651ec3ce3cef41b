"""Lines to paste to try an endpoint: a request, the Inspector, an editor's configuration."""

from __future__ import annotations

import json
from typing import Any

from shadowcat.wire.mcp import V2026_07_28, Meta


def curl(url: str) -> str:
    """One request and its answer: a modern one, which needs no session."""
    envelope: dict[str, Any] = {Meta.PROTOCOL_VERSION: V2026_07_28, Meta.CLIENT_CAPABILITIES: {}}
    params: dict[str, Any] = {"name": "greet", "arguments": {"name": "you"}, "_meta": envelope}
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": V2026_07_28,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "greet",
    }
    lines = [
        f"curl -sS {url}",
        *(f"-H '{name}: {value}'" for name, value in headers.items()),
        f"-d '{json.dumps(body)}'",
    ]
    return " \\\n  ".join(lines)


def inspector(url: str) -> str:
    return f"npx -y @modelcontextprotocol/inspector --transport http --server-url {url}"


def editor(url: str) -> str:
    return json.dumps({"mcpServers": {"shadowcat-demo": {"type": "http", "url": url}}}, indent=2)

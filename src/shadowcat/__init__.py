"""Shadowcat: a proxy for the Model Context Protocol.

`ReverseProxy`, `ForwardProxy`, `StdioForward` and `StdioBridge` are the proxy as a library; a `Command` is a server
that speaks stdio, an `Interceptor` what changes messages on their way. Ports for stores and taps of your own are in
`shadowcat.core`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowcat.admin.listener import Admin
    from shadowcat.app.bridge import StdioBridge
    from shadowcat.app.forward import ForwardProxy
    from shadowcat.app.proxy import ReverseProxy
    from shadowcat.app.stdio import StdioForward
    from shadowcat.core.exchange import PASS, Context, Reject, Replace, Reply, Verdict
    from shadowcat.core.interceptor import Interceptor
    from shadowcat.upstream.command import Command
    from shadowcat.wire.jsonrpc import Message

__all__ = [
    "PASS",
    "Admin",
    "Command",
    "Context",
    "ForwardProxy",
    "Interceptor",
    "Message",
    "Reject",
    "Replace",
    "Reply",
    "ReverseProxy",
    "StdioBridge",
    "StdioForward",
    "Verdict",
]

_HOME = {
    "Admin": "admin.listener",
    "Command": "upstream.command",
    "ForwardProxy": "app.forward",
    "ReverseProxy": "app.proxy",
    "StdioBridge": "app.bridge",
    "StdioForward": "app.stdio",
    "Interceptor": "core.interceptor",
    "Message": "wire.jsonrpc",
    **dict.fromkeys(("PASS", "Context", "Reject", "Replace", "Reply", "Verdict"), "core.exchange"),
}


def __getattr__(name: str) -> Any:
    # Lazily: the command line imports this package too, and must start at once.
    if name not in _HOME:
        raise AttributeError(f"module 'shadowcat' has no attribute {name!r}")
    return getattr(import_module(f"shadowcat.{_HOME[name]}"), name)

"""Shadowcat: a proxy for the Model Context Protocol.

`ReverseProxy` and `StdioForward` are the proxy as a library; the ports for stores and interceptors of your own are
in `shadowcat.core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowcat.app.proxy import ReverseProxy
    from shadowcat.app.stdio import StdioForward

__all__ = ["ReverseProxy", "StdioForward"]


def __getattr__(name: str) -> Any:
    # Lazily: the command line imports this package too, and must start at once.
    if name == "ReverseProxy":
        from shadowcat.app.proxy import ReverseProxy

        return ReverseProxy
    if name == "StdioForward":
        from shadowcat.app.stdio import StdioForward

        return StdioForward
    raise AttributeError(f"module 'shadowcat' has no attribute {name!r}")

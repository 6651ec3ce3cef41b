"""Shadowcat: a proxy for the Model Context Protocol.

`ReverseProxy` is the proxy as a library; the ports for stores and interceptors of your own are in `shadowcat.core`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shadowcat.app.proxy import ReverseProxy

__all__ = ["ReverseProxy"]


def __getattr__(name: str) -> Any:
    # Lazily: the command line imports this package too, and must start at once.
    if name == "ReverseProxy":
        from shadowcat.app.proxy import ReverseProxy

        return ReverseProxy
    raise AttributeError(f"module 'shadowcat' has no attribute {name!r}")

"""Who connects to a proxy that stops already: served where it belongs to what runs, and begins nothing new."""

from __future__ import annotations

from shadowcat.errors import proxy_stops
from shadowcat.http.message import Request
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import LOOKS


def is_late(request: Request) -> bool:
    return request.peer is not None and request.peer.is_late


def require_in_time(request: Request) -> None:
    """For what would begin something. Raises `Fault`."""
    if is_late(request):
        raise proxy_stops()


def comes_too_late(message: Message, request: Request) -> bool:
    """Of what is asked in a session that is here.

    A client that was just given an answer may look before its application gets it: that of the Python SDK asks for
    the list of tools, and has the call fail where it is refused.
    """
    return message.is_request and is_late(request) and message.method not in LOOKS

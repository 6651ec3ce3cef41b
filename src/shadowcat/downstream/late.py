"""Who connects to a proxy that stops already: served where it belongs to what runs, and begins nothing new."""

from __future__ import annotations

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.message import Request


def proxy_stops() -> Fault:
    return Fault(FaultKind.OVER_CAPACITY, reason="proxy_stops")


def is_late(request: Request) -> bool:
    return request.peer is not None and request.peer.is_late


def require_in_time(request: Request) -> None:
    """For what would begin something. Raises `Fault`."""
    if is_late(request):
        raise proxy_stops()

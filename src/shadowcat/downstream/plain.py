"""Requests that are no MCP, relayed whole as they are: how a client finds out where to be authorized, and registers."""

from __future__ import annotations

from shadowcat.core.targets import Target
from shadowcat.downstream.answers import not_allowed
from shadowcat.downstream.guard import SSE
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList, Headers, Request, Response
from shadowcat.wire.headers import end_to_end

MAX_BODY_BYTES = 16 * 1024 * 1024
_TIMEOUTS = Timeouts(head_s=30.0, gap_s=30.0, total_s=60.0)
_ALLOW = b"GET, POST"
_OURS_TO_SERVER = frozenset({b"host", b"content-length", b"expect"})
_OURS_TO_CLIENT = frozenset({b"content-length", b"date"})


class PlainRelay:
    """`client` is shared with the upstreams, and closed by its owner."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def relay(self, request: Request, target: Target) -> Response:
        """Raises `Fault` where there is no answer."""
        if request.method not in ("GET", "POST"):
            return not_allowed(_ALLOW)
        response = await self._client.send(
            Origin("http", target.host, target.port),
            request.method,
            request.target.decode("ascii"),
            _without(request.headers, _OURS_TO_SERVER),
            request.body,
            _TIMEOUTS,
        )
        try:
            if (response.headers.get(b"content-type") or b"").lower().startswith(SSE):
                # There are servers that stream whatever Accept says; interceptors would not see what that brings.
                told = "This is an event stream: Accept must list text/event-stream"
                raise Fault(FaultKind.NOT_ACCEPTABLE, told, reason="accept")
            body = await response.read(MAX_BODY_BYTES)
        except Fault:
            response.abort()
            raise
        return Response(response.status, _without(response.headers, _OURS_TO_CLIENT), body)


def _without(headers: Headers, ours: frozenset[bytes]) -> HeaderList:
    return [field for field in end_to_end(headers) if field[0] not in ours]

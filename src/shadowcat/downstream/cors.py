"""What a browser has to be told before a page of another origin, one that the guard let pass, may use an endpoint."""

from __future__ import annotations

import re

from shadowcat.downstream.answers import not_allowed
from shadowcat.http.message import HeaderList, Headers, Request, Response
from shadowcat.wire.mcp import Header

_TOKEN = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
_CORS_HEADERS = (
    b"authorization, content-type, accept, last-event-id, "
    b"mcp-session-id, mcp-protocol-version, mcp-method, mcp-name"
)


def preflight(request: Request, allow: bytes) -> Response:
    if b"origin" not in request.headers:
        return not_allowed(allow)
    return Response(204, [(b"allow", allow), *_preflight_headers(request.headers, allow)])


def _preflight_headers(headers: Headers, allow: bytes) -> HeaderList:
    asked = headers.get(b"access-control-request-headers") or b""
    params = [
        name
        for part in asked.lower().split(b",")
        if (name := part.strip()).startswith(Header.PARAM_PREFIX) and _TOKEN.fullmatch(name)
    ]
    return [
        (b"access-control-allow-methods", allow),
        (b"access-control-allow-headers", b", ".join([_CORS_HEADERS, *params])),
        (b"access-control-max-age", b"600"),
    ]


def with_cors(response: Response, origin: bytes) -> Response:
    response.headers = [
        *response.headers,
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"mcp-session-id, mcp-protocol-version, www-authenticate"),
        (b"vary", b"origin"),
    ]
    return response

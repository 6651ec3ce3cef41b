"""Request bodies: declared as JSON, which no HTML form can do, and of a length known beforehand."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

MAX_BODY_BYTES = 16 * 1024 * 1024
_BODY_S = 10.0


class BadBody(Exception):
    def __init__(self, status: int, reason: str, told: str) -> None:
        super().__init__(told)
        self.status = status
        self.reason = reason


def require_json(request: Request) -> None:
    """Asked of every POST, also of one that takes no body."""
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or kinds[0].partition(";")[0].strip().lower() != "application/json":
        raise BadBody(415, "content_type", "Content-Type must be application/json")
    if "transfer-encoding" in request.headers:
        raise BadBody(411, "length_required", "A body comes with its Content-Length")
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:
        raise BadBody(413, "body_too_large", f"A body has {MAX_BODY_BYTES} bytes at most")


async def body_of(request: Request) -> bytes:
    """Of a request of which JSON was required. The HTTP server gives no more of it than its length says."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.body()
    except (TimeoutError, ClientDisconnect) as error:
        raise BadBody(408, "body_too_slow", "The body did not arrive in time") from error

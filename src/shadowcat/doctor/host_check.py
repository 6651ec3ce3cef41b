"""A request with another Host than the one connected to, which the HTTP client would never send."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urlsplit

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.message import HeaderList

_ANSWER_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


async def status_for_host(url: str, host: str, body: bytes, headers: HeaderList) -> int:
    """The status that it gets. Over plain TCP; raises `Fault`."""
    parts = urlsplit(url)
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    fields = [
        (b"host", host.encode()),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json, text/event-stream"),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *headers,
    ]
    lines = [b"POST %b HTTP/1.1" % target.encode(), *(b": ".join(field) for field in fields)]
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
            try:
                writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
                found = _STATUS.match(await reader.readline())
            finally:
                writer.transport.abort()
    except (OSError, ValueError, TimeoutError) as error:
        raise Fault(FaultKind.UPSTREAM_FAILED, reason="no_answer") from error
    if found is None:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="no_http")
    return int(found[1])

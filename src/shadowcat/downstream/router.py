"""Which endpoint a request is for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from shadowcat.downstream.sse import SseEndpoint
from shadowcat.downstream.streamable import EndpointOptions, StreamableEndpoint
from shadowcat.http.later import Later
from shadowcat.http.message import Request, Response
from shadowcat.http.serving import Handler


def routed(options: EndpointOptions, streamable: StreamableEndpoint, old: SseEndpoint) -> Handler:
    """What is for neither is told by the Streamable endpoint."""
    begins = options.sse_path.encode("ascii")

    def handle(request: Request) -> Later | Coroutine[Any, Any, Response]:
        # Most requests are settled by the first bytes of their target.
        if request.target.startswith(begins) and old.serves(request.path):
            return old.handle(request)
        return streamable.handle(request)

    return handle

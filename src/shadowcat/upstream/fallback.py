"""A server of which only the URL is known: it speaks Streamable HTTP, or else the HTTP+SSE of 2024-11-05.

Which of them is found out when it is first asked, and again when it answers as if it spoke the other one. A server
that cannot be reached, or is out of order, tells nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from shadowcat.core.exchange import Answer, Forwarded
from shadowcat.core.ports import Link
from shadowcat.core.statistics import UpstreamStatistics
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client
from shadowcat.http.limits import Timeouts
from shadowcat.upstream.sse import SseUpstream, is_session_id
from shadowcat.upstream.streamable import CALL, StreamableUpstream
from shadowcat.wire.jsonrpc import Message

log = logging.getLogger("shadowcat.upstream")

INITIALIZE_S = 30.0
"""How long a server may take to answer `initialize`, however long a call may take."""

_SPEAKS_OTHERWISE = frozenset(
    {
        # To the POST of a message, or to the GET of a stream.
        "upstream_http_400",
        "upstream_http_404",
        "upstream_http_405",
        # To the GET alone.
        "upstream_sent_no_stream",
        "upstream_sent_no_endpoint",
    }
)


class UrlUpstream:
    """Links come straight from the upstream that was found to fit, and once that is known so does everything else."""

    def __init__(self, name: str, url: str, client: Client, call: Timeouts = CALL) -> None:
        self.name = name
        self.streamable = StreamableUpstream(name, url, client, call)
        self.sse = SseUpstream(name, url, client, call)
        self._known: StreamableUpstream | SseUpstream | None = None

    async def open(self, initialize: Message) -> tuple[Link, Message]:
        try:
            async with asyncio.timeout(INITIALIZE_S):
                return await self._open(initialize)
        except TimeoutError as error:
            # Nobody has begun to use it: another upstream may serve as well.
            told = f"The upstream did not answer initialize within {INITIALIZE_S:g} s"
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="upstream_did_not_answer") from error

    async def _open(self, initialize: Message) -> tuple[Link, Message]:
        upstream, other = self._in_order()
        try:
            opened = await upstream.open(initialize)
        except Fault as first:
            if first.reason not in _SPEAKS_OTHERWISE:
                raise
            upstream = other
            try:
                opened = await upstream.open(initialize)
            except Fault as second:
                if second.reason not in _SPEAKS_OTHERWISE:
                    raise
                raise first from first.__cause__
        self._settle(upstream)
        return opened

    def _in_order(self) -> tuple[StreamableUpstream | SseUpstream, ...]:
        both = (self.streamable, self.sse)
        return both[::-1] if self._known is self.sse else both

    def _settle(self, upstream: StreamableUpstream | SseUpstream) -> None:
        if upstream is not self._known:
            if self._known is not None or upstream is self.sse:
                transport = "HTTP+SSE" if upstream is self.sse else "Streamable HTTP"
                log.info("upstream %s: speaks %s", self.name, transport)
            self._known = upstream

    def attach(self, upstream_id: str | None, version: str) -> Link:
        if upstream_id is not None and is_session_id(upstream_id):
            return self.sse.attach(upstream_id, version)
        return self.streamable.attach(upstream_id, version)

    def exchange(self, request: Message, forwarded: Forwarded) -> Coroutine[Any, Any, Answer]:
        if self._known is None:
            return self._first_exchange(request, forwarded)
        return self._known.exchange(request, forwarded)

    async def _first_exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        try:
            answer = await self.streamable.exchange(request, forwarded)
        except Fault as fault:
            if fault.reason not in _SPEAKS_OTHERWISE or not await self.sse.is_there():
                raise
            self._settle(self.sse)
            return await self.sse.exchange(request, forwarded)
        self._settle(self.streamable)
        return answer

    def statistics(self) -> UpstreamStatistics:
        return (self._known or self.streamable).statistics()

    async def aclose(self) -> None:
        await self.sse.aclose()

"""HTTP+SSE, the transport of 2024-11-05, towards a server: a session is an event stream and a URL to post to."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shadowcat.aio import Tasks
from shadowcat.core.exchange import Answer, Forwarded
from shadowcat.core.session import promise_of
from shadowcat.core.statistics import UpstreamStatistics
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.http.client import Client
from shadowcat.http.limits import Timeouts
from shadowcat.upstream.link import ConduitLink
from shadowcat.upstream.readers import ConduitCounters
from shadowcat.upstream.requests import Requests
from shadowcat.upstream.sse_channel import SseChannel
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import LEGACY_VERSIONS, MODERN_VERSIONS

SseLink = ConduitLink[SseChannel]

_ID_PREFIX = "HTTP+SSE "
"""With a space in it, which no session id of Streamable HTTP has."""


def is_session_id(upstream_id: str) -> bool:
    """Whether a session that is known by this id was opened over this transport."""
    return upstream_id.startswith(_ID_PREFIX)


@dataclass(slots=True)
class SseCounters(ConduitCounters):
    opened: int = 0


class SseUpstream:
    """`client` is shared with whoever else uses it, and closed by its owner."""

    def __init__(self, name: str, url: str, client: Client, call: Timeouts = CALL) -> None:
        self.name = name
        self.counters = SseCounters()
        self._requests = Requests(url, client, call.gap_s)
        self._call = call
        self._channels: set[SseChannel] = set()
        self._tasks = Tasks(f"sse {name}")

    async def open(self, initialize: Message) -> tuple[SseLink, Message]:
        channel = await self._connect()
        link = SseLink(channel, self._retire, _ID_PREFIX + channel.endpoint)
        try:
            answer = await _handshake(link, initialize)
        except BaseException:
            await link.end()
            raise
        if answer.kind is not Kind.RESULT:
            await link.end()
        return link, answer

    async def is_there(self) -> bool:
        """Whether the URL is that of a server that speaks this transport."""
        try:
            channel = await self._connect()
        except Fault:
            return False
        await self._stop(channel)
        return True

    async def _connect(self) -> SseChannel:
        channel = await SseChannel.open(self.name, self._requests, self._call, self.counters, self._retire)
        self.counters.opened += 1
        self._channels.add(channel)
        return channel

    def attach(self, upstream_id: str | None, version: str) -> SseLink:
        """The stream of a session opened earlier ended with the process that read it."""
        return SseLink(None, upstream_id=upstream_id)

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        # As the server itself would say it to a client that could ask.
        raise Fault(
            FaultKind.UNSUPPORTED_VERSION,
            "The server speaks HTTP+SSE, which has sessions only",
            reason="upstream_has_sessions_only",
            side=Side.DOWNSTREAM,
            data={"supported": list(LEGACY_VERSIONS), "requested": MODERN_VERSIONS[0]},
        )

    @property
    def sessions(self) -> int:
        return len(self._channels)

    def statistics(self) -> UpstreamStatistics:
        counters, connections = self.counters, self._requests.connections()
        return UpstreamStatistics(
            connections_idle=connections.idle,
            connections_taken=connections.taken,
            connections_waited_for=connections.waiting,
            streams_open=len(self._channels),
            streams_opened=counters.opened,
            messages_dropped=counters.dropped_messages,
            lines_of_garbage=counters.garbage_lines,
            reader_stalls=counters.stalls,
        )

    def _retire(self, channel: SseChannel) -> None:
        self._tasks.spawn(self._stop(channel), "stop")

    async def _stop(self, channel: SseChannel) -> None:
        try:
            await channel.stop()
        finally:
            self._channels.discard(channel)

    async def aclose(self) -> None:
        if self._channels:
            await asyncio.gather(*(channel.stop() for channel in tuple(self._channels)))
        self._channels.clear()
        await self._tasks.aclose()


async def _handshake(link: SseLink, initialize: Message) -> Message:
    try:
        answer = await link.exchange(initialize)
    except Fault as fault:
        if fault.kind not in (FaultKind.UPSTREAM_SESSION_LOST, FaultKind.OUTCOME_UNKNOWN):
            raise
        # Nobody has begun to use it: another upstream may serve as well.
        told = "The upstream ended the session before it answered initialize"
        raise Fault(FaultKind.UPSTREAM_UNAVAILABLE, told, reason="upstream_session_lost") from fault
    # Nothing else can be on its stream: what a server says meanwhile waits on the standalone one.
    assert answer.whole is not None
    if answer.whole.kind is Kind.RESULT:
        promise_of(answer.whole)
    return answer.whole

"""Requests for sessions that live on another node: passed on to it, and its answer handed back as it comes.

Only what a session's requests need is passed on, sealed with the key that the nodes share. The other node believes it
that Host and Origin were checked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from shadowcat.aio import Tasks
from shadowcat.clock import Clock
from shadowcat.core.peer import SEAL_HEADER, is_sealed, seal
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList, Headers, Request, Response
from shadowcat.http.outgoing import ClientResponse
from shadowcat.wire.mcp import Header

log = logging.getLogger("shadowcat.cluster")

_PASSED_ON = (
    b"accept",
    b"content-type",
    Header.SESSION_ID,
    Header.PROTOCOL_VERSION,
    Header.LAST_EVENT_ID,
)
_HANDED_BACK = (
    b"content-type",
    b"cache-control",
    b"x-accel-buffering",
    b"allow",
    b"retry-after",
    Header.SESSION_ID,
)
_MAX_BODY_BYTES = 32 * 1024 * 1024
_TIMEOUTS = Timeouts(connect_s=2.0, head_s=None, gap_s=40.0)
"""A call may be long in answering; a stream is never silent for as long as this, because of the comments on it."""
_LOOK_S = 2.0
"""How often a request that waits for its answer has it looked at whether the other node is still there."""

MISDIRECTED = 421


class Peers:
    def __init__(self, client: Client, own: str, key: bytes, clock: Clock) -> None:
        """`own` is the URL of this node, which others seal what they send it with."""
        self._client = client
        self._own = own.encode()
        self._key = key
        self._clock = clock
        self._tasks = Tasks("peers")

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def vouches_for(self, request: Request) -> bool:
        """Whether the request was passed on by another node."""
        value = request.headers.get(SEAL_HEADER)
        if value is None:
            return False
        if is_sealed(self._key, self._clock.wall(), _parts(request, self._own), value):
            return True
        log.warning("a request is not as another node sealed it: is the key the same, and the time?")
        return False

    async def pass_on(
        self, request: Request, node: str, is_held: Callable[[], Awaitable[bool]]
    ) -> Response | None:
        """The other node's answer; None where it was not reached, or is not the one.

        `is_held` tells whether that node still has the session. Raises `Fault`: nobody knows what became of the
        request.
        """
        fields = [(name, value) for name in _PASSED_ON if (value := request.headers.get(name)) is not None]
        fields.append((SEAL_HEADER, seal(self._key, self._clock.wall(), _parts(request, node.encode()))))
        target = request.target.decode("ascii")
        sending = self._tasks.spawn(
            self._client.send(Origin.of(node), request.method, target, fields, request.body, _TIMEOUTS),
            "pass on",
            awaited=True,
        )
        try:
            while not (await asyncio.wait((sending,), timeout=_LOOK_S))[0]:
                if not await is_held():
                    return _unless_begun(request)
        finally:
            sending.cancel()
        try:
            response = sending.result()
        except Fault as fault:
            log.info("node %s: %s", node, fault.reason)
            return _unless_begun(request) if fault.sent else None
        if response.status == MISDIRECTED:
            response.abort()
            return None
        return await _handed_back(response)


def _unless_begun(request: Request) -> None:
    """What was sent may have been begun; only reading on in a stream can be asked for twice."""
    if request.method == "POST":
        raise Fault(FaultKind.OUTCOME_UNKNOWN, reason="node_lost", sent=True)


async def _handed_back(response: ClientResponse) -> Response:
    headers: HeaderList = [
        (name, value) for name in _HANDED_BACK if (value := response.headers.get(name)) is not None
    ]
    if _is_stream(response.headers):
        return Response(response.status, headers, _Rest(response), idle_s=_TIMEOUTS.gap_s or 0.0)
    return Response(response.status, headers, await response.read(_MAX_BODY_BYTES))


def _is_stream(headers: Headers) -> bool:
    return (headers.get(b"content-type") or b"").startswith(b"text/event-stream")


class _Rest:
    """The other node's stream. Where it breaks, so does ours, and the client comes back for the rest."""

    def __init__(self, response: ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._response)

    async def aclose(self) -> None:
        await self._response.aclose()


def _parts(request: Request, node: bytes) -> list[bytes]:
    fields = [request.headers.get(name) or b"" for name in _PASSED_ON]
    return [node, request.method.encode("ascii"), request.target, *fields, request.body]

"""A client that counts what it sees: one session, one call, one stream over as many connections as that takes.

It does what the protocol asks of any client whose connection breaks: wait as long as it was told to, then ask for
what follows the last event that it saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import LATEST_LEGACY, Header, Method
from shadowcat.wire.sse import SseDecoder, SseEvent

MAX_BODY_BYTES = 64 * 1024
AGAIN_S = 0.5
"""Between attempts to come back, where nobody said how long to wait."""
_TIMEOUTS = Timeouts(connect_s=5.0, head_s=15.0, gap_s=30.0)


@dataclass(frozen=True, slots=True)
class Saw:
    number: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection."""

    after: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class CameBack:
    attempts: int


@dataclass(slots=True)
class Witness:
    url: str
    numbers: list[int] = field(default_factory=list[int])
    answers: int = 0
    connections: int = 0
    _client: Client = field(default_factory=Client)
    _session: HeaderList = field(default_factory=list[tuple[bytes, bytes]])
    _last_id: bytes | None = None
    _retry_s: float = AGAIN_S

    async def open(self) -> None:
        """Raises `Fault`."""
        info = {"name": "shadowcat-demo-client", "version": "1"}
        params = {"protocolVersion": LATEST_LEGACY, "capabilities": {}, "clientInfo": info}
        response = await self._post(jsonrpc.request(1, Method.INITIALIZE, params))
        session_id = response.headers.get(Header.SESSION_ID)
        await response.read(MAX_BODY_BYTES)
        if response.status != 200 or session_id is None:
            raise Fault(FaultKind.UPSTREAM_FAILED, f"initialize was answered with HTTP {response.status}")
        self._session = [
            (Header.SESSION_ID, session_id),
            (Header.PROTOCOL_VERSION, LATEST_LEGACY.encode()),
        ]
        await (await self._post(jsonrpc.notification(Method.INITIALIZED))).read(MAX_BODY_BYTES)

    async def count(self, to: int, pause_ms: int) -> AsyncIterator[Saw | Lost | CameBack]:
        """Calls `count` and tells what happens, up to the answer. Raises `Fault` if it is refused."""
        arguments = {"to": to, "pause_ms": pause_ms}
        params = {"name": "count", "arguments": arguments, "_meta": {"progressToken": "witness"}}
        response = await self._post(jsonrpc.request(2, Method.TOOLS_CALL, params))
        while True:
            self.connections += 1
            async for number in self._read(response):
                yield Saw(number)
            if self.answers:
                return
            yield Lost(self.numbers[-1] if self.numbers else 0, self._retry_s)
            response, attempts = await self._come_back()
            yield CameBack(attempts)

    async def _read(self, response: ClientResponse) -> AsyncIterator[int]:
        """Until the stream ends or breaks: the client cannot tell the difference, and need not."""
        decoder = SseDecoder()
        try:
            async for piece in response:
                for event in decoder.feed(piece):
                    number = self._take(event)
                    if number is not None:
                        yield number
        except Fault:
            return
        finally:
            response.abort()

    def _take(self, event: SseEvent) -> int | None:
        if event.id is not None:
            self._last_id = event.id
        if event.retry is not None:
            self._retry_s = event.retry / 1000
        if not event.data:
            return None
        message = jsonrpc.parse(event.data)
        if message.is_response:
            self.answers += 1
        elif message.method == Method.PROGRESS:
            number: Any = message.params()["progress"]
            self.numbers.append(number)
            return number
        return None

    async def _come_back(self) -> tuple[ClientResponse, int]:
        """As often as it takes: who runs this has a deadline."""
        if self._last_id is None:
            raise Fault(FaultKind.OUTCOME_UNKNOWN, "The stream broke before its first event")
        wait_s = self._retry_s
        attempts = 0
        while True:
            await asyncio.sleep(wait_s)
            attempts += 1
            wait_s = AGAIN_S
            try:
                response = await self._send("GET", [(Header.LAST_EVENT_ID, self._last_id)])
            except Fault:
                continue  # nobody is there yet
            if response.status == 200:
                return response, attempts
            await response.read(MAX_BODY_BYTES)
            if response.status < 500:
                raise Fault(FaultKind.SESSION_UNKNOWN, f"The stream is refused with HTTP {response.status}")

    async def _post(self, message: Message) -> ClientResponse:
        return await self._send("POST", [(b"content-type", b"application/json")], message.raw)

    async def _send(self, method: str, headers: HeaderList, body: bytes = b"") -> ClientResponse:
        accept = b"text/event-stream" if method == "GET" else b"application/json, text/event-stream"
        return await self._client.send(
            Origin.of(self.url),
            method,
            urlsplit(self.url).path,
            [(b"accept", accept), *self._session, *headers],
            body,
            _TIMEOUTS,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

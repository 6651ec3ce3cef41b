"""Requests to one server: redirects are followed only within it, and bodies end in time."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import urljoin, urlsplit

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.client import Client, Origin, OutgoingHead
from shadowcat.http.incoming import ClientResponse
from shadowcat.http.limits import Timeouts
from shadowcat.http.message import HeaderList
from shadowcat.http.pool import PoolStatistics

MAX_BODY_BYTES = 16 * 1024 * 1024
_REDIRECTS = frozenset({307, 308})
_TARGET = re.compile(r"[\x21-\x7e]{1,8192}")


class Requests:
    def __init__(self, url: str, client: Client, body_s: float | None) -> None:
        """`body_s`: how long a body may take."""
        self._client = client
        self._origin = Origin.of(url)
        self._target = _target_of(url)
        self._body_s = body_s
        self.ask = client.ask
        """The same as `send` without waiting, where that is possible; what comes is to be `followed`."""

    def head(self, method: str, headers: HeaderList, target: str | None = None) -> OutgoingHead:
        """Of a request to the server's URL, or to another one of its own."""
        return OutgoingHead(self._origin, method, target or self._target, headers)

    def connections(self) -> PoolStatistics:
        """Those of its origin, whoever uses them."""
        return self._client.statistics().get(self._origin) or PoolStatistics(0, 0, 0)

    async def send(self, head: OutgoingHead, body: bytes, timeouts: Timeouts) -> ClientResponse:
        return await self.followed(await self._client.send_again(head, body, timeouts), head, body, timeouts)

    async def followed(
        self, response: ClientResponse, head: OutgoingHead, body: bytes, timeouts: Timeouts
    ) -> ClientResponse:
        """The response, or that of the place it redirects to."""
        if response.status in _REDIRECTS:
            location = response.headers.get(b"location")
            target = None if location is None else self.same_origin_target(location)
            if target is not None:
                await response.aclose()
                there = OutgoingHead(self._origin, head.method, target, head.headers)
                return await self._client.send_again(there, body, timeouts)
        return response

    async def body(self, response: ClientResponse) -> bytes:
        """All of a body, in the time that one silence may take: byte by byte it would never be silent."""
        if response.complete:
            return await response.read(MAX_BODY_BYTES)
        try:
            async with asyncio.timeout(self._body_s):
                return await response.read(MAX_BODY_BYTES)
        except TimeoutError as error:
            raise Fault(FaultKind.DEADLINE, reason="body", sent=True) from error
        finally:
            # Where it was not read to its end, its connection would wait for the rest.
            response.abort()

    def same_origin_target(self, reference: bytes) -> str | None:
        """Where a reference leads, if it stays with this server: what is sent elsewhere would be handed over."""
        base = f"{self._origin.scheme}://{self._origin.authority}{self._target}"
        try:
            url = urljoin(base, reference.decode("latin-1"))
            target = _target_of(url)
            return target if Origin.of(url) == self._origin and _TARGET.fullmatch(target) else None
        except ValueError:
            return None


def _target_of(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

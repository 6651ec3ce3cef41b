"""Who may speak to the endpoint at all: Origin, Host, Accept and Content-Type, before a body is looked at."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from shadowcat.errors import Fault, FaultKind
from shadowcat.http.message import Headers
from shadowcat.wire.hosts import host_of, is_loopback

PageOrigin = Annotated[
    str,
    Meta(
        title="an origin",
        pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://[^/*\s]+/?$",
        examples=["https://app.example.com"],
        description="As browsers send it: scheme://host[:port].",
    ),
]
HostName = Annotated[
    str,
    Meta(
        title="a host name",
        pattern=r"^([A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?)$",
        examples=["mcp.example.com"],
        description="A name or an address, without scheme and port.",
    ),
]


class Guard:
    """Which hosts may be asked for and which web pages may ask.

    On loopback both are this machine's names only: a page elsewhere that rebinds its name to 127.0.0.1 sends its
    own name as Host and itself as Origin.
    """

    def __init__(
        self, *, loopback: bool, hosts: frozenset[str] = frozenset(), origins: frozenset[str] = frozenset()
    ) -> None:
        """`hosts` are allowed beside loopback's own; without any, a listener that others can reach serves every name.

        `origins` are `scheme://host[:port]` of the pages that may use the proxy.
        """
        self._loopback = loopback
        self.allow(hosts, origins)

    def allow(self, hosts: frozenset[str], origins: frozenset[str]) -> None:
        """From now on these, and no others."""
        self.terms = object()
        """Another one each time: who keeps what `check` came to keeps it for as long as this is the same."""
        self._hosts = {host.lower().strip("[]") for host in hosts}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._allows_host = lru_cache(maxsize=256)(self._judge_host)
        self._allows_origin = lru_cache(maxsize=256)(self._judge_origin)

    def check(self, headers: Headers) -> None:
        host = headers.get(b"host")
        if host is not None and not self._allows_host(host):
            raise Fault(
                FaultKind.FORBIDDEN,
                "Host is not served here; --allow-host names those that are",
                reason="foreign_host",
            )
        origin = headers.get(b"origin")
        if origin is not None and not self._allows_origin(origin):
            raise Fault(
                FaultKind.FORBIDDEN,
                "Origin is not allowed; --allow-origin names those that are",
                reason="foreign_origin",
            )

    def _judge_host(self, host: bytes) -> bool:
        name = host_of(b"//" + host)
        if name is None:
            return False
        if name in self._hosts:
            return True
        return is_loopback(name) if self._loopback else not self._hosts

    def _judge_origin(self, origin: bytes) -> bool:
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return True
        if not self._loopback or not text.startswith(("http://", "https://")):
            return False
        name = host_of(origin)
        return name is not None and is_loopback(name)


class PageGuard(Guard):
    """For servers that were judged before, by the name that the client gave: Host is theirs, whatever it is."""

    def _judge_host(self, host: bytes) -> bool:
        return True


JSON = b"application/json"
SSE = b"text/event-stream"


def require_accept(headers: Headers, *needed: bytes) -> None:
    if not _accepts(headers.get(b"accept") or b"", needed):
        wanted = " and ".join(kind.decode() for kind in needed)
        raise Fault(FaultKind.NOT_ACCEPTABLE, f"Accept must list {wanted}", reason="accept")


@lru_cache(maxsize=256)
def _accepts(accept: bytes, needed: tuple[bytes, ...]) -> bool:
    ranges = {part.partition(b";")[0].strip().lower() for part in accept.split(b",")}
    if b"*/*" in ranges:
        return True
    return all(kind in ranges or kind.partition(b"/")[0] + b"/*" in ranges for kind in needed)


def require_json(headers: Headers) -> None:
    if not _is_json(headers.get(b"content-type") or b""):
        raise Fault(FaultKind.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json")


@lru_cache(maxsize=256)
def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() == JSON

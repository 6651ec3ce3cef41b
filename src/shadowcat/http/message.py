"""Requests and responses as values, and the bytes of their heads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

HeaderList = list[tuple[bytes, bytes]]


_NONE: frozenset[bytes] = frozenset()
_KNOWN = {
    spelling: name
    for name in (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-type",
        b"date",
        b"host",
        b"keep-alive",
        b"last-event-id",
        b"origin",
        b"server",
        b"transfer-encoding",
        b"user-agent",
    )
    for spelling in (name, name.title())
}
"""One object for a name that many heads have: each stream keeps its own head for as long as it goes on."""
_SET_COOKIE = b"set-cookie"
"""RFC 9110 5.3: what it holds has commas of its own, so that several of it cannot be joined by one."""


class Headers:
    """Header fields by lower-case name.

    Fields of one name are joined with ", " (RFC 9110 5.2) and remembered in `repeated`, so that whoever reads a
    field that may stand only once can refuse it. Those of Set-Cookie come one by one; `get` has a line for each.
    """

    __slots__ = ("_values", "get", "notes", "repeated")

    get: Callable[[bytes], bytes | None]
    """The value of the field of this lower-case name; the dict's own method, because it is called so often."""
    notes: dict[object, Any] | None
    """For what somebody concludes from the head alone, under a key of his own: the messages of a connection that
    repeats its head share it. None where there is nothing to share."""

    def __init__(self, fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        values: dict[bytes, bytes] = {}
        self._values = values
        self.get = values.get
        self.repeated = _NONE
        self.notes = None
        for name, value in fields:
            name = _KNOWN.get(name) or name.lower()
            # RFC 9110 5.5: white space around a value is not part of it. llhttp strips the front only.
            value = value.rstrip(b" \t")
            if name in values:
                self.add(name, value)
            else:
                values[name] = value

    def add(self, name: bytes, value: bytes) -> None:
        """`name` must be lower case."""
        if name in self._values:
            self._values[name] += (b"\n" if name == _SET_COOKIE else b", ") + value
            self.repeated |= {name}
        else:
            self._values[name] = value

    def with_length(self, digits: bytes) -> Headers:
        """The same fields with another Content-Length."""
        other = Headers.__new__(Headers)
        values = other._values = self._values.copy()
        values[b"content-length"] = digits
        other.get = values.get
        other.repeated = self.repeated
        other.notes = self.notes
        return other

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self._one_by_one() if _SET_COOKIE in self.repeated else iter(self._values.items())

    def _one_by_one(self) -> Iterator[tuple[bytes, bytes]]:
        for name, value in self._values.items():
            if name == _SET_COOKIE:
                yield from ((name, cookie) for cookie in value.split(b"\n"))
            else:
                yield name, value

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        # Values may hold credentials and end up in a traceback.
        return f"Headers({', '.join(name.decode('latin-1') for name in self._values)})"


class Request(msgspec.Struct, eq=False):
    """One request, its body whole.

    A struct, as a response is: made for every exchange, and in half the time that a dataclass takes.
    """

    method: str
    target: bytes
    headers: Headers
    body: bytes = b""
    chunked_responses: bool = True
    """False for an HTTP/1.0 client, whose streamed answer ends with the connection."""
    peer: Peer | None = None
    _cancel: Callable[[], object] | None = None
    _gone: bool = False

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("ascii", "replace")

    def cancel_on_disconnect(self, cancel: Callable[[], object]) -> None:
        """Calls `cancel` when the client goes away before the response has begun; at once if it already has.

        Without it the handler runs on: whether a lost client cancels its request is not for HTTP to say. Once a
        streamed response has begun, the engine closes its body instead.
        """
        if self._gone:
            cancel()
        self._cancel = cancel

    def client_gone(self) -> None:
        """For the engine: the connection was lost."""
        self._gone = True
        if self._cancel is not None:
            self._cancel()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection."""

    address: str
    certificate: dict[str, Any] | None = None
    """What the client's certificate says, verified, when the listener asks for one."""
    tunnel: bytes | None = None
    """The host and port that it asked to be connected with, and was told that it is (CONNECT)."""
    is_late: bool = False
    """It connected when the server was draining already."""


Body = bytes | AsyncIterator[bytes]


class Response(msgspec.Struct):
    """A whole body is sent with its length; an iterator is sent chunk by chunk, as fast as the client reads."""

    status: int
    headers: HeaderList = []
    body: Body = b""
    encoded: bytes = b""
    """What `encode_head` makes of status and headers, where it was kept from another response."""
    idle_chunk: bytes = b""
    """Written whenever a streamed body was silent for `idle_s`: what sits between drops silent connections."""
    idle_s: float = 15.0


def size_of(fields: HeaderList) -> int:
    """How many bytes the fields take in a head."""
    return sum([len(name) + len(value) + 4 for name, value in fields])


_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status


_CR, _LF = b"\r\n"


def encode_fields(fields: HeaderList) -> bytes:
    """Header lines. A line end in a value would be a header of somebody else's choosing: refused."""
    lines = [b": ".join(field) for field in fields]
    text = b"".join(lines)
    # The code of a byte: its search is a memchr, where that of a bytes object costs five times as much.
    if _LF in text or _CR in text or 0 in text:
        raise ValueError("a header name or value holds a line end or NUL")
    lines.append(b"")
    return b"\r\n".join(lines)


def encode_head(status: int, fields: HeaderList) -> bytes:
    """The beginning of a response, up to what the engine adds by itself."""
    return status_line(status) + encode_fields(fields)

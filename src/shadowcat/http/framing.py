"""Responses as bytes: their heads, with what says where the body ends and whether the connection goes on."""

from __future__ import annotations

from shadowcat.http.message import Response, encode_head

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"
WITHOUT_BODY = frozenset({204, 304})
"""Answers with such a status have none."""

_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
_HTTP_1_1_REQUIRED = b"\0\0\0\x0d"

_END = b"\r\n"
_CLOSE_END = b"connection: close\r\n\r\n"


def head(response: Response, date: bytes, keep_alive: bool, framing: bytes, body: bytes = b"") -> bytes:
    """The head, and behind it what is to leave with it."""
    return b"".join(
        (
            response.encoded or encode_head(response.status, response.headers),
            date,
            framing,
            _END if keep_alive else _CLOSE_END,
            body,
        )
    )


def http2_refusal(why: bytes) -> bytes:
    """For who speaks HTTP/2, and reads nothing else: GOAWAY (RFC 9113, 6.8), after the settings that come first."""
    payload = b"\0\0\0\0" + _HTTP_1_1_REQUIRED + why
    return b"%b\0\0%c\x07\0\0\0\0\0%b" % (_SETTINGS, len(payload), payload)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

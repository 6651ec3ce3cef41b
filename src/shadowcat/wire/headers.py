"""The `Mcp-Name` / `Mcp-Param-*` value codec, and which HTTP headers end at a hop."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

_MARK = b"=?base64?"
_END = b"?="
_PLAIN = re.compile(rb"[\x20-\x7e]*")
_LOOKS_ENCODED = re.compile(rb"=\?base64\?.*\?=")
_INTEGER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.0+)?")
_OWS = b" \t"

ParamValue = str | int | bool


class HeaderValueError(ValueError):
    """A value that claims to be encoded and is not, or that no header can mean."""


def encode_value(value: ParamValue) -> bytes:
    """As is where a header can carry it unchanged; otherwise Base64 of the UTF-8 between the markers."""
    raw = _text(value)
    if raw.strip(_OWS) == raw and _PLAIN.fullmatch(raw) and not _LOOKS_ENCODED.fullmatch(raw):
        return raw
    return _MARK + base64.b64encode(raw) + _END


def _text(value: ParamValue) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode()


def decode_value(header: bytes) -> str:
    """The text a header stands for. A lone or upper-case marker is literal; a broken encoding is refused."""
    raw = header.strip(_OWS)
    if not (raw.startswith(_MARK) and raw.endswith(_END) and len(raw) >= len(_MARK) + len(_END)):
        return raw.decode("latin-1")
    try:
        body = raw[len(_MARK) : -len(_END)]
        decoded = base64.b64decode(body, validate=True)
        # b64decode forgives bits set behind the padding; two spellings of one value would pass a comparison.
        if base64.b64encode(decoded) != body:
            raise HeaderValueError("not canonical Base64")
        return decoded.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise HeaderValueError("bad Base64 in a header value") from error


def matches(header: bytes, value: ParamValue) -> bool:
    """Does the header repeat this argument? Integers compare as numbers: `42.0` is 42."""
    text = decode_value(header)
    if isinstance(value, (bool, str)):
        return text == _text(value).decode()
    raw = text.encode("latin-1", "replace")
    return len(raw) <= 64 and _INTEGER.fullmatch(raw) is not None and int(raw.split(b".")[0]) == value


HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that may go on: neither hop-by-hop by nature nor named in `Connection` (RFC 9110 7.6.1)."""
    headers = list(headers)
    named = {
        token.strip(_OWS).lower()
        for name, value in headers
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    return [
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in HOP_BY_HOP and lower not in named
    ]

"""What a request head must be before anything of the request is believed (RFC 9112, and stricter).

llhttp refuses most of what is ambiguous by itself: Content-Length beside Transfer-Encoding, odd lengths and chunk
sizes, bare CR or LF, folded headers, spaces before the colon. Here stands what it lets through.
"""

from __future__ import annotations

import re
from functools import lru_cache

from shadowcat.http.message import Headers

# reg-name, IPv4 or bracketed IPv6, and a port: no path, no user, no space, no empty host.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    """Remembered, because a server hears few names, and each of them in every request."""
    return _HOST.fullmatch(host) is not None


class Refusal(Exception):
    """A request that is answered by the engine itself, after which the connection is closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def check_head(method: str, target: bytes, version: str, headers: Headers, body_limit: int) -> bytes:
    """Raises `Refusal`, or returns the target in origin form."""
    if version not in ("1.1", "1.0"):
        raise Refusal(400, "unsupported HTTP version")
    if method not in METHODS:
        raise Refusal(405 if method in ("CONNECT", "TRACE") else 501, f"{method} is not served here")
    get = headers.get
    host = get(b"host")
    if host is None:
        if version == "1.1":
            raise Refusal(400, "Host is missing")
    elif b"host" in headers.repeated:
        raise Refusal(400, "Host stands twice")
    elif not _is_host(host):
        raise Refusal(400, "Host is not a host")
    coding = get(b"transfer-encoding")
    if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
        raise Refusal(400, "Transfer-Encoding must be chunked alone")
    length = get(b"content-length")
    if length is not None and int(length) > body_limit:
        raise Refusal(413, f"the body may have {body_limit} bytes")
    encoding = get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refusal(415, "Content-Encoding is not supported")
    expect = get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal(417, "an expectation that cannot be met")
    if target[:1] == b"/":
        return target
    return _origin_form(method, target, host)


def _origin_form(method: str, target: bytes, host: bytes | None) -> bytes:
    if target == b"*" and method == "OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(400, "the target is neither a path nor a URL")
    if host is None or absolute[1].lower() != host.lower():
        raise Refusal(421, "the target names another host")
    return absolute[2] if absolute[2][:1] == b"/" else b"/" + absolute[2]

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
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
_USUAL_PORT = {b"http": b":80", b"https": b":443"}

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


class SpokeTls(Refusal):
    """It was no request at all."""

    def __init__(self, why: str = "this is TLS, and plain HTTP is spoken here") -> None:
        super().__init__(400, why)


class SpokeHttp2(Refusal):
    """Nor was that."""

    def __init__(self) -> None:
        super().__init__(400, "this is HTTP/2, and HTTP/1.1 is spoken here")


def check_head(
    method: str, target: bytes, version: str, headers: Headers, body_limit: int, forward: bool = False
) -> bytes:
    """Raises `Refusal`, or returns the target in origin form; with `forward`, one that names a host as it came."""
    if version not in ("1.1", "1.0"):
        raise Refusal(400, "unsupported HTTP version")
    is_tunnel = False
    if method not in METHODS:
        is_tunnel = forward and method == "CONNECT"
        if not is_tunnel:
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
        raise Refusal(413, f"the body is too large: {body_limit} bytes at most")
    encoding = get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise Refusal(415, "Content-Encoding is not supported")
    expect = get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        raise Refusal(417, "an expectation that cannot be met")
    if is_tunnel:
        return _tunnel_form(target, headers)
    if target[:1] == b"/":
        return target
    origin_form = _origin_form(method, target, host)
    return target if forward else origin_form


def _origin_form(method: str, target: bytes, host: bytes | None) -> bytes:
    if target == b"*" and method == "OPTIONS":
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Refusal(400, "the target is neither a path nor a URL")
    usual = _USUAL_PORT[absolute[1].lower()]
    if host is None or absolute[2].lower().removesuffix(usual) != host.lower().removesuffix(usual):
        raise Refusal(421, "the target names another host")
    return absolute[3] if absolute[3][:1] == b"/" else b"/" + absolute[3]


def _tunnel_form(target: bytes, headers: Headers) -> bytes:
    if not _is_host(target) or not target.rpartition(b":")[2].isdigit():
        raise Refusal(400, "the target of CONNECT is not HOST:PORT")
    if b"content-length" in headers or b"transfer-encoding" in headers:
        raise Refusal(400, "CONNECT has no body")
    return target

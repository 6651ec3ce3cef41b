"""Which era a message to the one endpoint belongs to, and what that era requires of it.

Two facts decide: the `MCP-Protocol-Version` header (H) and the version inside `params._meta` (B). Silence never
falls back: whoever names a modern version must carry the whole modern envelope.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from shadowcat.core.exchange import Forwarded
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import headers as codec
from shadowcat.wire.headers import HeaderValueError
from shadowcat.wire.jsonrpc import Kind, Message, members
from shadowcat.wire.mcp import (
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    NAMED_BY,
    REMOVED_IN_MODERN,
    Era,
    Header,
    Meta,
)

_BACKSLASH = ord("\\")


class Course(Enum):
    """What to do with a message."""

    LEGACY = "legacy"
    MODERN = "modern"
    DROP = "accept and drop"


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What the message itself says about its era."""

    header: str | None
    body: Any = None
    """The version in `_meta`, whatever its JSON type; None where there is none."""
    has_capabilities: bool = False


def claims_of(message: Message, header: str | None) -> Claims:
    """Looks into `_meta` only where something may stand there that decides."""
    if not message.raw_params or (header not in MODERN_VERSIONS and not may_claim_an_era(message)):
        return Claims(header)
    meta_raw = message.param_members().get("_meta")
    if meta_raw is None or bytes(meta_raw)[:1] != b"{":
        return Claims(header)
    meta = members(bytes(meta_raw))
    version = meta.get(Meta.PROTOCOL_VERSION)
    capabilities = meta.get(Meta.CLIENT_CAPABILITIES)
    return Claims(
        header,
        None if version is None else msgspec.json.decode(version),
        capabilities is not None and bytes(capabilities)[:1] == b"{",
    )


def may_claim_an_era(message: Message) -> bool:
    """Whether something stands in it that may be a version in `_meta`."""
    raw = message.raw_params
    # A key may be spelled with escapes; then a backslash stands in it.
    return raw.find(b"/protocolVersion") >= 0 or _BACKSLASH in raw


def course_of(kind: Kind, claims: Claims) -> Course:
    """The table of PROTOCOL 4.1. Raises `Fault` for what belongs to no era."""
    header, body = claims.header, claims.body
    if kind is Kind.REQUEST:
        return _course_of_request(claims)
    if kind is Kind.NOTIFICATION:
        if header in MODERN_VERSIONS or body is not None:
            # Only stdio has client notifications in the modern era; over HTTP they are accepted and mean nothing.
            if body is not None and body not in MODERN_VERSIONS:
                raise unsupported(body)
            return Course.DROP
        _require_legacy(header)
        return Course.LEGACY
    if header in MODERN_VERSIONS:
        raise Fault(FaultKind.INVALID_REQUEST, "A modern client answers no requests")
    _require_legacy(header)
    return Course.LEGACY


def _course_of_request(claims: Claims) -> Course:
    header, body = claims.header, claims.body
    if body is None:
        if header in MODERN_VERSIONS:
            missing = [Meta.PROTOCOL_VERSION]
            if not claims.has_capabilities:
                missing.append(Meta.CLIENT_CAPABILITIES)
            raise Fault(FaultKind.INVALID_PARAMS, f"params._meta lacks {' and '.join(missing)}")
        if header is not None and header not in LEGACY_VERSIONS:
            raise unsupported(header)
        return Course.LEGACY
    if header is None:
        raise _mismatch("MCP-Protocol-Version is missing")
    if not isinstance(body, str) or header != body:
        raise _mismatch("MCP-Protocol-Version and params._meta name different versions")
    if body not in MODERN_VERSIONS:
        raise unsupported(body)
    if not claims.has_capabilities:
        raise Fault(FaultKind.INVALID_PARAMS, f"params._meta lacks {Meta.CLIENT_CAPABILITIES}")
    return Course.MODERN


def _require_legacy(header: str | None) -> None:
    if header is not None and header not in LEGACY_VERSIONS:
        raise Fault(FaultKind.INVALID_REQUEST, "MCP-Protocol-Version names a version not served here")


def unsupported(requested: object) -> Fault:
    """-32022. Only modern versions are offered: what is listed must stand in the upstream's own discovery too."""
    return Fault(
        FaultKind.UNSUPPORTED_VERSION, data={"supported": list(MODERN_VERSIONS), "requested": requested}
    )


def era_of_header(header: str | None) -> Era:
    """For GET and DELETE, which carry no body."""
    return Era.MODERN if header in MODERN_VERSIONS else Era.LEGACY


@dataclass(frozen=True, slots=True)
class RoutingHeaders:
    """`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` as they arrived."""

    method: bytes | None
    name: bytes | None
    params: tuple[tuple[bytes, bytes], ...]
    repeated: frozenset[bytes]


def routing_of(message: Message) -> Forwarded:
    """The headers that repeat what a modern message is, and what it is about."""
    routing = ((Header.METHOD, message.method.encode()),)
    parameter = NAMED_BY.get(message.method)
    name = message.params().get(parameter) if parameter is not None else None
    return (*routing, (Header.NAME, codec.encode_value(name))) if isinstance(name, str) else routing


def repeated_of(message: Message) -> Forwarded:
    """All headers that repeat a modern request's body, but for those of its tool's arguments."""
    version = claims_of(message, None).body
    routing = routing_of(message)
    return ((Header.PROTOCOL_VERSION, version.encode()), *routing) if isinstance(version, str) else routing


def check_routing(message: Message, headers: RoutingHeaders) -> None:
    """A proxy that reads the body must not let the headers say something else (PROTOCOL 2.4, 2.6)."""
    for name in headers.repeated:
        if name in (Header.METHOD, Header.NAME) or name.startswith(Header.PARAM_PREFIX):
            raise _mismatch(f"{name.decode('latin-1')} stands twice")
    if headers.method is None:
        raise _mismatch("Mcp-Method is missing")
    if headers.method.strip(b" \t") != message.method.encode():
        raise _mismatch("Mcp-Method does not match the body")
    for name, value in headers.params:
        try:
            codec.decode_value(value)
        except HeaderValueError as error:
            raise _mismatch(f"{name.decode('latin-1')}: {error}") from error
    if message.method in REMOVED_IN_MODERN:
        raise Fault(FaultKind.METHOD_NOT_FOUND, f"{message.method} is not part of this protocol version")
    parameter = NAMED_BY.get(message.method)
    if parameter is not None:
        _check_name(message, parameter, headers.name)


def _check_name(message: Message, parameter: str, header: bytes | None) -> None:
    raw = message.param_members().get(parameter)
    value = None if raw is None else msgspec.json.decode(raw)
    if not isinstance(value, str):
        # The server says what is wrong with the parameter; there is nothing a header could repeat.
        return
    if header is None:
        raise _mismatch("Mcp-Name is missing")
    try:
        if codec.matches(header, value):
            return
    except HeaderValueError as error:
        raise _mismatch(f"Mcp-Name: {error}") from error
    raise _mismatch("Mcp-Name does not match the body")


def _mismatch(why: str) -> Fault:
    return Fault(FaultKind.HEADER_MISMATCH, f"Header mismatch: {why}")

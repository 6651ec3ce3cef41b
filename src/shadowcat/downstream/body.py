"""What a request's body and version header say before anybody acts on them, on every transport over HTTP."""

from __future__ import annotations

from shadowcat.core.negotiate import claims_of
from shadowcat.core.ports import ClientSession
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.message import Headers, Request
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import BATCH_VERSIONS, MODERN_VERSIONS, Header, Method


def address_of(request: Request) -> str:
    return request.peer.address if request.peer is not None else ""


def version_of(headers: Headers) -> str | None:
    value = headers.get(Header.PROTOCOL_VERSION)
    if value is None:
        return None
    if Header.PROTOCOL_VERSION in headers.repeated:
        raise Fault(FaultKind.INVALID_REQUEST, "MCP-Protocol-Version stands twice")
    return value.decode("latin-1")


def whom_to_answer(body: bytes) -> RequestId | None:
    """The id of the request in a body that was refused before anybody read it."""
    try:
        message = jsonrpc.parse(body)
    except Fault:
        return jsonrpc.readable_id(body)
    return message.id if message.is_request else None


def is_batch(body: bytes) -> bool:
    return body.lstrip()[:1] == b"["


def batch_of(body: bytes, version: str | None) -> list[Message | Fault]:
    """The elements of a batch, none of which may be what no batch may hold. Raises `Fault`."""
    elements = jsonrpc.parse_body(body)
    assert isinstance(elements, list)
    if version in MODERN_VERSIONS:
        raise Fault(FaultKind.INVALID_REQUEST, "This protocol version has no batches")
    for element in elements:
        if isinstance(element, Message):
            _refuse_in_batch(element, version)
    return elements


def _refuse_in_batch(element: Message, version: str | None) -> None:
    if claims_of(element, version).body is not None:
        raise Fault(FaultKind.INVALID_REQUEST, "A batch holds a message of a version without batches")
    if element.method == Method.INITIALIZE:
        raise Fault(FaultKind.INVALID_REQUEST, "initialize must not be part of a batch")


def require_batches(session: ClientSession) -> None:
    if session.version not in BATCH_VERSIONS:
        raise Fault(FaultKind.INVALID_REQUEST, f"Protocol version {session.version} has no batches")


def asks_something(elements: list[Message | Fault]) -> bool:
    return any(isinstance(element, Fault) or element.is_request for element in elements)

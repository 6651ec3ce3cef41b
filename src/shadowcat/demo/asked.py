"""Requests of clients, in the shapes in which the demo server reads them."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import Meta

T = TypeVar("T")

Object = dict[str, Any]


class Envelope(msgspec.Struct, frozen=True):
    token: RequestId | None = msgspec.field(name=Meta.PROGRESS_TOKEN, default=None)
    capabilities: Object = msgspec.field(name=Meta.CLIENT_CAPABILITIES, default_factory=dict[str, Any])


class Filter(msgspec.Struct, frozen=True):
    """Of a subscription."""

    uris: list[str] = msgspec.field(name="resourceSubscriptions", default_factory=list[str])


class Asked(msgspec.Struct, frozen=True):
    """The parameters of a request. Each method reads its own; what the others are is left as it is by default."""

    name: str = ""
    uri: str = ""
    arguments: Object | None = None
    answers: dict[str, Object] = msgspec.field(name="inputResponses", default_factory=dict[str, Object])
    filter: Filter = msgspec.field(name="notifications", default_factory=Filter)
    version: str = msgspec.field(name="protocolVersion", default="")
    capabilities: Object = msgspec.field(default_factory=dict[str, Any])
    meta: Envelope = msgspec.field(name="_meta", default_factory=Envelope)


class Elicited(msgspec.Struct, frozen=True):
    action: str
    content: Object | None = None


class Text(msgspec.Struct, frozen=True):
    text: str = ""


class Sampled(msgspec.Struct, frozen=True):
    content: Text | list[Text] = msgspec.field(default_factory=Text)


def asked_by(request: Message) -> Asked:
    return read_as(Asked, request.params())


def read_as(shape: type[T], value: Any) -> T:
    """Raises `Fault` for what has another shape."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise Fault(FaultKind.INVALID_PARAMS, f"Invalid params: {error}") from error

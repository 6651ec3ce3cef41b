"""Many requests over one connection, with ids, progress tokens and subscription ids that cannot be mixed up.

On a connection that several parties share, each request gets an id that is used once, and where the client asked for
progress that id is its token too. What comes back gets the client's own values again, types included.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from shadowcat.core.correlate import progress_token
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message, RequestId
from shadowcat.wire.mcp import Meta

_META = "_meta"


def renumbered(request: Message, id: int) -> tuple[Message, RequestId | None]:
    """The request under an id of the connection's, and the progress token that it came with."""
    token = progress_token(request)
    if token is None:
        return request.with_id(id), None
    params = request.param_members()
    params[_META] = _with(params[_META], Meta.PROGRESS_TOKEN, id)
    return request.with_params(_raw(params)).with_id(id), token


def token_of(progress: Message) -> RequestId | None:
    """The token that a progress notification names."""
    return _id_in(progress.raw_params, Meta.PROGRESS_TOKEN)


def with_token(progress: Message, token: RequestId) -> Message:
    return progress.with_params(_with(Raw(progress.raw_params), Meta.PROGRESS_TOKEN, token))


def request_named_by(cancelled: Message) -> RequestId | None:
    """The request that a `notifications/cancelled` is about."""
    return _id_in(cancelled.raw_params, "requestId")


def with_request_named(cancelled: Message, id: RequestId) -> Message:
    return cancelled.with_params(_with(Raw(cancelled.raw_params), "requestId", id))


def subscription_of(message: Message) -> RequestId | None:
    """The subscription that a notification, or the result that ends one, belongs to."""
    body = message.raw_params if message.is_notification else message.raw_result
    if Meta.SUBSCRIPTION_ID.encode() not in body:
        return None
    try:
        meta = jsonrpc.members(body).get(_META)
        return None if meta is None else _id_in(bytes(meta), Meta.SUBSCRIPTION_ID)
    except (Fault, msgspec.MsgspecError):
        return None


def with_subscription(message: Message, id: RequestId) -> Message:
    """The same message under another subscription id; it has to have one."""
    body = message.raw_params if message.is_notification else message.raw_result
    members = jsonrpc.members(body)
    members[_META] = _with(members[_META], Meta.SUBSCRIPTION_ID, id)
    if message.kind is Kind.RESULT:
        assert message.id is not None
        return jsonrpc.result(message.id, _raw(members))
    return message.with_params(_raw(members))


_decode_id = msgspec.json.Decoder(int | str).decode


def _id_in(raw: bytes, key: str) -> RequestId | None:
    try:
        found = jsonrpc.members(raw).get(key)
        return None if found is None else _decode_id(found)
    except (Fault, msgspec.MsgspecError):
        return None


def _with(raw: Raw, key: str, value: RequestId) -> Raw:
    """The object with one member replaced, and every other one as it was."""
    members = jsonrpc.members(bytes(raw))
    members[key] = Raw(msgspec.json.encode(value))
    return _raw(members)


def _raw(members: dict[str, Raw]) -> Raw:
    return Raw(msgspec.json.encode(members))

"""The trace that a request is part of: named by HTTP (W3C Trace Context), or by `_meta`, where MCP has it.

No header of a client's goes on to the server, which may not even speak HTTP; the trace goes on in the message.
"""

from __future__ import annotations

import re

import msgspec

from shadowcat.errors import Fault
from shadowcat.http.message import Headers
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message

TRACEPARENT = b"traceparent"
_PARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
_STATE = re.compile(rb"[ -~]{1,512}")


def with_trace(message: Message, headers: Headers) -> Message:
    """With what the headers say in its `_meta`, where that says nothing itself."""
    parent = headers.get(TRACEPARENT)
    if parent is None or not message.is_request or not _PARENT.fullmatch(parent):
        return message
    try:
        params = message.param_members()
        meta = jsonrpc.members(bytes(params["_meta"])) if "_meta" in params else {}
    except Fault:
        # What is wrong with it is for the server to say.
        return message
    if "traceparent" in meta:
        return message
    meta["traceparent"] = _raw(parent)
    state = headers.get(b"tracestate")
    if state is not None and _STATE.fullmatch(state):
        meta["tracestate"] = _raw(state)
    return message.with_params(params | {"_meta": msgspec.Raw(msgspec.json.encode(meta))})


def _raw(value: bytes) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value.decode("ascii")))

"""What an upstream's HTTP answer means: a message, a stream, or whose fault it is.

Servers in the wild disagree about statuses; the tolerances here are those of PROTOCOL 4.4 and 5.3.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from shadowcat.core.exchange import Answer
from shadowcat.errors import Fault, FaultKind
from shadowcat.http.incoming import ClientResponse
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import ERROR, Message

JSON = b"application/json"
SSE = b"text/event-stream"

_METHOD_NOT_FOUND = -32601
# "Bad Request: No valid session ID provided", "Server not initialized": what SDK servers say after a restart.
_SESSION_WORDS = re.compile(r"session|not initialized", re.IGNORECASE)
_SESSION_CODES = frozenset({-32000, -32600, -32001})


@lru_cache(maxsize=256)
def media_type(content_type: bytes | None) -> bytes:
    return (content_type or b"").partition(b";")[0].strip().lower()


def messages_of(raw: bytes) -> list[Message]:
    """What one event or body holds: a message, or the messages of a batch. Anything else is the upstream's fault."""
    try:
        if raw[:1] == b"{":
            return [jsonrpc.parse(raw)]
        parsed = jsonrpc.parse_body(raw)
    except Fault as fault:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True) from fault
    if isinstance(parsed, Message):
        return [parsed]
    found: list[Message] = []
    for element in parsed:
        if isinstance(element, Fault):
            raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True) from element
        found.append(element)
    return found


def error_of(answer: Message) -> dict[str, Any]:
    """What an error says. Raises `Fault` where that cannot be read."""
    try:
        return answer.error()
    except Fault as fault:
        raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_sent_garbage", sent=True) from fault


def whole_answer(request: Message, response: ClientResponse) -> Answer | None:
    """The answer that is all here, and nothing but an answer; None for whatever needs a closer look."""
    if not response.complete or response.status != 200:
        return None
    if media_type(response.headers.get(b"content-type")) != JSON:
        return None
    try:
        message = jsonrpc.parse(response.so_far())
    except Fault:
        return None
    answer = jsonrpc.answer_to(request.id, message)
    return None if answer is None else Answer(whole=answer)


def answer_of(request: Message, status: int, body: bytes) -> Answer:
    """A JSON body that answers `request`."""
    for message in messages_of(body):
        answer = jsonrpc.answer_to(request.id, message)
        if answer is not None:
            return Answer(whole=answer, status=status)
    raise Fault(FaultKind.UPSTREAM_INVALID, reason="upstream_answered_something_else", sent=True)


def refusal_of(
    request: Message | None, status: int, content_type: bytes, body: bytes, *, in_session: bool
) -> Answer:
    """What a status other than 2xx means. Raises `Fault`, unless it carries an error for the request itself."""
    error = _error_in(content_type, body)
    if in_session and _says_session_lost(status, error):
        raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost")
    if status in (401, 403):
        # Our credentials, not the client's: the challenge is not for it, and its session has not ended.
        told = f"The upstream refused the proxy with HTTP {status}"
        raise Fault(FaultKind.UPSTREAM_FAILED, told, reason="upstream_auth", sent=True)
    if 300 <= status < 400:
        told = f"The upstream redirected elsewhere with HTTP {status}; that is not followed"
        raise Fault(FaultKind.UPSTREAM_FAILED, told, reason="upstream_redirected", sent=True)
    # With 405 the error is about HTTP's method, POST, and answers no request.
    if request is not None and error is not None and status != 405:
        return Answer(whole=error.with_id(request.id), status=status)
    told = f"The upstream answered with HTTP {status}"
    if status in (404, 405):
        told += "; is its URL that of an MCP endpoint?"
    raise Fault(FaultKind.UPSTREAM_FAILED, told, reason=f"upstream_http_{status}", sent=True)


def _error_in(content_type: bytes, body: bytes) -> Message | None:
    if content_type != JSON or not body:
        return None
    try:
        message = jsonrpc.parse(body)
    except Fault:
        return None
    return message if message.kind is ERROR else None


def _says_session_lost(status: int, error: Message | None) -> bool:
    if status == 404:
        # A method that is not there is no session that is not there.
        return error is None or error_of(error).get("code") != _METHOD_NOT_FOUND
    if status != 400 or error is None:
        return False
    told = error_of(error)
    return told.get("code") in _SESSION_CODES and bool(_SESSION_WORDS.search(str(told.get("message", ""))))

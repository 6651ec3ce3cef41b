"""What a modern HTTP server does itself, done for one that speaks stdio: statuses, header checks."""

from __future__ import annotations

from functools import partial

from shadowcat.core.exchange import Forwarded
from shadowcat.errors import Fault
from shadowcat.upstream.channel import Channel
from shadowcat.upstream.interpret import error_of
from shadowcat.upstream.tools import envelope_of
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Meta, Method

_NOT_FOUND = -32601
_BAD_REQUEST = frozenset({-32020, -32021, -32022})
_INVALID_PARAMS = -32602


async def check(channel: Channel, request: Message, forwarded: Forwarded) -> None:
    """Nobody between may have gone by headers that say something else. Raises `Fault`."""
    if request.method != Method.TOOLS_CALL:
        return
    headers = dict(forwarded)
    tools = channel.tools.headers
    try:
        tools.check(request, headers)
        if tools.knows(request):
            return
    except Fault:
        # The tool may have changed since.
        pass
    await channel.tools.ask_again(request, partial(_asked, channel))
    tools.check(request, headers)


async def _asked(channel: Channel, request: Message) -> Message | None:
    call = await channel.call(request)
    answer = await call.answer()
    if answer.whole is None:
        await call.aclose()
    return answer.whole


def status_of(channel: Channel, request: Message, answer: Message) -> int:
    """The HTTP status of an answer (PROTOCOL 6e)."""
    if request.method == Method.TOOLS_LIST:
        channel.tools.headers.learn(answer)
    if answer.kind is not Kind.ERROR:
        return 200
    code = error_of(answer).get("code")
    if code == _NOT_FOUND:
        return 404
    if code in _BAD_REQUEST or (code == _INVALID_PARAMS and not _has_envelope(request)):
        return 400
    return 200


def _has_envelope(request: Message) -> bool:
    return {Meta.PROTOCOL_VERSION, Meta.CLIENT_CAPABILITIES} <= envelope_of(request).keys()

"""What a modern server does where it speaks HTTP itself, done for one that speaks stdio: statuses, header checks."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any, cast

from shadowcat.core.exchange import Forwarded
from shadowcat.errors import Fault
from shadowcat.upstream.channel import Channel
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Meta, Method

log = logging.getLogger("shadowcat.upstream")

_NOT_FOUND = -32601
_BAD_REQUEST = frozenset({-32020, -32021, -32022})
_INVALID_PARAMS = -32602
_ENVELOPE = frozenset({Meta.PROTOCOL_VERSION, Meta.CLIENT_CAPABILITIES, Meta.CLIENT_INFO})
_LIST_S = 10.0
_LIST_PAGES = 100
_LIST_AGAIN_S = 1.0
"""Calls of tools that do not exist must not have them listed each time."""


class HttpDuties:
    def __init__(self, name: str) -> None:
        self._name = name

    async def check(self, channel: Channel, request: Message, forwarded: Forwarded) -> None:
        """Nobody between may have gone by headers that say something else. Raises `Fault`."""
        if request.method != Method.TOOLS_CALL:
            return
        headers = dict(forwarded)
        try:
            channel.tools.check(request, headers)
            if channel.tools.knows(request):
                return
        except Fault:
            # The tool may have changed since.
            pass
        async with channel.listing_tools:
            await self._list_tools(channel, request)
        channel.tools.check(request, headers)

    async def _list_tools(self, channel: Channel, request: Message) -> None:
        """Asks in the name of who calls. A server that does not list its tools has none to check."""
        now = asyncio.get_running_loop().time()
        if now - channel.tools_asked_at < _LIST_AGAIN_S:
            return
        channel.tools_asked_at = now
        params: dict[str, Any] = {"_meta": _envelope_of(request)}
        try:
            async with asyncio.timeout(_LIST_S):
                for _ in range(_LIST_PAGES):
                    call = await channel.call(jsonrpc.request(0, Method.TOOLS_LIST, params))
                    answer = await call.answer()
                    if answer.whole is None:
                        await call.aclose()
                        break
                    cursor = channel.tools.learn(answer.whole)
                    if cursor is None:
                        return
                    params["cursor"] = cursor
        except (Fault, TimeoutError):
            pass
        except BaseException:
            # Whoever calls next must not find that they were just asked for, and go unchecked.
            channel.tools_asked_at = -math.inf
            raise
        log.info("upstream %s: not all of its tools are known", self._name)

    def status_of(self, channel: Channel, request: Message, answer: Message) -> int:
        """The HTTP status of an answer (PROTOCOL 6e)."""
        if request.method == Method.TOOLS_LIST:
            channel.tools.learn(answer)
        if answer.kind is not Kind.ERROR:
            return 200
        code = answer.error().get("code")
        if code == _NOT_FOUND:
            return 404
        if code in _BAD_REQUEST or (code == _INVALID_PARAMS and not _has_envelope(request)):
            return 400
        return 200


def _has_envelope(request: Message) -> bool:
    return {Meta.PROTOCOL_VERSION, Meta.CLIENT_CAPABILITIES} <= _envelope_of(request).keys()


def _envelope_of(request: Message) -> dict[str, Any]:
    meta = request.params().get("_meta")
    if not isinstance(meta, dict):
        return {}
    return {key: value for key, value in cast("dict[str, Any]", meta).items() if key in _ENVELOPE}

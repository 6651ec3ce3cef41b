"""Which arguments a modern server's tools want repeated in headers, asked for when a call first needs to know."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

from shadowcat.core.annotations import ToolHeaders
from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Meta, Method

log = logging.getLogger("shadowcat.upstream")

_ENVELOPE = frozenset({Meta.PROTOCOL_VERSION, Meta.CLIENT_CAPABILITIES, Meta.CLIENT_INFO})
_LIST_S = 10.0
_LIST_PAGES = 100
_LIST_AGAIN_S = 1.0
"""Calls of tools that do not exist must not have them listed each time."""

Ask = Callable[[Message], Awaitable[Message | None]]
"""Has a server answer; None where it gives no whole answer."""


class ListedTools:
    def __init__(self, name: str) -> None:
        """`name` is the server's."""
        self._name = name
        self.headers = ToolHeaders()
        self._asked_at = -math.inf
        self._turn = asyncio.Lock()

    @property
    def is_asking(self) -> bool:
        return self._turn.locked()

    async def ask_again(self, request: Message, ask: Ask) -> None:
        """In the name of who calls. A server that does not list its tools has none that are known."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at < _LIST_AGAIN_S:
                return
            self._asked_at = now
            try:
                async with asyncio.timeout(_LIST_S):
                    is_whole = await self._list(envelope_of(request), ask)
            except (Fault, TimeoutError):
                is_whole = False
            except BaseException:
                # Whoever calls next must not find that they were just asked for, and go unchecked.
                self._asked_at = -math.inf
                raise
            if not is_whole:
                log.info("upstream %s: not all of its tools are known", self._name)

    async def _list(self, envelope: dict[str, Any], ask: Ask) -> bool:
        params: dict[str, Any] = {"_meta": envelope}
        for _ in range(_LIST_PAGES):
            answer = await ask(jsonrpc.request(0, Method.TOOLS_LIST, params))
            if answer is None:
                return False
            cursor = self.headers.learn(answer)
            if cursor is None:
                return True
            params["cursor"] = cursor
        return False


def envelope_of(request: Message) -> dict[str, Any]:
    """What a modern request says of its client."""
    meta = request.params().get("_meta")
    if not isinstance(meta, dict):
        return {}
    return {key: value for key, value in cast("dict[str, Any]", meta).items() if key in _ENVELOPE}

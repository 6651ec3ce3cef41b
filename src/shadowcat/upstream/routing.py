"""The headers of modern requests, for clients that send none: an HTTP server wants them to repeat the body."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.core.flawed_tools import without_flawed
from shadowcat.core.negotiate import repeated_of
from shadowcat.core.ports import Link, Upstream
from shadowcat.upstream.interpret import error_of
from shadowcat.upstream.streamable import final_of
from shadowcat.upstream.tools import ListedTools
from shadowcat.wire.jsonrpc import Kind, Message
from shadowcat.wire.mcp import Method
from shadowcat.wire.text import printable

log = logging.getLogger("shadowcat.upstream")

_MISMATCH = -32020


class RoutedUpstream:
    """An upstream around one that speaks HTTP. What headers say is taken from what is sent, whoever changed that."""

    def __init__(self, upstream: Upstream) -> None:
        self.name = upstream.name
        self._upstream = upstream
        self._tools = ListedTools(upstream.name)

    async def open(self, initialize: Message) -> tuple[Link, Message]:
        return await self._upstream.open(initialize)

    def attach(self, upstream_id: str | None, version: str) -> Link:
        return self._upstream.attach(upstream_id, version)

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        if request.method == Method.TOOLS_CALL:
            return await self._called(request)
        answer = await self._asked(request)
        if request.method == Method.TOOLS_LIST:
            if answer.whole is not None:
                answer.whole = self._offered(answer.whole)
            elif answer.stream is not None:
                answer.stream = _Listing(answer.stream, self._offered)
        return answer

    def _offered(self, listed: Message) -> Message:
        """What this client may see of a server's tools, as of any that speaks HTTP."""
        self._tools.headers.learn(listed)
        offered, flawed = without_flawed(listed)
        for tool in flawed:
            log.warning(
                "upstream %s: its tool %s is left out: %s",
                self.name,
                printable(tool.name.encode(), 100),
                tool.flaw,
            )
        return offered

    async def _called(self, call: Message) -> Answer:
        tools = self._tools
        if not tools.headers.knows(call):
            await tools.ask_again(call, self._listed)
        answer = await self._asked(call)
        if not _is_mismatch(answer):
            return answer
        # The tool is another by now. Nothing was done: a server looks at the headers first.
        await tools.ask_again(call, self._listed)
        return await self._asked(call)

    async def _asked(self, request: Message) -> Answer:
        headers = repeated_of(request)
        if request.method == Method.TOOLS_CALL:
            headers += tuple(self._tools.headers.headers_of(request))
        return await self._upstream.exchange(request, headers)

    async def _listed(self, listing: Message) -> Message:
        return await final_of(await self._asked(listing), listing)

    async def aclose(self) -> None:
        await self._upstream.aclose()


class _Listing:
    """The stream that leads to a page of tools."""

    def __init__(self, stream: MessageStream, offered: Callable[[Message], Message]) -> None:
        self._stream = stream
        self._offered = offered

    @property
    def cursor(self) -> bytes | None:
        return self._stream.cursor

    def __aiter__(self) -> _Listing:
        return self

    async def __anext__(self) -> list[Message]:
        batch = await anext(self._stream)
        return [self._offered(message) if message.is_response else message for message in batch]

    async def aclose(self) -> None:
        await self._stream.aclose()


def _is_mismatch(answer: Answer) -> bool:
    whole = answer.whole
    return whole is not None and whole.kind is Kind.ERROR and error_of(whole).get("code") == _MISMATCH
